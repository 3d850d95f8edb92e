"""What there is to draw of a player: its pictures, and everything beside them as plain values for the page."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from glamkit.analysis.starts import KINDS
from glamkit.analysis.studio import compare
from glamkit.analysis.studio.compare import Beside
from glamkit.analysis.studio.dream_tree import LATENTS, MEMORY, MODULES
from glamkit.analysis.studio.export import data_uri, letter
from glamkit.analysis.studio.keys import COMMANDS, key_names, written
from glamkit.analysis.studio.player import RATES, WHO, Player
from glamkit.analysis.studio.studio import asked_at
from glamkit.plotting import count

TEMPERATURES = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
FILE_NAMES = {
    "html": ("web page (no Python needed)", "Plays in any browser: every branch, with the pictures beside it"),
    "gif": ("GIF", "This branch from step 0 to its end, with the pictures beside it, as a moving picture"),
}
NO_TEMPERATURE = "Temperature changes nothing with the likeliest picture: nothing is drawn."


class PlayerView(NamedTuple):
    """What there is to draw."""

    picture: np.ndarray  # (size, size, 3) uint8
    beside: list[Beside]
    state: dict[str, Any]  # plain values


def view(player: Player) -> PlayerView:
    """The present step of a player."""
    dream, now, names = player.dream, player.dream.now, player.run.actions
    beside = [one.at(now.number) for one in player.beside]
    middle, most = 0.5, player.most
    value = min(max(middle + now.value / most / 2, 0.0), 1.0)
    state = {
        "now": [
            str(now.depth),
            names[now.action] if now.action >= 0 else "-",
            f"{now.reward:+z.2f}",
            f"{now.total:+z.2f}",
            f"{now.value:+z.2f}",
            f"{now.ended:.0%}",
        ],
        "meters": [sorted((middle, value)), (0.0, now.ended)],
        "policy": [float(share) for share in now.policy],
        "next": next_action(player),
        "takes": takes(player),
        "depth": now.depth,
        "last": len(player.line) - 1,
        "playing": player.playing,
        "rate": player.rate,
        "who": player.who,
        "over": now.over,
        "compared": player.compared,
        "branches": branches(player),
        "rules": vars(dream.rules),
        "summary": f"{dream.rules}",
        "no_temperature": NO_TEMPERATURE if dream.rules.latents == "likeliest" else "",
        "start": dream.start,
        "begun": f"this dream began at stored step {dream.start:,}",
        "message": player.message,
        "stale": stale(player),
    }
    return PlayerView(dream.picture(), beside, state)


def next_action(player: Player) -> int:
    """The action that is taken next; -1 where none is, or where that is the person's to say."""
    dream, now = player.dream, player.dream.now
    if player.who == "policy":
        return dream.choose(now)
    action = dream.recorded(now.depth) if player.who == "recorded" else None
    return -1 if action is None else action


def takes(player: Player) -> str:
    """What is done next, and whether it was drawn."""
    now, names = player.dream.now, player.run.actions
    if now.over:
        return "nothing: the dream has ended"
    if player.who == "you":
        return "you play: the key that is held, else " + ("the policy" if player.idle is None else names[player.idle])
    drawn, likeliest = next_action(player), int(now.policy.argmax())
    if player.who == "recorded":
        if drawn < 0:
            return "nothing: no more actions are recorded"
        return f"{names[drawn]} (recorded; the policy's likeliest: {names[likeliest]})"
    return f"{names[drawn]} (drawn; " + ("the likeliest)" if drawn == likeliest else f"likeliest: {names[likeliest]})")


def branches(player: Player) -> list[dict[str, Any]]:
    """The branches that were played: their names, what they brought, and where they leave the present one."""
    dream, present, result = player.dream, set(player.line), list[dict[str, Any]]()
    for place, end in enumerate(dream.branches):
        last = dream.nodes[end]
        fork = next(node.depth for node in reversed(dream.path(end)) if node.number in present)
        title = f"Go to the end of branch {letter(place)}: {count(last.depth, 'step')}, return {last.total:+z.2f}"
        here = end == player.line[-1]
        result.append({"name": letter(place), "title": title, "here": here, "fork": None if here else fork})
    return result


def stale(player: Player) -> str:
    """Why the answer to *what if?* is not about the present step; empty while it is."""
    asked, now = player.what_if, player.dream.now
    if asked is None or (begin := asked_at(player.dream, asked)).number == now.number:
        return ""
    return f"You have moved on: this is about step {begin.depth}, not the present one."


def controls(player: Player) -> dict[str, Any]:
    """What the page needs once, to build its controls."""
    trained = player.dream.trained
    alone = "" if trained == "both" else f"This run was trained with {MODULES[trained]}."
    keys = {command: (written([code]), what) for code, (command, what) in COMMANDS.items()}
    return {
        "game": player.run.config.env.game,
        "actions": list(zip(player.run.actions, key_names(player.keymap, player.run.actions), strict=True)),
        "keys": [f"{key} {what}" for key, what in keys.values()],
        "who": list(WHO.items()),
        "rates": list(RATES),
        "scales": [(f"{-player.most:g}", "0", f"+{player.most:g}"), ("0%", "100%")],
        "compare": [(name, text, alone if name != compare.REAL else "") for name, text in compare.NAMES.items()],
        "modules": [(name, text, alone if name != trained and alone else "") for name, text in MODULES.items()],
        "memory": [(name, f"{text} ({name})") for name, text in MEMORY.items()],
        "latents": [(name, f"{text} ({name})") for name, text in LATENTS.items()],
        "temperatures": TEMPERATURES,
        "kinds": list(KINDS.items()),
        "files": [(kind, *texts) for kind, texts in FILE_NAMES.items()],
    }


def starts(player: Player) -> list[dict[str, Any]]:
    """The starts to choose from, each with the last real frame that a dream from there sees."""
    replay = player.run.replay
    frames = [replay.window(torch.tensor([step - 1]), 1).frames[0, 0].permute(1, 2, 0) for step in player.starts]
    return [
        {"step": start.step, "why": start.why, "picture": data_uri(frame.cpu().numpy())}
        for start, frame in zip(player.starts.values(), frames, strict=True)
    ]
