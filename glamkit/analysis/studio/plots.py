"""Static pictures of dreams and of open loops: what notebook 03 shows without a browser, a kernel or a person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from glamkit.analysis.open_loop import WORST, Curve, OpenLoop
from glamkit.analysis.studio.studio import Dream, Future, usual
from glamkit.notebook import Table
from glamkit.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Picture, count, figure, film, style
from glamkit.training.load import LoadedRun

SHOWN = 10  # pictures in a row
LINES = 6  # futures shown as pictures
LEAST = 0.2  # of return on the axis of a comparison: less would make equal actions look ranked
COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK)


def about(run: LoadedRun) -> Table:
    """What is looked into, in a few rows."""
    config, replay = run.config, run.replay
    ends = int(replay.terminations.sum())
    settings = config.imagination
    young = " (a snapshot)" if run.step < replay.count else ""
    rows = [
        ("run folder", f"{run.run.folder}, which is only read"),
        ("trained", f"{run.step:,} of {config.trainer.env_steps:,} agent steps{young}, preset {config.preset}"),
        ("game", f"{config.env.game}: {', '.join(run.actions)}"),
        ("stored steps", f"{replay.oldest:,} to {replay.count - 1:,}; {count(ends, 'end')} of a life or episode"),
        ("dreams", f"see {settings.context_length} real steps; {usual(run)}"),
    ]
    return Table(rows)


# Open loop ------------------------------------------------------------------------------------------------------------


@style
def errors(loop: OpenLoop) -> Picture:
    """Errors of the dreams against the horizon, beside what easier guesses would have got."""
    picture, grid = figure(11, 6.4, 2, 2, sharex=True)
    shown = (
        (loop.pixels, ("imagined", "still", "wrong", "reconstructed"), "Pixels: is the picture still right?"),
        (loop.latents, ("imagined", "looking"), "Latents: how surprising is the real frame?"),
        (loop.rewards, ("imagined", "never"), "Reward: is it predicted? Then blue is below the dashes"),
        (loop.terminations, ("imagined", "never"), "Termination: is the end predicted? Then blue is below"),
    )
    for axes, (curves, names, title) in zip(grid.flat, shown, strict=True):
        for name, color in zip(names, (BLUE, GREY, ORANGE, GREEN), strict=False):
            band(axes, curves[name], color, "--" if name in ("still", "never") else "-")
        axes.set(title=title, ylim=(0, None))
        axes.set_ylim(top=max(axes.get_ylim()[1], 0.01))  # where nothing happens, no error is worth a look
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.legend(loc="best")
    for axes in grid[1]:
        axes.set_xlabel("steps after the last real frame")
    if loop.usable:
        grid[0, 0].axvspan(0.5, loop.usable + 0.5, color=BLUE, alpha=0.08, lw=0)
    picture.suptitle(
        f"{loop.finding}\n{'Shaded: the dream knows over half of what can be known. ' if loop.usable else ''}"
        f"Means over {len(loop.starts)} clips, 95 % intervals, until a real end",
        fontsize=10,
    )
    return picture


def band(axes: Axes, curve: Curve, color: str, dashes: str) -> None:
    """A mean with its interval."""
    steps = np.arange(1, curve.values.shape[1] + 1)
    axes.plot(steps, curve.mean, dashes, marker=".", ms=4, color=color, label=curve.name)
    axes.fill_between(steps, curve.mean - curve.reach, curve.mean + curve.reach, color=color, alpha=0.15, lw=0)
    axes.set_ylabel(curve.unit)


@style
def clip(loop: OpenLoop, chosen: int | None = None) -> Picture:
    """One clip (a typical one): real, imagined, and their difference (brighter is farther off)."""
    places, number = spread(loop.horizon), loop.typical() if chosen is None else chosen
    real, imagined = loop.real[number, places], loop.imagined[number, places]
    gap = np.abs(real.astype(np.int16) - imagined).astype(np.uint8)
    names = captions(loop.counted[number, places], places)
    picture, ((axes,),) = figure(1.15 * max(len(places), 6) + 1, 4.5)
    film(axes, {"real": real, "imagined": imagined, "difference": gap}, names)
    axes.set_xlabel("steps ahead")
    axes.set_title(
        f"Dreamt from step {loop.starts[number].step:,} with the actions really taken: the third row should be black"
    )
    return picture


@style
def worst(loop: OpenLoop, number: int = WORST) -> Picture:
    """The clips whose dreams went wrong most."""
    places, clips = spread(loop.horizon), loop.worst(number)
    rows = {}
    for rank, index in enumerate(clips, 1):
        after = ~loop.counted[index, places]
        rows[f"worst clip {rank}\nfrom step {loop.starts[index].step:,}\nreal"] = faded(loop.real[index, places], after)
        rows[f"worst clip {rank}\nimagined"] = faded(loop.imagined[index, places], after)
    picture, ((axes,),) = figure(1.15 * max(len(places), 6) + 1.6, 1.25 * len(rows) + 0.6)
    film(axes, rows, [f"+{place + 1}" for place in places])
    axes.set_xlabel("steps ahead; grey: a new game has begun, nothing is compared")
    axes.set_title(f"Where dreams fail: the {len(clips)} worst of {len(loop.starts)} clips, real above imagined")
    return picture


def captions(counted: np.ndarray, places: Sequence[int]) -> list[str]:
    """Steps ahead; those of a new game say so."""
    return [f"+{place + 1}" + ("" if kept else "\nnew game") for place, kept in zip(places, counted, strict=True)]


def faded(pictures: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Pictures (n, size, size, 3), some of them nearly grey."""
    grey = (0.15 * pictures + 0.85 * 200).astype(np.uint8)
    return np.where(which[:, None, None, None], grey, pictures)


