"""How what the lens shows changes in training: the log's curves, and the same steps seen as the agent learned."""

from __future__ import annotations

from typing import Any

from glamkit import plotting
from glamkit.analysis.variation.events import look
from glamkit.analysis.variation.lens import QUANTITIES, Lens
from glamkit.analysis.variation.metrics import local_share
from glamkit.errors import GlamkitError
from glamkit.plotting import BLUE, GREEN, GREY, ORANGE, Entries, Picture
from glamkit.runs import log
from glamkit.training.load import LoadedRun, at_step, viewable_steps

LOSSES = tuple(f"world_model/{name}" for name in ("variation_kl", "dynamics_kl", "reward", "termination"))
STEPS = 64  # that a point is made of: fewer than elsewhere, as there are many points


def points(loaded: LoadedRun, start: int, length: int, seed: int = 0) -> list[dict[str, Any]]:
    """The lens over the last `STEPS` of these steps, as the agent was at each snapshot and checkpoint up to now."""
    start, length = start + max(length - STEPS, 0), min(length, STEPS)
    seen = []
    for step in viewable_steps(loaded.run):
        if step < loaded.step:
            try:
                seen.append(point(at_step(loaded, step), start, length, seed))
            except GlamkitError:  # damaged, or deleted meanwhile by the trainer
                continue
    return [*seen, point(loaded, start, length, seed)]


def point(loaded: LoadedRun, start: int, length: int, seed: int = 0) -> dict[str, Any]:
    """What the lens shows with the run's agent, as a log would say it, with LMamba's share of each of `QUANTITIES`."""
    seen = look(loaded, Lens(loaded), start, length, seed)
    shares = dict(zip(QUANTITIES, local_share(seen.effects.mean(0)).tolist(), strict=True))
    saved = seen.variation.at(seen.counted).saved
    return {"step": loaded.step, "saved": saved, "skill": seen.screen.overall(), **shares}


@plotting.style
def training(loaded: LoadedRun, seen: Entries) -> Picture:
    """Against steps: four panels of the log, and two of what the lens shows where there is more than one point."""
    entries = [entry for entry in log.read(loaded.run.log_file) if entry["step"] <= loaded.step]
    rows = 3 if len(seen) > 1 else 2
    picture, grid = plotting.figure(plotting.WIDE, 2.6 * rows, rows, 2)
    plotting.draw_losses(grid.flat, entries, loaded.config, LOSSES)
    text = "From the run's log: this run holds no earlier snapshots of its training, so there is no more to compare"
    if len(seen) > 1:
        change, local = grid[2]
        names = {"on the screen": ("skill", BLUE), "in the variation's code": ("saved", ORANGE)}
        plotting.draw_curves(change, seen, names, "share", "Share of the change that was predicted: above 0?")
        change.axhline(0, color=GREY, ls="--", lw=1)
        change.set_ylim(-0.5, 1.03)  # an agent that is hardly trained may be worse than no prediction, without a limit
        names = dict(zip(QUANTITIES, zip(QUANTITIES, (GREY, BLUE, ORANGE, GREEN), strict=True), strict=True))
        title = "LMamba's share of each prediction; the rest is GMamba's"
        plotting.draw_curves(local, seen, names, "share of the effect", title)
        local.set_ylim(-0.03, 1.03)
        for axes in grid[2]:
            plotting.legend_below(axes, 2)
        text = "Upper four panels: the run's log. Lower two: the same steps, seen by the agent as it was then"
    plotting.same_steps(grid.flat)
    plotting.heading(picture, f"How did it change in training?\n{text}")
    return picture
