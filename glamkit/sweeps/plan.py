"""What a batch consists of: games x seeds x variants, from a small YAML file or from arguments, checked by name.

    games: Pong Boxing        # or atari100k for its 26 games, or a list
    seeds: 1-5
    preset: atari100k
    env_steps: 50000          # default: the preset's
    overrides:                # for all runs
      trainer.save_every: 1000
    variants:                 # each is run with every game and seed; without any there is one
      carried: {}
      reset: {agent.context: reset}
    folder: runs/contexts     # default: runs/ and the file's name

Each run's folder is FOLDER/<game>/<variant>-seed<N>, or FOLDER/<game>/seed<N> without variants. FOLDER/sweep.json lists
them, so that the folder alone says what belongs to the batch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from glamkit import notebook
from glamkit.config import Config, coerce, parse_overrides, read_seeds
from glamkit.config import preset as make_preset
from glamkit.envs.registry import resolve_game
from glamkit.errors import GlamkitError, nearest
from glamkit.runs.folder import Run, replace_text, resolve
from glamkit.sweeps.job import Job

KEYS = ("games", "seeds", "preset", "env_steps", "overrides", "variants", "folder")
NOTEBOOK = notebook.folder() / "02_train.ipynb"
LIST, FORMAT = "sweep.json", 1


class PlannedRun(NamedTuple):
    """One run of a batch, in the words of the training notebook."""

    folder: str  # within the batch's, with slashes
    game: str
    preset: str
    seed: int
    env_steps: int | None
    overrides: dict[str, Any]

    def config(self) -> Config:
        """Its config; errors as in `presets.preset`."""
        return make_preset(self.preset, self.overrides, game=self.game, seed=self.seed, env_steps=self.env_steps)

    def job(self, folder: Path) -> Job:
        """The run to be made in a batch's folder."""
        return Job(Run(folder / self.folder), self.config(), self.folder, NOTEBOOK)


class SweepPlan(NamedTuple):
    """A batch: its folder and its runs."""

    folder: Path
    entries: list[PlannedRun]


def make(
    games: str | Sequence[str],
    seeds: str | int | Iterable[int] = "1",
    preset: str = "quick",
    env_steps: int | None = None,
    overrides: str | Mapping[str, Any] | None = None,
    variants: Mapping[str, Any] | None = None,
    folder: str | Path = "runs/sweep",
) -> SweepPlan:
    """A batch from plain values, everything checked.

    Args:
        games: names as `preset` takes them, in a list or in text with spaces; ``atari100k`` stands for its 26.
        seeds: such as ``"1 2 3"`` or ``"1-3"``.
        preset: what all runs share.
        env_steps: the budget of each run; None takes the preset's.
        overrides: more settings for all runs, as text or as a table.
        variants: names with the settings of each.
        folder: where run folders go; a relative path counts from the checkout.

    Raises:
        GlamkitError: an unknown game, preset, setting or name, or none; nothing has been written then.
    """
    common, named = read_settings("overrides", overrides), read_variants(variants)
    entries = []
    given = seeds if isinstance(seeds, (str, int, list, tuple)) else str(seeds)
    for seed in read_seeds(given):  # seed by seed, so that variants and games can be compared as soon as possible
        for game, short in read_games(games).items():
            for name, changes in named.items():
                place = f"{short}/{name}-seed{seed}" if name else f"{short}/seed{seed}"
                entry = PlannedRun(place, game, preset, seed, env_steps, {**common, **changes})
                check(entry.config(), name)
                entries.append(entry)
    return SweepPlan(resolve(folder), entries)


def check(config: Config, variant: str) -> None:
    """Refuses what cannot go through a batch.

    Raises:
        GlamkitError: one GPU of several is named, and that choice is the batch's.
    """
    if ":" in config.runtime.device:
        where = f" of variant {variant!r}" if variant else ""
        device = config.runtime.device
        raise GlamkitError(
            f"runtime.device = {device!r}{where} names one GPU, and a batch gives each run its own; use auto."
        )


