"""Static pictures of dreams and of open loops: what notebook 03 shows without a browser, a kernel or a person."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from glamkit import plotting
from glamkit.analysis.open_loop import OpenLoop
from glamkit.analysis.starts import check_start, is_last, same_game
from glamkit.analysis.studio.dream_tree import MEMORY
from glamkit.analysis.studio.studio import Dream, Future, asked_at, mean_returns, usual
from glamkit.notebook import Table
from glamkit.plotting import BLUE, GREEN, GREY, ORANGE, RED, WIDE, Picture, count
from glamkit.training.load import LoadedRun

SHOWN = 8  # pictures in a row
ROWS = 4  # best first actions of which a future is shown
BARS = 8  # actions of the policy that are shown, most likely first
LEAST = 0.2  # of return on an axis: less would make equal actions look ranked
FRAME = 0.76  # inches of a picture in a row


def about(run: LoadedRun, context: int | None = None) -> Table:
    """What is looked into, in a few rows; dreams see `context` real steps first, by default as many as in training."""
    config, replay, settings = run.config, run.replay, run.config.imagination
    ends = int(is_last(run).sum())
    young = " (a snapshot)" if run.step < replay.count else ""
    rows = [
        ("run folder", run.run.folder),
        ("trained", f"{run.step:,} of {config.trainer.env_steps:,} agent steps{young}, preset {config.preset}"),
        ("game", f"{config.env.game}: {', '.join(run.actions)}"),
        ("stored steps", f"{replay.oldest:,} to {replay.count - 1:,}; {count(ends, 'end')} of a life or episode"),
        ("dreams", f"see {context or settings.context_length} real steps; {usual(run)}"),
    ]
    return Table(rows)


@plotting.style
def errors(loop: OpenLoop) -> Picture:
    """Errors of the dreams against the horizon, beside what easier guesses would have got."""
    picture, grid = plotting.figure(WIDE, 8.4, 2, 2, sharex=True)
    ahead = np.arange(1, loop.horizon + 1)
    shown = (
        (loop.pixels, ("imagined", "still", "wrong", "reconstructed"), "Pixels: is the picture still right?"),
        (loop.latents, ("imagined", "looking"), "Surprise: how unexpected is the real frame?"),
        (loop.rewards, ("imagined", "never"), "Reward: is it predicted? Then blue is below the dashes"),
        (loop.terminations, ("imagined", "never"), "End of a life or game: is it predicted? Then blue is below"),
    )
    for axes, (curves, names, title) in zip(grid.flat, shown, strict=True):
        for name, color in zip(names, (BLUE, GREY, ORANGE, GREEN), strict=False):
            curve, dashes = curves[name], "--" if name in ("still", "never") else "-"
            axes.plot(ahead, curve.mean, dashes, marker=".", ms=4, color=color, label=curve.name)
            axes.fill_between(ahead, curve.mean - curve.reach, curve.mean + curve.reach, color=color, alpha=0.15, lw=0)
            axes.set_ylabel(curve.unit)
        axes.set_ylim(0, max(axes.get_ylim()[1], 0.01))  # where nothing happens, no error is worth a look
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        plotting.panel_title(axes, title)
        if axes in grid[1]:
            axes.set_xlabel("steps after the last real frame")
        plotting.legend_below(axes, 1)
    if loop.usable:
        grid[0, 0].axvspan(0.5, loop.usable + 0.5, color=BLUE, alpha=0.08, lw=0)
    shaded = "Shaded: the dream knows over half of what can be known. " if loop.usable else ""
    apart = ", as if no clips overlapped" if loop.overlapping > 1 else ""
    left = int(loop.counted[:, loop.followed - 1].sum())
    fewer = f", {left} of them left at step {loop.followed}" if left < len(loop.starts) else ""
    means = f"Means over {len(loop.starts)} clips until a real end{fewer}; 95 % intervals{apart}"
    plotting.heading(picture, f"{loop.finding}\n{shaded}{means}")
    return picture


@plotting.style
def clip(loop: OpenLoop) -> Picture:
    """The first of the longest clips: real, imagined, and their difference (brighter is farther off)."""
    number = int(loop.counted.sum(1).argmax())
    step = loop.starts[number].step
    real, imagined = loop.real[number], loop.imagined[number]
    gap = np.abs(real.astype(np.int16) - imagined).astype(np.uint8)
    rows = {"real": real, "imagined": imagined, "difference": gap}
    rows = {name: faded(row, ~loop.counted[number]) for name, row in rows.items()}
    return rows_of(rows, f"Dreamt from step {step:,} with the actions really taken: the third row should be black")


@plotting.style
def worst(loop: OpenLoop) -> Picture:
    """The clips whose dreams went wrong most."""
    rows, clips = {}, loop.worst()
    for rank, number in enumerate(clips, 1):
        name = f"rank {rank}\nfrom step\n{loop.starts[number].step:,}: real"
        rows[name] = faded(loop.real[number], ~loop.counted[number])
        rows[f"rank {rank}:\nimagined"] = faded(loop.imagined[number], ~loop.counted[number])
    title = f"Where dreams go wrong: the {len(clips)} largest errors of {len(loop.starts)} clips, real above imagined"
    return rows_of(rows, f"{title}\n(clips that end before half the steps come last)")


def rows_of(rows: dict[str, np.ndarray], title: str, below: str = "") -> Picture:
    """A figure of named rows of pictures (H, size, size, 3), of which some are shown, with the steps under them."""
    places = spread(len(next(iter(rows.values()))))
    picture, ((axes,),) = plotting.figure(WIDE, 1.2 + FRAME * len(rows))
    plotting.film(axes, {name: row[places] for name, row in rows.items()}, [f"+{place + 1}" for place in places])
    text = f"steps ahead; grey: after the end of a life or game, nothing is compared{below}"
    axes.set_xlabel(text, loc="left")  # the row may be narrower than the words
    plotting.panel_title(axes, title)
    return picture


def faded(pictures: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Pictures (n, size, size, 3), some of them nearly grey."""
    grey = (0.15 * pictures + 0.85 * 200).astype(np.uint8)
    return np.where(which[:, None, None, None], grey, pictures)


