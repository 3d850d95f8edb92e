"""The signs of learning as one figure: what the heads predict, what imagination promises, and where the policy is."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from glamkit import plotting
from glamkit.plotting import BLUE, GREEN, GREY, ORANGE, Entries, Picture
from glamkit.runs import log
from glamkit.runs.folder import Run


@plotting.style
def panel(run: Run) -> Picture:
    """Six panels against steps, in the order in which one causes the next; `diagnostics.verdict` reads the same."""
    entries, config = list(log.read(run.log_file)), run.config()
    picture, grid = plotting.figure(10, 4.8, 2, 3, sharex=True)
    (pictures, prior, heads), (ends, rewards, policy) = grid
    draw_pictures(pictures, entries)
    floor = config.world_model.free_nats
    draw(prior, entries, {"KL": ("world_model/dynamics_kl", BLUE)}, "nats", "Prior: trained above free bits only")
    prior.axhline(floor, color=GREY, ls="--", lw=1, label="free bits")
    names = {"precision": ("world_model/reward_precision", BLUE), "recall": ("world_model/reward_recall", ORANGE)}
    draw(heads, entries, names, "share", "Reward head: both should rise to 1")
    heads.set_ylim(-0.03, 1.03)
    names = {
        "predicted": ("world_model/termination_predicted", BLUE),
        "came": ("world_model/termination_events", ORANGE),
        "in dreams": ("imagination/termination", GREEN),
    }
    draw(ends, entries, names, "per step", "Terminations: curves should meet")
    names = {"in dreams": ("imagination/reward", BLUE), "in the replay": ("replay/reward", ORANGE)}
    draw(rewards, entries, names, "reward per step", "Rewards: dreams lead, games follow")
    names = {"entropy, share of its maximum": ("actor_critic/entropy_share", BLUE)}
    names["mean |advantage|, scaled"] = ("actor_critic/advantage", ORANGE)
    draw(policy, entries, names, "share", "Policy: from random (1) to decided (0)")
    policy.set_ylim(bottom=0)
    for axes in grid.flat:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")
    for axes in grid[0]:
        axes.set_xlabel("")
    return picture


def draw_pictures(axes: Axes, entries: Entries) -> None:
    """The error of reconstruction as a share of that of the best still picture."""
    keys = ("world_model/reconstruction", "replay/spread")
    pairs = [(e["step"], e[keys[0]] / e[keys[1]]) for e in entries if e.get(keys[0]) is not None and e.get(keys[1])]
    axes.plot([step for step, _ in pairs], [share for _, share in pairs], ".-", ms=4, color=BLUE)
    axes.axhline(1, color=GREY, ls="--", lw=1, label="one still picture")
    if pairs and max(share for _, share in pairs) > 3:
        shares = [share for _, share in pairs]
        plotting.decades(axes, min(0.5, *shares), max(shares))
    axes.set_title("Pictures: below 1 what moves is seen")
    plotting.label(axes, "error over a still picture's")


def draw(axes: Axes, entries: Entries, names: Mapping[str, tuple[str, str]], unit: str, title: str) -> None:
    """Several names of the log against steps."""
    for label, (key, colour) in names.items():
        steps, values = plotting.series(entries, key)
        axes.plot(steps, values, ".-", ms=4, color=colour, label=label if values else None)
    axes.set_title(title)
    plotting.label(axes, unit)
