"""How fast this machine trains, compared with the plain implementation: ``glamkit benchmark``.

The fast side is a `Trainer`. The reference side, `plain.PlainTrainer`, does what the released code does, in float32:
every window read again in full, nothing shared. Both start from the same weights and share one replay. They take turns
in one process, so that whatever slows the machine slows both. A ratio is formed in each round.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from glamkit import notebook
from glamkit.bench import hardware
from glamkit.bench.timing import EAGER, PHASES, SIDES, Clock, TimedTrainer, Work, count_fast, run_hours, step_costs
from glamkit.config import Checked, Config, setting
from glamkit.errors import GlamkitError, nearest
from glamkit.notebook import Tell, duration
from glamkit.plotting import count
from glamkit.runs.files import replace_text
from glamkit.runtime import resolve_device, undisturbed
from glamkit.training.trainer import Trainer

SAME = {"imagination.contexts": "replay", "imagination.memory": "window"}  # what the released code does
OPT_IN = {"imagination.contexts": "batch", "imagination.memory": "recurrent"}
BUSY, LOAD = 0.25, 1.0  # cores that others use meanwhile, and programs in the minute before: more spoils timings
QUIET = "Other programs that run at the same time spoil such timings: trust them from a quiet machine only."
RATE = (
    "Of the machine's rate: glamkit's matrix products and convolutions, counted as in the plain code. Not counted: "
    "scans, table look-ups, and products inside glamkit's own kernels."
)
BASIS = "from the step's cost at the horizons of the run and from acting; without evaluation and saving"

Keep = Callable[[dict[str, Any]], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchmarkPlan(Checked):
    """What is measured, and how often; `phases` may be given as text with commas.

    Raises:
        GlamkitError: no phase or an unknown one is named, or a number is out of range.
    """

    phases: tuple[str, ...] = setting(tuple(PHASES), "names", "the phases that are timed")
    repeats: int = setting(3, "rounds", "in each of which every side of every phase is timed once", 1, 1000)
    games: int = setting(1, "games", "that the predicted hours are for, one after the other", 1, 100_000)

    def __post_init__(self) -> None:
        if isinstance(self.phases, str):
            object.__setattr__(self, "phases", tuple(self.phases.replace(",", " ").split()))
        if not self.phases:
            raise GlamkitError(f"phases names none; allowed: {', '.join(PHASES)}.")
        super().__post_init__()
        for name in self.phases:
            if name not in PHASES:
                raise GlamkitError(f"unknown phase {name!r}; {nearest(name, PHASES)}")
        object.__setattr__(self, "phases", tuple(name for name in PHASES if name in self.phases))


def measure(
    config: Config, plan: BenchmarkPlan | None = None, tell: Tell = lambda _: None, keep: Keep = lambda _: None
) -> dict[str, Any]:
    """Measures everything. The result consists of plain values, ready for JSON.

    The fast side of the phases does the same work as the reference: `imagination.contexts` and `.memory` are set as in
    the released code. ``step_opt_in`` is the whole step with the faster settings (`OPT_IN`). The predicted hours are
    for the config as it is given. The state of the random generators is restored at the end.

    Args:
        config: the experiment whose sizes are used.
        plan: what is measured.
        tell: is called with the progress, as text.
        keep: is called with the result once all times are measured. Memory, which takes minutes more, comes after.

    Returns:
        ``phases``: for each phase (and ``step_opt_in`` if ``step`` is measured) seconds, ratios, operations and bytes.
        ``machine``: names, versions, and operations per second. ``environment``: game steps per second.
        ``predicted_hours``: of a whole run, if ``step`` is measured. ``settings``: the plan and the config.

    Raises:
        GlamkitError: the device is not there, or the game does not start.
    """
    plan, busy = plan or BenchmarkPlan(), hardware.busy()
    resolve_device(config.runtime.device)
    with undisturbed(config.trainer.seed):
        report = timed(config, plan, tell)
        report["machine"]["busy_before"] = busy
        report["settings"] = {**asdict(plan), "config": asdict(config)}
        add_flops(report, config, tell)
        keep(report)
        add_memory(report, config, tell)
    return report


def timed(config: Config, plan: BenchmarkPlan, tell: Tell) -> dict[str, Any]:
    """The timings of the phases, the machine, game speeds and predicted hours, from trainers in one process."""
    same = as_released(config)
    with ExitStack() as stack:
        benches: dict[Config, TimedTrainer] = {}

        def bench(changed: Config) -> TimedTrainer:
            # One for each way of imagining, since a trainer may have compiled its own.
            if changed not in benches:
                tell(f"playing {changed.env.game} for {changed.trainer.warmup:,} steps")
                benches[changed] = TimedTrainer(
                    changed, stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
                )
            return benches[changed]

        main, works = bench(same), dict[tuple[str, str], Work]()
        tell("preparing what the phases start from; compiling, where it is done, takes minutes")
        for name in plan.phases:
            works[name, "fast"] = main.fast(name)
            if name == "step":
                works[name, "opt_in"] = bench(config.override(**OPT_IN)).fast(name)
            works[name, "reference"] = main.reference(name)
        clock = Clock(main.trainer, works, tell)
        clock.warm_up("reference")
        others = hardware.OtherPrograms()
        clock.run(plan.repeats)
        busy_during = others.read()
        phases = {name: clock.compare(name, "fast") for name in plan.phases}
        for name in plan.phases:
            phases[name]["reference_flops"] = clock.flops[name, "reference"]
        if "step" in phases:
            phases["step_opt_in"] = clock.compare("step", "opt_in")
        tell("playing")
        usual = bench(config).trainer
        report = {
            "phases": phases,
            "machine": {**hardware.describe(main.trainer), "busy_during": busy_during},
            "environment": hardware.game_speeds(usual),
        }
        if "step" in phases:
            report["predicted_hours"] = predict(usual, plan, report, step_costs(usual, plan.repeats, tell))
        return report


def as_released(config: Config) -> Config:
    """The config of the phases that are timed beside the released code: the same work.

    Phases are repeated here with the same weights, which change between them in training. So no embedding is kept.
    """
    off = config.runtime.accelerate
    off = {"on": "embedding_cache", "off": "off"}.get(off, f"{off},embedding_cache")
    return config.override(**SAME, **{"runtime.accelerate": off})


def predict(trainer: Trainer, plan: BenchmarkPlan, report: dict[str, Any], costs: dict[int, float]) -> dict[str, Any]:
    """Predicted hours of whole runs.

    Args:
        trainer: of the config whose runs are predicted.
        plan: how many games.
        report: the result so far: its phases and game speeds. The speed of training is added to the latter.
        costs: horizon -> seconds of a training step.
    """
    config, speeds, phases = trainer.config, report["environment"], report["phases"]
    hours = run_hours(config, costs, speeds)
    first, updates = config.imagination.horizon, 1 / config.trainer.update_every
    speeds["training"] = 1 / (1 / speeds["acting_and_game"] + updates * costs[first])
    predicted: dict[str, Any] = {"per_game": hours, "games": plan.games, "all_games": plan.games * hours}
    predicted |= {"step_s_at_horizon": {str(horizon): cost for horizon, cost in costs.items()}, "basis": BASIS}
    if set(PHASES) <= set(phases):
        slow = {name: phases[name]["reference_s"] for name in PHASES}
        fixed = slow["world_model"] + slow["imagination"] - slow["imagination_steps"]
        per_step = (slow["imagination_steps"] + slow["actor_critic"]) / config.imagination.horizon
        # Before `imagination.begin`, horizon 0, nothing is encoded for imagination either.
        plain = {horizon: fixed + per_step * horizon if horizon else slow["world_model"] for horizon in costs}
        hours = run_hours(config, plain, speeds)
        predicted["reference_per_game"] = hours
    return predicted


def add_flops(report: dict[str, Any], config: Config, tell: Tell) -> None:
    """Adds to each phase its floating-point operations, and which share of the machine's own rate they reach."""
    phases, machine = report["phases"], report["machine"]
    tell("counting operations")
    counted = count_fast(as_released(config), [name for name in phases if name in PHASES])
    if "step" in phases:
        counted["step_opt_in"] = count_fast(config.override(**OPT_IN), ["step"])["step"]
    rates = machine["matrix_flops_per_s"]
    for name, row in phases.items():
        row["flops"] = counted[name]
        row["share_of_peak"] = row["flops"] / row["fast_s"] / rates[machine["precision"]]
        if "reference_flops" in row:
            row["reference_share_of_peak"] = row["reference_flops"] / row["reference_s"] / rates["float32"]