def spread(horizon: int) -> list[int]:
    """At most `SHOWN` places among so many steps, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, horizon - 1, min(horizon, SHOWN))})


@plotting.style
def dream_so_far(dream: Dream) -> Picture:
    """The way to the present step as pictures, what was predicted on it, and the policy now."""
    way, names = dream.path(dream.here), dream.run.actions
    places = spread(len(way))
    picture = Picture(figsize=(WIDE, 6.2), layout="constrained", facecolor="white")
    upper, lower = np.asarray(picture.subfigures(2, 1, height_ratios=(1.5, 4.1)))
    axes = upper.subplots()
    columns = [f"+{place}" + (f"\n{broken(names[way[place].action])}" if place else "\nstart") for place in places]
    plotting.film(axes, {"imagined": np.stack([dream.picture(way[place].number) for place in places])}, columns)
    plotting.heading(
        picture,
        f"A dream from step {dream.start:,} of the stored play, and the action that led to each picture\n"
        f"({dream.rules})",
    )
    (reward, ended), (value, policy) = lower.subplots(2, 2)
    steps = np.arange(len(way))
    for panel, values, title, color in (
        (reward, [step.reward for step in way], f"Predicted reward: in all {dream.now.total:+z.2f}", BLUE),
        (ended, [step.ended for step in way], "Probability of the end", RED),
        (value, [np.nan if step.over else step.value for step in way], "Value: discounted reward expected", GREEN),
    ):
        panel.plot(steps, values, ".-", color=color)
        plotting.panel_title(panel, title)
        panel.set_xlabel("steps into the dream")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for panel in (reward, value):
        panel.set_ylim(*apart(panel.get_ylim()))
    ended.set_ylim(-0.02, 1.02)
    ended.yaxis.set_major_formatter(PercentFormatter(1))
    last = next(node for node in reversed(way) if not node.over)  # of an ended game nothing is expected or taken
    chosen, order = dream.choose(last), np.argsort(last.policy)[-BARS:]
    if chosen not in order:
        order[0] = chosen
    rows = range(len(order))  # two actions may have one name
    policy.barh(rows, last.policy[order], color=[ORANGE if i == chosen else BLUE for i in order])
    policy.set_yticks(rows, [names[i] for i in order])
    few = f", {BARS} of {len(names)} actions" * (len(names) > BARS)
    plotting.panel_title(policy, f"Policy at step {last.depth} (orange: drawn{few})")
    policy.set_xlim(0, 1)
    policy.xaxis.set_major_formatter(PercentFormatter(1))
    return picture


@plotting.style
def futures(dream: Dream, answers: Sequence[Future]) -> Picture:
    """What if? Returns of the futures by their first action, and the pictures of one future each."""
    means, names, horizon = mean_returns(answers), dream.run.actions, len(answers[0].numbers)
    heights = 0.9 + 0.22 * len(means), 0.5 + FRAME * min(ROWS, len(means))
    picture = Picture(figsize=(WIDE, 0.7 + sum(heights)), layout="constrained", facecolor="white")
    upper, lower = np.asarray(picture.subfigures(2, 1, height_ratios=heights))
    dots, axes = upper.subplots(), lower.subplots()
    for place, (action, mean) in enumerate(reversed(means.items())):
        gains = [future.gain + future.value for future in answers if future.first == action]
        low, high = plotting.interval(gains) or (mean, mean)  # one future alone has none
        dots.plot(gains, [place] * len(gains), "o", ms=4, alpha=0.35, color=BLUE)
        dots.errorbar(mean, place, xerr=(high - low) / 2, fmt="D", ms=6, color=BLUE, capsize=3)
    dots.set_yticks(range(len(means)), [names[action] for action in reversed(means)])
    dots.set_ylim(-0.5, len(means) - 0.5)
    dots.set(xlabel="reward in all: gathered, and (discounted) expected afterwards", xlim=apart(dots.get_xlim()))
    plotting.panel_title(dots, "Which first action is best? (diamond: mean and its 95 % interval)")
    places, rows = spread(horizon), {}
    for action in list(means)[:ROWS]:
        first = next(future for future in answers if future.first == action)
        nodes = [dream.nodes[first.numbers[place]] for place in places]
        after = np.array([dream.nodes[node.parent].over for node in nodes])
        pictures = np.stack([dream.picture(node.number) for node in nodes])
        rows[f"{broken(names[action])}\n{means[action]:+z.2f}"] = faded(pictures, after)
    plotting.film(axes, rows, [f"+{place + 1}" for place in places])
    text = "steps from here, one future for each first action\n(below its name: mean reward in all)"
    axes.set_xlabel(f"{text}; grey: after its end", loc="left")
    plotting.heading(
        picture,
        f"What if? {count(len(answers), 'future')} of {horizon} steps from step {asked_at(dream, answers)} of the "
        f"dream from step {dream.start:,}\nA future is one way the dream may go on: a first action, then the policy "
        f"plays. Each of {len(means)} actions came first in {len(answers) // len(means)} of them.",
    )
    return picture


def apart(limits: tuple[float, float]) -> tuple[float, float]:
    """Limits of an axis that are at least `LEAST` apart."""
    low, high = limits
    short = max(0.0, LEAST - (high - low)) / 2
    return low - short, high + short


def broken(name: str) -> str:
    """A long name of an action in several lines: DOWNLEFTFIRE."""
    return re.sub("(UP|DOWN|LEFT|RIGHT)(?=[A-Z])", r"\1\n", name) if len(name) > 9 else name


@plotting.style
def switches(run: LoadedRun, start: int, horizon: int, seed: int = 0, context: int | None = None) -> Picture:
    """The same start and the same actions, dreamt under different rules, below what really happened."""
    check_start(run, start, context, horizon)
    frames = run.replay.window(torch.tensor([start]), horizon).frames[0]
    rows = {"real": frames.permute(0, 2, 3, 1).cpu().numpy()}
    trained = usual(run)
    other = "recurrent" if trained.memory == "window" else "window"
    variants = {"as trained": {}, f"remembers\n{MEMORY[other]}": {"memory": other}}
    if trained.modules == "both":
        variants |= {"LMamba off": {"modules": "gmamba"}, "GMamba off": {"modules": "lmamba"}}
    for name, rules in variants.items():
        dream = Dream(run, start, seed, context)
        dream.switch(**rules)
        for depth in range(horizon - 1):
            dream.step(dream.recorded(depth))
        rows[name] = np.stack([dream.picture(number) for number in dream.line()])
    after = ~same_game(run, [start], horizon)[0]
    return rows_of(
        {name: faded(row, after) for name, row in rows.items()},
        f"What each part contributes: dreams from step {start:,} with the actions really taken",
        "\nthe first picture is dreamt before any switch acts",
    )
