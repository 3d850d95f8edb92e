"""The log of a run, made up by hand."""

from __future__ import annotations

from typing import Any

HEALTHY = {
    "world_model/total": 10.0,
    "world_model/reconstruction": 1.0,
    "world_model/dynamics_kl": 3.0,
    "world_model/dynamics_free": 0.0,
    "world_model/reward_hits": 0.08,
    "world_model/reward_alarms": 0.1,
    "world_model/reward_events": 0.1,
    "world_model/termination_hits": 0.09,
    "world_model/termination_alarms": 0.1,
    "world_model/termination_predicted": 0.1,
    "world_model/termination_events": 0.1,
    "world_model/gradient_norm": 30.0,
    "world_model/clipped": 0.0,
    "replay/reward": -0.05,
    "replay/reward_rate": 0.1,
    "replay/reward_size": 0.1,
    "replay/spread": 40.0,
    "imagination/reward": -0.05,
    "imagination/termination": 0.1,
    "actor_critic/total": 2.0,
    "actor_critic/entropy_share": 0.6,
    "actor_critic/advantage": 0.2,
    "actor_critic/scale": 1.0,
    "actor_critic/gradient_norm": 3.0,
    "actor_critic/clipped": 0.0,
}


def made_up(last: float = -0.5, steps: int = 1000, late: dict[str, Any] | None = None, **changes: Any) -> list[Any]:
    """A log of `steps`: an episode every ten, with returns around -0.5 and at the end around `last`.

    Imagination pays what games give.
    """
    changed = {key.replace("__", "/"): value for key, value in changes.items()}
    entries: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        level = last if step > 800 else -0.5
        outcome = level + (0.2 if step % 20 else -0.2) * (last != 0)
        entries.append({"step": step, "kind": "episode", "episode/return": outcome, "episode/length": 10.0})
        if step % 50 == 0:
            trained = HEALTHY | {"imagination/reward": level / 10} | changed if step > 100 else {}
            over = (late or {}) if step > 800 else {}
            entries.append({"step": step, "kind": "log", "time/steps_per_second": 9.0, **trained, **over})
    return entries
