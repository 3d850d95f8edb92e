"""What the page is given to draw of a player, as plain values."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from glamkit.analysis.studio import compare
from glamkit.analysis.studio.dream_tree import LATENTS, MEMORY, MODULES
from glamkit.analysis.studio.keys import COMMANDS, written
from glamkit.analysis.studio.player import RATES, Player
from glamkit.analysis.studio.plots import futures
from glamkit.analysis.studio.studio import asked_at, mean_returns
from glamkit.plotting import count


def state(player: Player) -> dict[str, Any]:
    """The present step, and how the controls stand."""
    dream, now = player.dream, player.dream.now
    action = player.run.actions[now.action] if now.action >= 0 else "-"
    numbers = [
        f"{number:+z.2f}" if abs(number) < 1000 else f"{number:+,.0f}" for number in (now.reward, now.total, now.value)
    ]
    return {
        "now": [str(now.depth), action, *numbers, f"{now.ended:.0%}"],
        "policy": [float(share) for share in now.policy],
        "next": next_action(player),
        "depth": now.depth,
        "last": len(dream.line()) - 1,
        "playing": player.running,
        "rate": player.rate,
        "who": player.who,
        "over": now.over,
        "compared": player.compared,
        "branches": branches(player),
        "rules": vars(dream.rules),
        "summary": f"{dream.rules}",
        "start": dream.start,
        "message": player.message,
    }


def next_action(player: Player) -> int:
    """The action that is taken next; -1 where none is, or a person says so."""
    dream, now = player.dream, player.dream.now
    if now.over or player.who == "you":
        return -1
    taken = dream.choose(now, player.noise) if player.who == "policy" else dream.recorded(now.depth)
    return -1 if taken is None else taken


def branches(player: Player) -> list[dict[str, Any]]:
    """The branches that were played, and what they brought."""
    dream, result = player.dream, list[dict[str, Any]]()
    for place, end in enumerate(dream.branches):
        last = dream.nodes[end]
        title = f"Go to the end of branch {place + 1}: {count(last.depth, 'step')}, return {last.total:+z.2f}"
        result.append({"title": title, "here": place == dream.branch})
    return result


def what_if(player: Player) -> dict[str, Any]:
    """The answers to *what if?*: a title, and a figure with its text."""
    asked = player.what_if
    if asked is None:
        return {}
    means = [f"{player.run.actions[action]} {mean:+z.2f}" for action, mean in mean_returns(asked).items()]
    return {
        "title": f"What if? {len(asked)} futures from step {asked_at(player.dream, asked)}",
        "text": f"Mean return by first action: {', '.join(means)}",
        "figure": [futures(player.dream, asked).small_png()],
    }


def controls(player: Player) -> dict[str, Any]:
    """What the page needs once, to build its controls."""
    trained = player.dream.trained
    alone = "" if trained == "both" else f"This run was trained with {MODULES[trained]}."
    first = {action: written(codes) for codes, action in reversed(player.keymap.items())}  # key of each action
    return {
        "game": player.run.config.env.game,
        "actions": [(name, first.get(number, "")) for number, name in enumerate(player.run.actions)],
        "keys": [f"{written([code])} {what}" for code, (_, what) in COMMANDS.items()],
        "rates": list(RATES),
        "compare": [(name, text, alone if name != compare.REAL else "") for name, text in compare.NAMES.items()],
        "modules": [(name, text, alone if name != trained and alone else "") for name, text in MODULES.items()],
        "memory": [(name, f"{text} ({name})") for name, text in MEMORY.items()],
        "latents": [(name, f"{text} ({name})") for name, text in LATENTS.items()],
        "starts": starts(player),
    }


def data_uri(picture: np.ndarray) -> str:
    """A picture as a PNG inside a text."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def starts(player: Player) -> list[dict[str, Any]]:
    """The starts to choose from, each with the last real frame that a dream from there sees."""
    replay = player.run.replay
    before = torch.tensor(list(player.starts), dtype=torch.long) - 1
    frames = replay.window(before, 1).frames[:, 0].permute(0, 2, 3, 1).cpu().numpy()
    return [
        {"step": start.step, "why": start.why, "picture": data_uri(frame)}
        for start, frame in zip(player.starts.values(), frames, strict=True)
    ]
