"""The runs of a batch: games x seeds x variants, from a small YAML file or from arguments, checked by name.

Each run's folder is FOLDER/<game>/<variant>-seed<N>, or FOLDER/<game>/seed<N> without variants. FOLDER/sweep.json lists
them, so that the folder alone is enough to go on.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from glamkit import notebook
from glamkit.config import Config, add_once, coerce, game_folder, game_name, parse_overrides, read_seeds
from glamkit.config import preset as make_preset
from glamkit.envs.registry import resolve_game
from glamkit.errors import GlamkitError, nearest
from glamkit.runs.files import make_folder, read_json, replace_text
from glamkit.runs.folder import Run, resolve
from glamkit.sweeps.job import Job

KEYS = ("games", "seeds", "preset", "env_steps", "overrides", "variants", "folder")
NOTEBOOK = notebook.folder() / "02_train.ipynb"
LIST, FORMAT = "sweep.json", 1


class PlannedRun(NamedTuple):
    """One run of a batch, by the parameters of the training notebook."""

    folder: str  # within the batch's, with slashes
    game: str
    preset: str
    seed: int
    env_steps: int | None
    overrides: dict[str, Any]

    @property
    def variant(self) -> str:
        """The name of its variant; empty in a batch without variants."""
        return self.folder.rpartition("/")[2].rpartition("-seed")[0]

    def config(self) -> Config:
        """Its config; errors as in `preset`."""
        return make_preset(self.preset, self.overrides, game=self.game, seed=self.seed, env_steps=self.env_steps)

    def job(self, folder: Path, notebook: Path | None = NOTEBOOK) -> Job:
        """The run to be made in a batch's folder, by a notebook or by the library alone."""
        return Job(self.folder, Run(folder / self.folder), self.config(), notebook)


class SweepPlan(NamedTuple):
    """A batch: its folder and its runs."""

    folder: Path
    entries: list[PlannedRun]


def make(
    games: str | Sequence[str] = "",
    seeds: str | int | Iterable[int] = "1",
    preset: str = "quick",
    env_steps: int | None = None,
    overrides: str | Mapping[str, Any] | None = None,
    variants: Mapping[str, Any] | Sequence[str] | None = None,
    folder: str | Path = "runs/sweep",
) -> SweepPlan:
    """A batch from plain values as in a sweep file, which are all checked; lists may be text with spaces.

    ``atari100k`` stands for its 26 games, seeds are such as ``"1-3"``, variants also texts such as ``name:key=value``.
    """
    named, names = read_variants(variants), read_games(games)
    entries, taken = list[PlannedRun](), set[str]()
    # Seed by seed, so that variants and games can be compared as soon as possible.
    for seed, game, (name, own) in itertools.product(read_seeds(seeds), names, named):
        place = f"{game_folder(game)}/" + (f"{name}-seed{seed}" if name else f"seed{seed}")
        if place.lower() in taken:  # many disks take small and capital letters for the same
            raise GlamkitError(f"two runs would share the folder {place}; name games and variants only once.")
        taken.add(place.lower())
        entries.append(PlannedRun(place, game, preset, seed, env_steps, merged(overrides, own)))
        entries[-1].config()  # refuses a wrong setting
    return SweepPlan(resolve(folder), entries)


def read_games(games: str | Sequence[str]) -> list[str]:
    """The names of games, of which each can be played."""
    names = games.replace(",", " ").split() if isinstance(games, str) else games
    if not isinstance(names, (list, tuple)) or not names:
        raise GlamkitError(f"games = {games!r} names none; write 'Pong Boxing', or atari100k for its 26.")
    if list(names) == ["atari100k"]:
        from glamkit.envs.atari100k import games as atari_games

        names = list(atari_games())
    for name in names:
        resolve_game(coerce("games", name, str))
    return [game_name(name) for name in names]


def read_variants(given: Mapping[str, Any] | Sequence[str] | None) -> list[tuple[str, Any]]:
    """Names of variants, each with its settings; without variants, one with an empty name."""
    if not given:
        return [("", None)]
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, (list, tuple)):
        pairs = [str(text).partition(":")[::2] for text in given]
    else:
        raise GlamkitError(f"variants = {given!r} is no table of names, each with its settings.")
    for name, _ in pairs:
        if not re.fullmatch(r"(?![_.])[\w.-]{1,60}", str(name)):
            raise GlamkitError(
                f"variant {name!r} is no name for a folder and a curve; use letters, digits, dashes and dots."
            )
    return [(str(name), own) for name, own in pairs]


def merged(*given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings by their dotted keys, each given once; from text, from such tables, or from tables of sections."""
    table: dict[str, Any] = {}
    for settings in given:
        for key, value in parse_overrides(settings).items():
            for part, inner in value.items() if isinstance(value, Mapping) else [("", value)]:
                add_once(table, f"{key}.{part}" if part else key, inner)
    return table


def read_file(path: str | Path) -> dict[str, Any]:
    """The YAML file of a batch as arguments of `make`, which checks their values; all are text, as written.

    Raises:
        GlamkitError: it cannot be read, is no YAML table, or has an unknown key.
    """
    name = f"the sweep file {str(path)!r}"
    try:
        # This loader leaves values as text: YAML itself would read ``on`` as true, ``010`` as 8 and ``1.10`` as 1.1.
        data = yaml.load(Path(path).expanduser().read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise GlamkitError(f"{name} cannot be read: {' '.join(str(error).split())}.") from None
    if not isinstance(data, dict):
        raise GlamkitError(f"{name} holds no table; it needs keys such as games and seeds.")
    for key in data:
        if key not in KEYS:
            raise GlamkitError(f"unknown key {key!r} in {str(path)!r}; {nearest(key, KEYS)}")
    return {"folder": f"runs/{Path(path).stem}", **{key: value for key, value in data.items() if value != ""}}


def save(plan: SweepPlan) -> None:
    """Adds the runs to the list in the folder, FOLDER/sweep.json, which may have runs of other batches already."""
    listed = load(plan.folder).entries if (plan.folder / LIST).exists() else []
    new = {entry.folder: entry for entry in plan.entries}
    entries = [new.pop(entry.folder, entry) for entry in listed] + list(new.values())
    make_folder(plan.folder)
    text = json.dumps({"format": FORMAT, "runs": [entry._asdict() for entry in entries]}, indent=1)
    replace_text(plan.folder / LIST, text)


def load(folder: Path) -> SweepPlan:
    """The batch that a folder holds."""
    if not (folder / LIST).exists():
        raise GlamkitError(f"{folder} holds no batch: there is no {LIST} in it.")
    data = read_json(folder / LIST)
    try:
        if (number := data["format"]) != FORMAT:
            raise GlamkitError(f"{folder / LIST} has format {number!r}; this glamkit reads {FORMAT}, update it.")
        return SweepPlan(folder, [PlannedRun(**entry) for entry in data["runs"]])
    except (KeyError, TypeError) as error:
        raise GlamkitError(f"{folder / LIST} is damaged ({error}).") from None
