"""How fast this machine trains, compared with the plain implementation: ``glamkit benchmark``.

Both sides are a `Trainer`. The reference side computes the plain way: the models as they are written, in float32,
every window read again in full, nothing shared (`timing.PLAIN`). Both start from the same weights and the same steps.
They take turns in one process, so that whatever slows the machine slows both. A ratio is formed in each round.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from glamkit import notebook
from glamkit.bench import hardware
from glamkit.bench.hardware import Work
from glamkit.bench.timing import PHASES, PLAIN, SIDES, Clock, TimedTrainer, run_hours, step_costs
from glamkit.config import Config, at_least
from glamkit.errors import GlamkitError
from glamkit.notebook import Tell, duration
from glamkit.runs.files import replace_text
from glamkit.runtime import resolve_device, undisturbed

SAME = {"imagination.contexts": "replay", "imagination.memory": "window"}  # what the released code does
OPT_IN = {"imagination.contexts": "batch", "imagination.memory": "recurrent"}
BUSY, LOAD = 0.25, 1.0  # cores that others use meanwhile, and programs in the minute before: more spoils timings
QUIET = "Other programs that run at the same time spoil such timings: trust them from a quiet machine only."
BASIS = "from the step's cost at the horizons of the run and from acting; without evaluation and saving"

logger = logging.getLogger(__name__)


def measure(config: Config, repeats: int = 3, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Measures everything but memory, see `add_memory`. The result consists of plain values, ready for JSON.

    The fast side of the phases does the same work as the reference: `imagination.contexts` and `.memory` are set as in
    the released code. ``step_opt_in`` is the whole step with the faster settings (`OPT_IN`). The predicted hours are
    for the config as it is given. The state of the random generators is restored at the end.

    Args:
        config: the experiment whose sizes are used.
        repeats: rounds, in each of which every side of every phase is timed once.
        tell: is called with the progress, as text.

    Returns:
        ``phases``: for each phase and ``step_opt_in`` seconds and ratios. ``machine``: names and versions.
        ``environment``: steps per second. ``predicted_hours``: of a whole run. ``settings``: repeats and config.

    Raises:
        GlamkitError: the device is not there, the game does not start, or there is no round.
    """
    repeats = at_least("repeats", repeats)
    busy = hardware.busy()
    resolve_device(config.runtime.device)
    with undisturbed(config.trainer.seed):
        report = timed(config, repeats, tell)
    report["machine"]["busy_before"] = busy
    return report | {"settings": {"repeats": repeats, "config": asdict(config)}}


def timed(config: Config, repeats: int, tell: Tell) -> dict[str, Any]:
    """The timings of the phases, the machine, game speeds and predicted hours, from trainers in one process."""
    sides, works = configs(config), dict[tuple[str, str], Work]()
    with ExitStack() as stack:
        benches: dict[Config, TimedTrainer] = {}

        def bench(changed: Config) -> TimedTrainer:
            # One for each way of computing, since a trainer may have compiled its own.
            if changed not in benches:
                tell(f"playing {changed.env.game} for {changed.trainer.warmup:,} steps")
                folder = stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
                benches[changed] = TimedTrainer(changed, folder)
            return benches[changed]

        tell("preparing what the phases start from; compiling, where it is done, takes minutes")
        for name in PHASES:
            for side, changed in sides.items():
                if side != "opt_in" or name == "step":
                    works[name, side] = bench(changed).work(name)
        main, usual = bench(sides["fast"]).trainer, bench(config).trainer
        clock = Clock(main, works, tell)
        clock.warm_up()
        others = hardware.OtherPrograms()
        clock.run(repeats)
        machine = {**hardware.describe(main), "busy_during": others.read()}
        phases = {name: clock.compare(name, "fast") for name in PHASES}
        phases["step_opt_in"] = clock.compare("step", "opt_in")
        tell("playing")
        speeds, costs = hardware.game_speeds(usual), step_costs(usual, repeats, tell)
    updates = costs[config.imagination.horizon] / config.trainer.update_every
    speeds["training"] = 1 / (1 / speeds["acting_and_game"] + updates)
    predicted = {"per_game": run_hours(config, costs, speeds), "basis": BASIS}
    predicted["step_s_at_horizon"] = {str(horizon): cost for horizon, cost in costs.items()}
    return {"phases": phases, "machine": machine, "environment": speeds, "predicted_hours": predicted}


def configs(config: Config) -> dict[str, Config]:
    """The config of each side, in the order of their turns. ``fast`` and ``reference`` do the same work.

    Phases are repeated here with the same weights, which change between them in training. So no embedding is kept.
    """
    off = config.runtime.accelerate
    off = {"on": "embedding_cache", "off": "off"}.get(off, f"{off},embedding_cache")
    same = config.override({**SAME, "runtime.accelerate": off})
    return {"fast": same, "opt_in": config.override(OPT_IN), "reference": same.override(PLAIN)}


