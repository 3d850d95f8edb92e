"""A tour of a game without any training: what the agent sees of it, and what is stored. Notebook 01 follows it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from glamkit import plotting
from glamkit.envs.pixel_env import Outcome
from glamkit.plotting import BLUE, GREEN, GREY, ORANGE, RED, WIDE, Picture, count
from glamkit.types import Batch


@plotting.style
def view(screen: np.ndarray, frame: np.ndarray) -> Picture:
    """The game's own picture (H, W, 3) beside the agent's square frame, both uint8."""
    picture, ((left, right),) = plotting.figure(WIDE, 4, 1, 2)
    for axes, image, name in ((left, screen, "The game draws"), (right, frame, "The agent gets")):
        height, width, channels = image.shape
        plotting.show(axes, image, f"{name} {width} x {height} pixels:\n{width * height * channels:,} numbers")
    return picture


@plotting.style
def frame_skip(moments: Sequence[np.ndarray], frames: Sequence[np.ndarray]) -> Picture:
    """The pictures (n, H, W, 3) of one agent step, and the frame the agent gets of them.

    Of several steps the one is shown whose last two pictures differ in the most pixels.
    """
    # The last two pictures; of a step of one picture, that one twice.
    pick = int(np.argmax([np.any(moment[-1] != moment[-2:][0], axis=-1).mean() for moment in moments]))
    shown, number = moments[pick], len(moments[pick])
    images = [*shown, shown[-2:].max(axis=0), frames[pick]]
    names = [f"frame {i}" + ("" if i > number - 2 else "\nskipped") for i in range(1, number + 1)]
    names += [f"brighter of\n{number - 1} and {number}" if number > 1 else "the same", "the agent's\nframe"]
    rows = -(-len(images) // 3)
    picture, grid = plotting.figure(WIDE, 0.4 + 2.4 * rows, rows, 3)
    for axes in grid.flat[len(images) :]:
        axes.remove()
    for axes, image, name in zip(grid.flat, images, names, strict=False):
        plotting.show(axes, image, name)
        axes.set_anchor("N")
    brighter = "of the last two frames the agent gets the brighter, pixel by pixel"
    plotting.heading(picture, f"Agent step {pick + 1}: {brighter if number > 1 else 'one picture of the game'}")
    return picture


@plotting.style
def timeline(outcomes: Sequence[Outcome], lives: Sequence[int]) -> Picture:
    """Rewards and lives left after each step of games one after the other, with the terminations that are stored."""
    steps, rewards = np.arange(len(outcomes)), np.array([outcome.reward for outcome in outcomes])
    over = [step for step, outcome in enumerate(outcomes) if outcome.ended]
    lost = [step for step, outcome in enumerate(outcomes) if outcome.terminated and not outcome.ended]
    picture, ((upper,), (lower,)) = plotting.figure(WIDE, 4.6, 2, 1, sharex=True, height_ratios=(2, 1))
    upper.axhline(0, color=GREY, lw=0.8)
    upper.vlines(steps[rewards != 0], 0, rewards[rewards != 0], color=BLUE, lw=1.2, zorder=3)
    upper.plot(steps[rewards != 0], rewards[rewards != 0], "o", ms=4, color=BLUE, label="reward", zorder=3)
    lower.step(steps, lives, where="post", color=GREEN)
    for places, color, dashes, name in (
        (lost, ORANGE, "--", "life lost: a termination is stored, the game goes on"),
        (over, RED, "-", "game over or cut off: it is reset"),
    ):
        for axes in (upper, lower):
            for place in places:
                axes.axvline(place, color=color, ls=dashes, lw=1.2, label=name if place == places[0] else None)
    upper.set(ylabel="reward of the step")
    lower.set(ylabel="lives left", xlabel=plotting.STEPS, ylim=(0, max(1, *lives) + 0.3))
    lower.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
    stored = count(sum(outcome.terminated for outcome in outcomes), "stored termination")
    counts = f"{count(int(np.count_nonzero(rewards)), 'reward')}, {stored}, {count(len(over), 'game')} ended"
    plotting.panel_title(upper, f"{count(len(outcomes), 'step')} of a random player: {counts}")
    picture.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return picture


def window(batch: Batch, action_names: Sequence[str], first: int = 0) -> Picture:
    """A batch's first window as it is stored, from step `first` on: frame seen, action taken, reward, termination."""
    stored = zip(*(part[0].tolist() for part in (batch.actions, batch.rewards, batch.terminations)), strict=True)
    captions = [
        f"{step}\n{action_names[action]}\n{reward:g}\n{'YES' if over else 'no'}"
        for step, (action, reward, over) in enumerate(stored, first)
    ]
    frames = batch.frames[0].permute(0, 2, 3, 1).cpu().numpy()
    title = "What the replay stores: each column is one step"
    return plotting.films({"frame seen": frames}, captions, "step\naction taken\nits reward\nits termination", title)
