"""How fast this machine trains, compared with the plain implementation: ``glamkit benchmark``.

Both sides are a `Trainer`, one of them with `timing.PLAIN`, and start from the same weights and steps. They take turns
in one process, so that whatever slows the machine slows both. A ratio is formed in each round.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from glamkit import notebook, plotting
from glamkit.bench import timing
from glamkit.bench.timing import PHASES, PLAIN, Work
from glamkit.config import Config, at_least
from glamkit.envs import make_env
from glamkit.errors import GlamkitError
from glamkit.notebook import Tell, duration
from glamkit.plotting import BLUE, GREY, Picture
from glamkit.runs import provenance
from glamkit.runs.files import make_folder, replace_text
from glamkit.runtime import Machine, own_cores, undisturbed
from glamkit.training.trainer import Trainer

SAME = {"imagination.contexts": "replay", "imagination.memory": "window"}  # what the released code does
OPT_IN = {"imagination.contexts": "batch", "imagination.memory": "recurrent"}
QUIET = "Other programs that run at the same time spoil such timings: trust them from a quiet machine only."
BASIS = "from steps in the middle of the run; without evaluation, saving and random steps"


def measure(config: Config, repeats: int = 3, tell: Tell = lambda _: None, file: Path | None = None) -> dict[str, Any]:
    """Measures everything. The result consists of plain values, ready for JSON.

    The fast side of the phases does the same work as the reference: `imagination.contexts` and `.memory` are set as in
    the released code. ``step_opt_in`` is the whole step with the faster settings (`OPT_IN`). The predicted hours are of
    the config as it is given. The state of the random generators is restored at the end.

    Args:
        config: the experiment whose sizes are used.
        repeats: rounds, in each of which every side of every phase is timed once.
        tell: is called with the progress, as text.
        file: where the result is written as JSON: ``phases`` in seconds with ratios, ``machine``, ``predicted_hours``.
    """
    if file is not None:
        file = file.expanduser()
        if file.is_dir():
            raise GlamkitError(f"{file} is a folder; name a file for the figures.")
        make_folder(file.parent)
    repeats = at_least("repeats", repeats)
    Machine(config.runtime)  # what cannot be here is said before hours of work
    make_env(config.env).close()
    with undisturbed(config.trainer.seed):
        report = timed(config, repeats, tell)
    report["settings"] = {"repeats": repeats, "config": asdict(config)}
    if file is not None:
        replace_text(file, json.dumps(report, indent=1))
    return report


def timed(config: Config, repeats: int, tell: Tell) -> dict[str, Any]:
    """The timings of the phases, the machine and predicted hours, from trainers in one process."""
    sides, works, trainers = configs(config), dict[tuple[str, str], Work](), dict[Config, Trainer]()
    with ExitStack() as stack:
        # One for each way of computing, since a trainer may have compiled its own.
        for changed in dict.fromkeys([*sides.values(), config]):
            tell(f"playing {changed.env.game} for {changed.trainer.warmup:,} steps")
            folder = stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
            trainers[changed] = timing.played(changed, folder)
        tell("preparing what the phases start from; compiling, where it is done, takes minutes")
        phases_of = {side: timing.works_of(trainers[changed]) for side, changed in sides.items()}
        for phase in PHASES:
            works |= {(phase, side): phases_of[side][phase] for side in sides if side != "opt_in" or phase == "step"}
        main = trainers[sides["fast"]]
        spans = timing.in_turns(main.machine, works, repeats, tell)
        machine: dict[str, Any] = provenance.versions() | main.machine.describe()
        machine |= {"cores": own_cores(), "kernel": main.kernel}
        phases = {phase: compare(spans[phase, "fast"], spans[phase, "reference"]) for phase in PHASES}
        phases["step_opt_in"] = compare(spans["step", "opt_in"], spans["step", "reference"])
        tell("timing steps in the middle of the run, as configured")
        hours = {"per_game": timing.run_hours(trainers[config]), "basis": BASIS}
    return {"phases": phases, "machine": machine, "predicted_hours": hours}


def configs(config: Config) -> dict[str, Config]:
    """The config of each side, in the order of their turns. ``fast`` and ``reference`` do the same work.

    Phases are repeated here with the same weights, which change between them in training. So no embedding is kept.
    """
    off = config.runtime.accelerate
    off = {"on": "embedding_cache", "off": "off"}.get(off, f"{off},embedding_cache")
    same = config.override({**SAME, "runtime.accelerate": off})
    return {"fast": same, "opt_in": config.override(OPT_IN), "reference": same.override(PLAIN)}


def compare(fast: list[float], reference: list[float]) -> dict[str, Any]:
    """One row of the result: median seconds of a side and of the reference, and the rounds' ratios reference / side."""
    ratios = [slow / quick for quick, slow in zip(fast, reference, strict=True)]
    return {"fast_s": median(fast), "reference_s": median(reference), "ratio": median(ratios), "ratios": ratios}


def table(report: dict[str, Any]) -> notebook.Table:
    """A row for each phase: seconds of both sides, their ratio, and the lowest and highest ratio of a round."""
    rows = [("phase", "glamkit", "plain", "plain / glamkit", "of the rounds")]
    for name, row in report["phases"].items():
        spread = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
        rows.append((name, span(row["fast_s"]), span(row["reference_s"]), f"{row['ratio']:.2f} x", spread))
    return notebook.Table(rows, QUIET)


def facts(report: dict[str, Any]) -> notebook.Table:
    """A row for each fact: the machine, what it computes with, and the predicted hours."""
    machine, hours = report["machine"], report["predicted_hours"]
    kind = f"{machine['precision']} on {machine['device']}"
    rows = [
        ("machine", f"{machine['device_name']}, {machine['threads']} threads, torch {machine['torch']}"),
        ("glamkit", f"{kind}, scan: {machine['kernel']}, compiled: {machine['compiled']}"),
        ("whole run", f"{duration(3600 * hours['per_game'])} predicted, {hours['basis']}"),
    ]
    return notebook.Table(rows)


def span(seconds: float) -> str:
    """A time in seconds as text: ``12.3 s``, ``45.6 ms``."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


@plotting.style
def where_time_goes(report: dict[str, Any]) -> Picture:
    """A bar for the seconds of each phase, plain and glamkit's."""
    phases = report["phases"]
    picture, ((axes,),) = plotting.figure(plotting.WIDE, 4.2)
    for name, key, shift, colour in (("plain", "reference_s", -0.2, GREY), ("glamkit", "fast_s", 0.2, BLUE)):
        times = [row[key] for row in phases.values()]
        bars = axes.barh([place + shift for place in range(len(phases))], times, 0.38, color=colour, label=name)
        axes.bar_label(bars, [span(seconds) for seconds in times], padding=3)
    axes.set_yticks(range(len(phases)), list(phases))
    axes.set(xlabel="seconds (medians)")
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    plotting.legend_below(axes)
    plotting.panel_title(axes, "Where does the time of one training step go?")
    return picture