def add_memory(report: dict[str, Any], config: Config, tell: Tell = lambda _: None) -> None:
    """Adds the peak memory of each side in bytes, ``peak_bytes``; None where it is not known.

    Each is measured in a process of its own, so that no side counts what another left in memory.
    """
    report["peak_bytes"] = peaks = dict[str, int | None]()
    for side, changed in configs(config).items():
        tell(f"peak memory of {SIDES[side]}, in a process of its own")
        command = [sys.executable, "-m", "glamkit.bench.timing"]
        done = subprocess.run(command, input=changed.to_json(), capture_output=True, text=True, check=False)
        if done.returncode:  # killed, most likely for want of memory: the timings are still good
            text = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            logger.warning("The memory of %s could not be measured (%s).", SIDES[side], text)
        peaks[side] = None if done.returncode else json.loads(done.stdout.splitlines()[-1])


# Reading it -----------------------------------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> notebook.Table:
    """A row for each phase: seconds of both sides and their ratio."""
    rows = [("phase", "glamkit", "plain", "plain / glamkit")]
    for name, row in report["phases"].items():
        rows.append((name, span(row["fast_s"]), span(row["reference_s"]), beside_plain(row["ratio"], 2)))
    warning = disturbed(report.get("machine", {}))
    return notebook.Table(rows, f"Not to be trusted: {warning}." if warning else QUIET)


def beside_plain(ratio: float, digits: int = 1) -> str:
    """The plain time as a multiple of glamkit's: ``3.2 x``, or ``0.8 x, slower``."""
    return f"{ratio:.{digits}f} x" + (", slower" if ratio < 1 else "")


def disturbed(machine: Mapping[str, Any]) -> str:
    """What disturbed a measurement, in words; empty where enough cores were free for what others did.

    Args:
        machine: of the result. Where the use of its cores was not measured, the load before counts.
    """
    during, before, cores = machine.get("busy_during"), machine.get("busy_before"), machine.get("cores", 1)
    free = cores - (machine["threads"] if machine.get("device") == "cpu" else 1)
    if during is not None:
        much = during > max(BUSY, free)
        return f"other programs kept {during:.1f} of {cores} cores busy meanwhile" if much else ""
    return f"{before:.1f} programs ran on {cores} cores just before" if (before or 0) > max(LOAD, free) else ""


def facts(report: dict[str, Any]) -> notebook.Table:
    """A row for each fact: the machine, the game speeds, the predicted hours, and memory where it was measured."""
    machine, games, hours = report["machine"], report["environment"], report["predicted_hours"]
    kind = f"{machine['precision']} on {machine['device']}"
    busy = {
        "before": (machine["busy_before"], "programs"),
        "meanwhile": (machine.get("busy_during"), "cores of others"),
    }
    known = [(when, f"{number:.1f} {what}") for when, (number, what) in busy.items() if number is not None]
    rows = [
        ("machine", f"{machine['name']}, {machine['threads']} threads, torch {machine['torch']}"),
        *((f"busy {when}", f"{text}, on {machine['cores']} cores") for when, text in known),
        ("glamkit", f"{kind}, scan: {machine['kernel']}, compiled: {machine['compiled']}"),
        ("one game", f"{games['game_alone']:,.0f} steps/s alone, {games['acting_and_game']:,.0f} steps/s with acting"),
        ("training", f"{games['training']:.3g} steps/s with its updates, at the first horizon"),
        ("whole run", f"{duration(3600 * hours['per_game'])} predicted, {hours['basis']}"),
    ]
    sizes = [f"{SIDES[side]} {size(peak)}" for side, peak in report.get("peak_bytes", {}).items() if peak is not None]
    return notebook.Table([*rows, *([("peak memory", ", ".join(sizes))] if sizes else [])])


def span(seconds: float) -> str:
    """A time in seconds as text: ``12.3 s``, ``45.6 ms``."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def size(count: int) -> str:
    """A number of bytes as text: ``1.24 GiB``."""
    return f"{count / 2**30:.2f} GiB"


def target(path: str | Path) -> Path | None:
    """The file that the JSON is written to, or None for no path. It is checked before hours of work.

    Raises:
        GlamkitError: nothing can be written there.
    """
    if not path:
        return None
    file = Path(path).expanduser()
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise GlamkitError(f"{str(path)!r} is no file that can be written; name one in a folder that is there.")
    return file


def save(report: dict[str, Any], file: Path | None) -> None:
    """Writes the report as JSON, as a whole or not at all; does nothing if there is no file."""
    if file is not None:
        replace_text(file, json.dumps(report, indent=1))