def spread(horizon: int) -> list[int]:
    """At most `SHOWN` places among so many steps, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, horizon - 1, min(horizon, SHOWN))})


# The studio -----------------------------------------------------------------------------------------------------------


@style
def dream_so_far(dream: Dream) -> Picture:
    """The way to the present step as pictures, what was predicted on it, and the policy now."""
    way, names = dream.path(dream.here), dream.run.actions
    places = spread(len(way))
    picture = Picture(figsize=(12, 4.8), layout="constrained", facecolor="white")
    upper, lower = np.asarray(picture.subfigures(2, 1, height_ratios=(1.1, 1.5)))
    axes = upper.subplots()
    captions = [f"+{place}" + (f"\n{names[way[place].action]}" if place else "\nstart") for place in places]
    film(axes, {"imagined": np.stack([dream.picture(way[place].number) for place in places])}, captions)
    title = f"A dream from step {dream.start:,} ({dream.rules}), and the action that led to each picture"
    upper.suptitle(title, fontsize=10)  # the row of pictures may be narrower
    reward, ended, value, policy = lower.subplots(1, 4, width_ratios=(1, 1, 1, 1.1))
    steps = np.arange(len(way))
    for panel, values, title, color in (
        (reward, [step.reward for step in way], f"Predicted reward: in all {dream.now.total:+z.2f}", BLUE),
        (ended, [step.ended for step in way], "Probability of the end", RED),
        (value, [step.value for step in way], "Value: reward expected from here", GREEN),
    ):
        panel.plot(steps, values, ".-", color=color)
        panel.set(title=title, xlabel="steps into the dream")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    low, high = reward.get_ylim()
    reward.set_ylim(min(low, -0.05), max(high, 0.05))  # what is hardly a reward shall look so
    ended.set_ylim(-0.02, 1.02)
    ended.yaxis.set_major_formatter(PercentFormatter(1))
    chosen = dream.choose(dream.now)
    order = np.argsort(dream.now.policy)[-8:]
    policy.barh(
        [names[i] for i in order], dream.now.policy[order], color=[ORANGE if i == chosen else BLUE for i in order]
    )
    policy.set_axisbelow(True)
    policy.set(title="Policy now (orange: drawn)", xlim=(0, 1))
    policy.xaxis.set_major_formatter(PercentFormatter(1))
    return picture


@style
def futures(dream: Dream, answers: Sequence[Future], asked: int | None = None) -> Picture:
    """What if? Returns of the futures by their first action, and the pictures of one future each.

    Args:
        dream: in which they were asked for.
        answers: the futures.
        asked: number of the node they begin at; None takes the present one.
    """
    begin = dream.now if asked is None else dream.nodes[asked]
    names, actions = dream.run.actions, list(dict.fromkeys(future.first for future in answers))
    gains = {a: np.array([future.gain + future.value for future in answers if future.first == a]) for a in actions}
    actions.sort(key=lambda action: -gains[action].mean())
    shown, horizon = actions[:LINES], len(answers[0].numbers)
    color = {action: COLORS[place % len(COLORS)] for place, action in enumerate(actions)}
    picture = Picture(figsize=(12, 3.2 + 1.0 * len(shown)), layout="constrained", facecolor="white")
    upper, lower = np.asarray(picture.subfigures(2, 1, height_ratios=(2.6, 0.6 + 1.0 * len(shown))))
    curves, dots = upper.subplots(1, 2, width_ratios=(1.6, 1))
    for future in answers:
        totals = [dream.nodes[number].total - begin.total for number in future.numbers]
        curves.plot(range(1, horizon + 1), totals, color=color[future.first], alpha=0.5, lw=0.9)
    curves.set(title="Reward gathered in each future", xlabel="steps from here", ylabel="sum of predicted rewards")
    for place, action in enumerate(reversed(actions)):
        values = gains[action]
        dots.plot(values, np.full(len(values), place), "o", ms=4, alpha=0.35, color=color[action])
        reach = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        dots.errorbar(values.mean(), place, xerr=reach, fmt="D", ms=6, color=color[action], capsize=3)
    dots.set_yticks(range(len(actions)), [names[action] for action in reversed(actions)])
    low, high = dots.get_xlim()
    short = max(0.0, LEAST - (high - low)) / 2
    dots.set_xlim(low - short, high + short)
    dots.set(title="Return by first action, with its mean", xlabel="rewards + value of the last step")
    first = {future.first: future for future in reversed(answers)}
    places = spread(horizon)
    rows = {}
    for a in shown:
        nodes = [dream.nodes[first[a].numbers[place]] for place in places]
        after = np.array([dream.nodes[node.parent].over for node in nodes])
        pictures = np.stack([dream.picture(node.number) for node in nodes])
        rows[f"{names[a]}\n{gains[a].mean():+z.2f}"] = faded(pictures, after)
    axes = lower.subplots()
    film(axes, rows, [f"+{place + 1}" for place in places])
    axes.set_xlabel(
        "steps from here, one future for each first action (and its mean return); the policy plays on. "
        "Grey: after its end"
    )
    picture.suptitle(
        f"What if? {count(len(answers), 'future')} from step {begin.depth} of the dream; all actions meet "
        f"the same random numbers, so they differ only by what was done",
        fontsize=10,
    )
    return picture


@style
def switches(run: LoadedRun, start: int, horizon: int, seed: int = 0, context: int | None = None) -> Picture:
    """The same start and the same actions, dreamt under different rules, below what really happened."""
    trained, places = usual(run), spread(horizon)
    steps = run.replay.window(torch.tensor([start]), horizon)
    rows = {"real": steps.frames[0, places].permute(0, 2, 3, 1).cpu().numpy()}
    ends = steps.terminations[0].cpu().numpy()
    counted = (np.cumsum(ends) - ends == 0)[places]
    other = "recurrent" if trained.memory == "window" else "window"
    variants = {f"as trained\n({trained.memory} memory)": {}, f"{other} memory": {"memory": other}}
    if trained.modules == "both":
        variants |= {"LMamba off": {"modules": "gmamba"}, "GMamba off": {"modules": "lmamba"}}
    for name, rules in variants.items():
        dream = Dream(run, start, seed, context)
        dream.switch(**rules)
        for depth in range(horizon - 1):
            dream.step(dream.recorded(depth))
        way = dream.path(dream.here)
        rows[name] = np.stack([dream.picture(way[place].number) for place in places])
    picture, ((axes,),) = figure(1.15 * max(len(places), 6) + 1.4, 1.25 * len(rows) + 0.6)
    film(axes, rows, captions(counted, places))
    axes.set_xlabel("steps ahead; the first picture is dreamt before any switch acts")
    axes.set_title(f"What each part contributes: dreams from step {start:,} with the actions really taken")
    return picture