def add_memory(report: dict[str, Any], config: Config, tell: Tell) -> None:
    """Adds the peak memory of each side in bytes, measured in a process of its own.

    So neither side counts what the other left in memory.
    """
    phases, same = report["phases"], as_released(config)
    sides = {"fast": (same, "fast"), "reference": (same.override(**EAGER), "reference")}
    if "step" in phases:
        sides["opt_in"] = (config.override(**OPT_IN), "fast")
    result = {}
    for name, (changed, side) in sides.items():
        tell(f"peak memory of {SIDES[name]}, in a process of its own")
        command = [sys.executable, "-m", "glamkit.bench.timing", side]
        done = subprocess.run(command, input=changed.to_json(), capture_output=True, text=True, check=False)
        if done.returncode:  # killed, most likely for want of memory: the timings are still good
            text = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            logger.warning("The memory of %s could not be measured (%s).", SIDES[name], text)
        result[name] = {} if done.returncode else json.loads(done.stdout.splitlines()[-1])
    for name, row in phases.items():
        fast, phase = ("opt_in", "step") if name == "step_opt_in" else ("fast", name)
        row["fast_peak_bytes"] = result[fast].get(phase)
        row["reference_peak_bytes"] = result["reference"].get(phase)


# Reading it -----------------------------------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> notebook.Table:
    """A row for each phase: seconds of both sides, ratio, rate and memory."""
    rows = [("phase", "glamkit", "plain", "plain / glamkit", "of the machine's rate", "peak memory: glamkit", "plain")]
    for name, row in report["phases"].items():
        times = (span(row["fast_s"]), span(row["reference_s"]), beside_plain(row["ratio"], 2))
        memory = (size(row.get("fast_peak_bytes")), size(row.get("reference_peak_bytes")))
        rows.append((name, *times, f"{row['share_of_peak']:.0%}", *memory))
    warning = disturbed(report.get("machine", {}))
    return notebook.Table(rows, f"{RATE} {f'Not to be trusted: {warning}.' if warning else QUIET}")


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
    """A row for each fact: the machine, the game speeds and the predicted hours."""
    machine, games, hours = report["machine"], report["environment"], report.get("predicted_hours")
    rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in machine["matrix_flops_per_s"].items())
    kind = f"{machine['precision']} on {machine['device']}"
    rows = [
        ("machine", f"{machine['name']}, {machine['threads']} threads, torch {machine['torch']}"),
        ("glamkit", f"{kind}, scan: {machine['kernel']}, compiled: {machine['compiled']}"),
        ("matrix products", rates),
        ("one game", f"{games['game_alone']:,.0f} steps/s alone, {games['acting_and_game']:,.0f} steps/s with acting"),
        ("evaluation", f"{games['evaluation']:,.0f} steps/s of all its games together"),
    ]
    busy = {
        "before": (machine["busy_before"], "programs"),
        "meanwhile": (machine.get("busy_during"), "cores of others"),
    }
    known = [(when, f"{number:.1f} {what}") for when, (number, what) in busy.items() if number is not None]
    rows[1:1] = [(f"busy {when}", f"{text}, on {machine['cores']} cores") for when, text in known]
    if hours:
        rows.append(("training", f"{games['training']:.3g} steps/s with its updates, at the first horizon"))
        predicted = f"{duration(3600 * hours['all_games'])} predicted, {hours['basis']}"
        rows.append((count(hours["games"], "whole run"), predicted))
    return notebook.Table(rows)


def span(seconds: float) -> str:
    """A time in seconds as text: ``12.3 s``, ``45.6 ms``."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def size(count: int | None) -> str:
    """A number of bytes as text: ``1.24 GiB``; empty where it is not known."""
    return "" if count is None else f"{count / 2**30:.2f} GiB"


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
