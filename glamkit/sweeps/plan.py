"""The runs of a batch: games x seeds x variants, from a small YAML file or from arguments, checked by name.

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
them, so that the folder alone is enough to go on.
"""

from __future__ import annotations

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
from glamkit.errors import GlamkitError, nearest, reason
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
        """Its config.

        Raises:
            GlamkitError: as in `presets.preset`.
        """
        return make_preset(self.preset, self.overrides, game=self.game, seed=self.seed, env_steps=self.env_steps)

    def job(self, folder: Path, notebook: Path | None = NOTEBOOK) -> Job:
        """The run to be made in a batch's folder, by a notebook or by the library alone."""
        return Job(Run(folder / self.folder), self.config(), self.folder, notebook)


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
    """A batch from plain values, which are all checked.

    Args:
        games: names as `preset` takes them, in a list or in text with spaces; ``atari100k`` stands for its 26.
        seeds: such as ``"1 2 3"`` or ``"1-3"``.
        preset: what all runs share.
        env_steps: the budget of each run; None takes the preset's.
        overrides: more settings for all runs, as text or as a table.
        variants: names with the settings of each, as a table or as texts such as ``name:key=value``.
        folder: where run folders go; a relative path counts from the checkout.

    Raises:
        GlamkitError: a game, preset, setting or name is unknown, missing or there twice; nothing is written then.
    """
    common, named, names = flat(overrides), read_variants(variants), read_games(games)
    entries, taken, same = list[PlannedRun](), set[str](), dict[Config, str]()
    for seed in read_seeds(seeds):  # seed by seed, so that variants and games can be compared as soon as possible
        for game in names:
            for name, own in named:
                run = f"{name}-seed{seed}" if name else f"seed{seed}"
                place = f"{game_folder(game)}/{run}"
                if place.lower() in taken:  # many disks take small and capital letters for the same
                    raise GlamkitError(f"two runs would share the folder {place}; name games and variants only once.")
                taken.add(place.lower())
                changes = merged(common, own)
                entries.append(PlannedRun(place, game, preset, seed, env_steps, changes))
                config = entries[-1].config()
                if (other := same.setdefault(config, name)) != name:
                    raise GlamkitError(f"variants {other!r} and {name!r} are one and the same; leave one out.")
    return SweepPlan(resolve(folder), entries)


def read_games(games: str | Sequence[str]) -> list[str]:
    """The names of games, of which each can be played.

    Raises:
        GlamkitError: an unknown game, with the nearest right one, or none.
    """
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
    """Names of variants, each with its settings; without variants, one with an empty name.

    Args:
        given: a table of names, each with settings as `flat` takes them; or texts such as ``name:key=value``.

    Raises:
        GlamkitError: it is neither, or a name cannot be a folder's.
    """
    if not given:
        return [("", None)]
    if isinstance(given, (list, tuple)) and all(":" in str(text) for text in given):
        pairs: list[tuple[str, Any]] = [(name, own) for name, _, own in (str(text).partition(":") for text in given)]
    elif isinstance(given, Mapping):
        pairs = [(str(name), own) for name, own in given.items()]
    else:
        raise GlamkitError(f"variants = {given!r} is no table of names, each with its settings.")
    for name, _ in pairs:
        if not re.fullmatch(r"(?![_.])[\w.-]{1,60}", name):
            raise GlamkitError(
                f"variant {name!r} is no name for a folder and a curve; use letters, digits, dashes and dots."
            )
    return pairs


def flat(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings by their dotted keys, from text, from such a table, or from a table of sections -> keys.

    Raises:
        GlamkitError: it is none of these, or gives a setting twice.
    """
    table: dict[str, Any] = {}
    for key, value in parse_overrides(given).items():
        for part, inner in value.items() if isinstance(value, Mapping) else [("", value)]:
            add_once(table, f"{key}.{part}" if part else key, inner)
    return table


def merged(given: str | Mapping[str, Any] | None, more: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Two sets of settings as one; a GlamkitError where both give the same setting."""
    table = flat(given)
    for key, value in flat(more).items():
        add_once(table, key, value)
    return table


# The file of a batch --------------------------------------------------------------------------------------------------


class _Loader(yaml.BaseLoader):
    """Leaves all values as text: YAML itself would read ``on`` as true, ``010`` as 8 and ``1.10`` as 1.1."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A table; of a key that is there twice YAML itself would keep the last value."""
        names: list[Any] = []
        for key, value in node.value:
            if isinstance(value, yaml.ScalarNode) and not value.style and value.value in ("null", "~"):
                value.value = ""  # no value, as in any YAML
            if key.value in names:
                line = key.start_mark.line + 1
                raise GlamkitError(f"{key.value} stands twice in the sweep file, again at line {line}; keep one.")
            names.append(key.value)
        return dict(super().construct_mapping(node, deep))


def read_file(path: str | Path) -> dict[str, Any]:
    """The YAML file of a batch as arguments of `make`, which checks their values; all are text, as written.

    Raises:
        GlamkitError: it cannot be read, is no YAML table, or has an unknown key or one twice.
    """
    name = f"the sweep file {str(path)!r}"
    try:
        data = yaml.load(Path(path).expanduser().read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise GlamkitError(f"{name} cannot be read: {reason(error)}.") from None
    except (UnicodeError, yaml.YAMLError, RecursionError) as error:
        raise GlamkitError(f"{name} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(data, dict):
        raise GlamkitError(f"{name} holds no table; it needs keys such as games and seeds.")
    for key in data:
        if key not in KEYS:
            raise GlamkitError(f"unknown key {key!r} in {str(path)!r}; {nearest(key, KEYS)}")
    return {"folder": f"runs/{Path(path).stem}", **{key: value for key, value in data.items() if value != ""}}


# The list in the folder -----------------------------------------------------------------------------------------------


def save(plan: SweepPlan) -> None:
    """Adds the runs to the list in the folder, FOLDER/sweep.json, which may have runs of other batches already.

    Raises:
        GlamkitError: the folder cannot be written, or holds a damaged list.
    """
    listed = load(plan.folder).entries if (plan.folder / LIST).exists() else []
    new = {entry.folder: entry for entry in plan.entries}
    entries = [new.pop(entry.folder, entry) for entry in listed] + list(new.values())
    make_folder(plan.folder)
    text = json.dumps({"format": FORMAT, "runs": [entry._asdict() for entry in entries]}, indent=1)
    replace_text(plan.folder / LIST, text)


def load(folder: Path) -> SweepPlan:
    """The batch that a folder holds.

    Raises:
        GlamkitError: it holds none, or its list is damaged or of a newer glamkit.
    """
    if not (folder / LIST).exists():
        raise GlamkitError(f"{folder} holds no batch: there is no {LIST} in it.")
    data = read_json(folder / LIST)
    try:
        if (number := data["format"]) != FORMAT:
            raise GlamkitError(f"{folder / LIST} has format {number!r}; this glamkit reads {FORMAT}, update it.")
        entries = [PlannedRun(**entry) for entry in data["runs"]]
        outside = any(entry.folder.startswith("/") or ".." in entry.folder.split("/") for entry in entries)
    except (KeyError, TypeError, AttributeError) as error:
        raise GlamkitError(f"{folder / LIST} is damaged ({error}).") from None
    if outside:
        raise GlamkitError(f"{folder / LIST} is damaged: a run lies outside its folder.")
    return SweepPlan(folder, entries)