def read_file(path: str | Path) -> dict[str, Any]:
    """The YAML file of a batch as arguments of `make`, which checks their values.

    Raises:
        GlamkitError: it cannot be read, is no YAML table, or has an unknown key.
    """
    try:
        data = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise GlamkitError(
            f"the sweep file {str(path)!r} cannot be read: {getattr(error, 'strerror', error)}."
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        said = getattr(error, "problem", None) or "it cannot be read"
        raise GlamkitError(f"the sweep file {str(path)!r} is not YAML{place}: {said}.") from None
    if not isinstance(data, dict):
        raise GlamkitError(f"the sweep file {str(path)!r} holds no table; it needs keys such as games and seeds.")
    for key in data:
        if key not in KEYS:
            raise GlamkitError(f"unknown key {key!r} in {str(path)!r}; {nearest(key, KEYS)}")
    return {"folder": f"runs/{Path(path).stem}", **{key: value for key, value in data.items() if value is not None}}


def read_games(games: str | Sequence[str]) -> dict[str, str]:
    """Names of games -> each with the name of its folder.

    Raises:
        GlamkitError: an unknown game, with the nearest right one, the same game twice, or none.
    """
    names = games.replace(",", " ").split() if isinstance(games, str) else games
    if not isinstance(names, (list, tuple)) or not names:
        raise GlamkitError(f"games = {games!r} names none; write such as 'Pong Boxing', or atari100k for its 26.")
    if list(names) == ["atari100k"]:
        from glamkit.envs.atari100k import games as atari_games

        names = list(atari_games())
    found: dict[str, str] = {}
    identities: dict[str, str] = {}
    for name in names:
        game = coerce("games", name, str)
        identity = resolve_game(game)
        if identity in identities:
            raise GlamkitError(f"games names {game} twice.")
        identities[identity] = found[game] = re.sub(r"[^\w.-]+", "_", re.split(r"[/:]", game)[-1])
    if len(set(found.values())) < len(found):
        raise GlamkitError(
            f"two of the games {', '.join(found)} would share a folder; put them into batches of their own."
        )
    return found


def read_settings(name: str, given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings as text, as a table of dotted keys, or as a table of sections -> dotted keys."""
    if given is not None and not isinstance(given, (str, Mapping)):
        raise GlamkitError(f"{name} = {given!r} is neither text such as 'trainer.warmup=300' nor a table.")
    flat: dict[str, Any] = {}
    for key, value in parse_overrides(given).items():
        flat |= (
            {f"{key}.{part}": inner for part, inner in value.items()} if isinstance(value, Mapping) else {key: value}
        )
    own = {"env.game": "games", "trainer.seed": "seeds", "trainer.env_steps": "env_steps"}
    for key in flat:
        if key in own:
            raise GlamkitError(f"{name} sets {key}; in a batch that is said by {own[key]}.")
    return flat


def read_variants(given: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Names of variants with their settings; one without a name where there are none."""
    if not given:
        return {"": {}}
    if not isinstance(given, Mapping):
        raise GlamkitError(f"variants = {given!r} is no table of names, each with its settings.")
    for name in given:
        if not re.fullmatch(r"[\w.-]{1,60}", str(name)) or str(name).strip(".") == "":
            raise GlamkitError(f"variant {name!r} is no name for a folder; use letters, digits, dashes and dots.")
    return {str(name): read_settings(f"variants.{name}", changes) for name, changes in given.items()}


# The list in the folder -----------------------------------------------------------------------------------------------


def save(plan: SweepPlan) -> SweepPlan:
    """Adds the runs to the folder's list; returns all that are on it now."""
    listed = load(plan.folder).entries if (plan.folder / LIST).exists() else []
    new = {entry.folder: entry for entry in plan.entries}
    entries = [new.pop(entry.folder, entry) for entry in listed] + list(new.values())
    plan.folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "runs": [entry._asdict() for entry in entries]}, indent=1)
    replace_text(plan.folder / LIST, text)
    return SweepPlan(plan.folder, entries)


def load(folder: Path) -> SweepPlan:
    """The batch that a folder holds.

    Raises:
        GlamkitError: it holds none, or its list is damaged or of a newer glamkit.
    """
    try:
        data = json.loads((folder / LIST).read_text(encoding="utf-8"))
        number, entries = data["format"], [PlannedRun(**entry) for entry in data["runs"]]
        places = [PurePosixPath(entry.folder) for entry in entries]
    except FileNotFoundError:
        raise GlamkitError(f"{folder} holds no batch: there is no {LIST} in it.") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise GlamkitError(f"{folder / LIST} is damaged ({error}).") from None
    if number != FORMAT:
        raise GlamkitError(f"{folder / LIST} has format {number!r}; this glamkit reads {FORMAT}, update it.")
    if any(place.is_absolute() or ".." in place.parts for place in places):
        raise GlamkitError(f"{folder / LIST} is damaged: a run lies outside its folder.")
    return SweepPlan(folder, entries)
