"""How what the lens shows changes in training: the log's curves, and the same steps seen as the agent learned.

Snapshots are weights of a few moments of the training, see `snapshots`; the last point is the opened checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from glamkit import plotting
from glamkit.analysis.effective_memory import memory, moments
from glamkit.analysis.variation import QUANTITIES, Lens
from glamkit.analysis.variation_metrics import view
from glamkit.errors import GlamkitError
from glamkit.plotting import BLUE, GREEN, GREY, ORANGE, Picture
from glamkit.runs import log as run_log
from glamkit.training.load import LoadedRun, at, looked_back

CURVES = (
    # key in the log, title, unit, section's floor below which nothing is trained
    ("world_model/variation_kl", "Surprise at the variation", "KL, nats", "variation_free_nats"),
    ("world_model/dynamics_kl", "Surprise at the next latent", "KL, nats", "free_nats"),
    ("world_model/reward", "Reward prediction", "cross entropy, nats", ""),
    ("world_model/termination", "Termination prediction", "cross entropy, nats", ""),
)


STEPS, MOMENTS = 64, 4  # that a point is made of: fewer than elsewhere, as there are many points


class SnapshotView(NamedTuple):
    """What the lens shows at one moment of training."""

    step: int
    agreement: float  # of the variation
    chance: float  # of the best constant guess
    knows: float  # share of the variation's blind surprise that the forecast saves
    skill: float  # share of the change on the screen that is foreseen
    local: np.ndarray  # (4,) LMamba's share of `lens.QUANTITIES`
    memory: float  # GMamba's, in steps


def points(opened: LoadedRun, start: int, length: int, seed: int = 0) -> list[SnapshotView]:
    """The lens over the last `STEPS` of these steps, as the agent was at each snapshot and checkpoint up to now.

    All see the same steps, also those who had not come to them yet: what changes is the agent alone.
    """
    start, length = start + max(length - STEPS, 0), min(length, STEPS)
    found = []
    for step in looked_back(opened.run):
        if step < opened.step:
            try:
                found.append(point(at(opened, step), start, length, seed))
            except GlamkitError:  # damaged, or deleted meanwhile by the trainer
                continue
    return [*found, point(opened, start, length, seed)]


def point(opened: LoadedRun, start: int, length: int, seed: int = 0) -> SnapshotView:
    """What the lens shows with the opened agent."""
    lens = Lens.over(opened)
    seen = view(lens, lens.read([start], length, seed))
    variation, blind = seen.variation, seen.variation.blind.sum()
    return SnapshotView(
        opened.step,
        float(variation.agreement.mean()),
        variation.chance,
        float(1 - variation.surprise.sum() / blind) if blind > 0 else float("nan"),
        seen.screen.overall(),
        seen.shares.mean,
        memory(lens, moments(lens, start, length, MOMENTS), seed).memory,
    )


@plotting.style
def training(opened: LoadedRun, found: Sequence[SnapshotView]) -> Picture:
    """Eight panels against steps: four of the log, four of what the lens shows at moments of the training."""
    log, config = opened.run.log_file, opened.config
    entries = [entry for entry in (run_log.read(log) if log.exists() else []) if entry["step"] <= opened.step]
    picture, grid = plotting.figure(10, 6, 2, 4)
    picture.get_layout_engine().set(w_pad=0.1)  # type: ignore[union-attr,call-arg]
    for axes, (key, title, unit, floor) in zip(grid[0], CURVES, strict=True):
        plotting.draw_series(axes, entries, key, title, unit, True)
        level = getattr(config.world_model, floor) if floor else 0
        if level:
            axes.axhline(level, color=GREY, ls="--", lw=1, label="free: not trained below")
            axes.legend(loc="best")
    foreseen, screen, local, back = grid[1]
    draw(foreseen, found, {"agreement": ("agreement", BLUE), "a constant guess": ("chance", GREY)}, "share")
    foreseen.set_title("Variation's likeliest class:\nknown where over grey")
    draw(screen, found, {"on the screen": ("skill", BLUE), "in the variation's code": ("knows", ORANGE)}, "share")
    screen.set_title("Change foreseen: over 0\nit knows something")
    screen.axhline(0, color=GREY, ls="--", lw=1)
    screen.set_ylim(-0.5, 1.03)  # an agent that is hardly trained may be worse than blind without a limit
    steps = [one.step for one in found]
    for number, colour in enumerate((GREY, BLUE, ORANGE, GREEN)):
        local.plot(steps, [one.local[number] for one in found], "o-", ms=4, color=colour, label=QUANTITIES[number])
    local.set(ylim=(-0.03, 1.03))
    local.set_title("LMamba's share:\nthe rest is GMamba's")
    draw(back, found, {"90 % of its effect": ("memory", BLUE)}, "steps back")
    back.set_title("How far back\nGMamba reaches")
    back.set_ylim(0, 1.3 * max([1.0, *(one.memory for one in found if np.isfinite(one.memory))]))
    for axes in grid.flat:
        axes.set_xlim(0, 1.05 * opened.step)
        plotting.label(axes, axes.get_ylabel() or "share of the effect", ticks=3)
    for axes in grid[1]:  # below: curves may be anywhere
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24))
    seen = plotting.count(len(found), "moment")
    picture.suptitle(
        f"How it changed in training. Above: the log. Below: the same steps, seen by the agent as it was at {seen} of "
        f"its training",
        fontsize=10,
    )
    return picture


def draw(axes: Axes, found: Sequence[SnapshotView], names: dict[str, tuple[str, str]], unit: str) -> None:
    """Some measures of the points against steps."""
    for label, (name, colour) in names.items():
        values = [getattr(one, name) for one in found]
        axes.plot([one.step for one in found], values, "o-", ms=4, color=colour, label=label)
    axes.set_ylabel(unit)
