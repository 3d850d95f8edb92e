"""The signs of learning as one figure: what the heads predict, what imagination promises, and where the policy is."""

from __future__ import annotations

from glamkit import plotting
from glamkit.plotting import BLUE, GREEN, GREY, ORANGE, Picture
from glamkit.runs import log
from glamkit.runs.folder import Run


@plotting.style
def panel(run: Run) -> Picture:
    """Seven panels against steps, in the order in which one causes the next; `diagnostics.verdict` reads the same."""
    entries, floor = log.read(run.log_file), run.config().world_model.free_nats
    for entry in entries:
        if entry.get("episode/length"):
            entry["played"] = entry["episode/return"] / entry["episode/length"]
        if entry.get("world_model/reconstruction") is not None and entry.get("replay/spread"):
            entry["error"] = entry["world_model/reconstruction"] / entry["replay/spread"]
    picture, grid = plotting.figure(plotting.WIDE, 9.6, 4, 2)
    pictures, prior, heads, ends, rewards, advantage, policy, free = grid.flat
    title = "Pictures: what moves is drawn below 1"
    plotting.draw_series(pictures, entries, "error", title, "error / still picture's", False)
    if any("error" in entry for entry in entries):
        pictures.axhline(1, color=GREY, ls="--", lw=1, label="one still picture")
        plotting.legend_below(pictures)
    title = "Surprise at the next frame: should fall"
    plotting.draw_series(prior, entries, "world_model/dynamics_kl", title, "surprise (KL, in nats)", False, floor)
    names = {"precision": ("world_model/reward_precision", BLUE), "recall": ("world_model/reward_recall", ORANGE)}
    plotting.draw_curves(heads, entries, names, "share", "Reward head: both should rise to 1")
    heads.set_ylim(-0.03, 1.03)
    names = {
        "predicted": ("world_model/termination_predicted", BLUE),
        "came": ("world_model/termination_events", ORANGE),
        "imagined": ("imagination/termination", GREEN),
    }
    plotting.draw_curves(ends, entries, names, "per step", "Terminations: curves should meet")
    names = {"replay": ("replay/reward", GREEN), "games": ("played", ORANGE), "imagined": ("imagination/reward", BLUE)}
    plotting.draw_curves(rewards, entries, names, "reward per step", "Rewards: imagined and games should meet")
    title = "Advantage: 0 if actions look the same"
    plotting.draw_series(advantage, entries, "actor_critic/advantage", title, "mean size, scaled", False)
    title = "Policy's entropy: 1 random, 0 decided"
    plotting.draw_series(policy, entries, "actor_critic/entropy_share", title, "share of its maximum", False)
    policy.set_ylim(-0.03, 1.03)
    free.set_axis_off()
    plotting.same_steps(grid.flat)
    return picture
