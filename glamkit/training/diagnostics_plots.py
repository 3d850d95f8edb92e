"""The signs of learning as one figure: what the heads predict, what imagination promises, and where the policy is."""

from __future__ import annotations

from matplotlib.axes import Axes

from glamkit import plotting
from glamkit.plotting import BLUE, GREEN, GREY, ORANGE, Entries, Picture
from glamkit.runs import log
from glamkit.runs.folder import Run
from glamkit.training.diagnostics import LogSummary


@plotting.style
def panel(run: Run) -> Picture:
    """Seven panels against steps, in the order in which one causes the next; `diagnostics.verdict` reads the same."""
    entries, config = log.read(run.log_file), run.config()
    picture, grid = plotting.figure(plotting.WIDE, 9.6, 4, 2)
    pictures, prior, heads, ends, rewards, advantage, policy, free = grid.flat
    draw_pictures(pictures, entries)
    name, floor = "world_model/dynamics_kl", config.world_model.free_nats
    title = "Surprise at the next frame: should fall"
    plotting.draw_series(prior, entries, name, title, "surprise (KL, in nats)", False, floor)
    names = {"precision": ("world_model/reward_precision", BLUE), "recall": ("world_model/reward_recall", ORANGE)}
    plotting.draw_curves(heads, entries, names, "share", "Reward head: both should rise to 1")
    heads.set_ylim(-0.03, 1.03)
    names = {
        "predicted": ("world_model/termination_predicted", BLUE),
        "came": ("world_model/termination_events", ORANGE),
        "imagined": ("imagination/termination", GREEN),
    }
    plotting.draw_curves(ends, entries, names, "per step", "Terminations: curves should meet")
    episodes = LogSummary(entries, config).episodes
    played = [{"step": e["step"], "played": e["episode/return"] / e["episode/length"]} for e in episodes]
    names = {"replay": ("replay/reward", GREEN), "games": ("played", ORANGE), "imagined": ("imagination/reward", BLUE)}
    plotting.draw_curves(
        rewards, [*entries, *played], names, "reward per step", "Rewards: imagined and games should meet"
    )
    names = {"advantage": ("actor_critic/advantage", BLUE)}
    plotting.draw_curves(advantage, entries, names, "mean size, scaled", "Advantage: 0 if actions look the same")
    names = {"entropy": ("actor_critic/entropy_share", BLUE)}
    plotting.draw_curves(policy, entries, names, "share of its maximum", "Policy's entropy: 1 random, 0 decided")
    policy.set_ylim(-0.03, 1.03)
    free.set_axis_off()
    plotting.same_steps(grid.flat)
    return picture


def draw_pictures(axes: Axes, entries: Entries) -> None:
    """The error of reconstruction as a share of that of the best still picture."""
    keys = ("world_model/reconstruction", "replay/spread")
    shares = [
        {"step": e["step"], "share": e[keys[0]] / e[keys[1]]}
        for e in entries
        if e.get(keys[0]) is not None and e.get(keys[1])
    ]
    names, title = {"error": ("share", BLUE)}, "Pictures: what moves is drawn below 1"
    plotting.draw_curves(axes, shares, names, "error / still picture's", title)
    if shares:
        axes.axhline(1, color=GREY, ls="--", lw=1, label="one still picture")
        values = [entry["share"] for entry in shares]
        if max(values) > 3:
            plotting.decades(axes, min(0.5, *values), max(values))
        plotting.legend_below(axes)
