"""How what the lens shows changes in training: the log's curves, and the same steps seen as the agent learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from glamkit import plotting
from glamkit.analysis.variation.effective_memory import memory, moments, reach
from glamkit.analysis.variation.events import look
from glamkit.analysis.variation.lens import QUANTITIES, Lens
from glamkit.analysis.variation.metrics import local_share
from glamkit.errors import GlamkitError
from glamkit.plotting import BLUE, GREEN, GREY, ORANGE, Entries, Picture
from glamkit.runs import log as run_log
from glamkit.training.load import LoadedRun, at_step, viewable_steps

LOSSES = tuple(f"world_model/{name}" for name in ("variation_kl", "dynamics_kl", "reward", "termination"))
STEPS, MOMENTS = 64, 4  # that a point is made of: fewer than elsewhere, as there are many points


def points(loaded: LoadedRun, start: int, length: int, seed: int = 0) -> list[dict[str, Any]]:
    """The lens over the last `STEPS` of these steps, as the agent was at each snapshot and checkpoint up to now.

    All see the same steps: what changes is the agent alone.
    """
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
    lens = Lens(loaded)
    seen = look(loaded, lens, start, length, seed)
    variation = seen.variation.at(seen.counted)
    return {
        "step": loaded.step,
        "agreement": float(variation.agreement.mean()),
        "chance": variation.chance,
        "saved": variation.saved,
        "skill": seen.screen.overall(),
        "memory": reach(memory(lens, moments(lens, start, length, MOMENTS), seed).globally.mean(0)),
        **dict(zip(QUANTITIES, local_share(seen.effects.mean(0)).tolist(), strict=True)),
    }


@plotting.style
def training(loaded: LoadedRun, seen: Entries) -> Picture:
    """Against steps: four panels of the log, and four of what the lens shows where there is more than one point."""
    log, config = loaded.run.log_file, loaded.config
    entries = [entry for entry in run_log.read(log) if entry["step"] <= loaded.step]
    several = len(seen) > 1
    picture, grid = plotting.figure(plotting.WIDE, 10.5 if several else 5, 4 if several else 2, 2)
    plotting.draw_losses(grid.flat, entries, config, LOSSES)
    if several:
        draw_points(grid.flat[4:], seen)
    plotting.same_steps(grid.flat)
    text = "Upper four panels: the run's log. Lower four: the same steps, seen by the agent as it was then"
    if not several:
        text = "From the run's log: this run holds no earlier snapshots of its training, so there is no more to compare"
    plotting.heading(picture, f"How did it change in training?\n{text}")
    return picture


def draw_points(row: Sequence[Axes], entries: Entries) -> None:
    """What the lens shows at each point of the training."""
    codes, change, local, back = row
    names = {"GMamba": ("agreement", BLUE), "a constant guess": ("chance", GREY)}
    title = "Variation's likeliest class predicted: is blue above grey?"
    plotting.draw_curves(codes, entries, names, "share of the variables", title)
    names = {"on the screen": ("skill", BLUE), "in the variation's code": ("saved", ORANGE)}
    plotting.draw_curves(change, entries, names, "share", "Share of the change that was predicted: above 0?")
    change.axhline(0, color=GREY, ls="--", lw=1)
    change.set_ylim(-0.5, 1.03)  # an agent that is hardly trained may be worse than no prediction, without a limit
    names = {name: (name, colour) for name, colour in zip(QUANTITIES, (GREY, BLUE, ORANGE, GREEN), strict=True)}
    title = "LMamba's share of each prediction; the rest is GMamba's"
    plotting.draw_curves(local, entries, names, "share of the effect", title)
    local.set(ylim=(-0.03, 1.03))
    names = {"90 % of its effect": ("memory", BLUE)}
    plotting.draw_curves(back, entries, names, "steps back", "How far back does GMamba reach?")
    back.set_ylim(0, 1.3 * np.nanmax([1.0, *(one["memory"] for one in entries)]))
    for axes in row:
        plotting.legend_below(axes, 2)
