"""Compares choices: each variant has the same budget and several seeds, and its score an interval.

    glamkit ablate --game glamkit/Catch-v0 --preset learn --variants "modules acting" --seeds 1-3

Every run is an ordinary run folder, FOLDER/<game>/<variant>-seed<N>. The same command goes on after a stop: finished
runs are not run again, and interrupted ones are resumed. A variant equal to the preset is the preset's own run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from glamkit.config import Config, WorldModelConfig, game_folder, parse_overrides, read_seeds
from glamkit.config import preset as make_preset
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError, nearest
from glamkit.runs.folder import resolve
from glamkit.sweeps import summary
from glamkit.sweeps.plan import PlannedRun, SweepPlan
from glamkit.sweeps.summary import VariantSummary
from glamkit.sweeps.sweep import Sweep


class Choice(NamedTuple):
    """A question, and its answers, each with the settings it stands for."""

    text: str
    choices: Mapping[str, Mapping[str, Any]]


def choice(key: str, *values: str) -> dict[str, dict[str, Any]]:
    """Answers that are the values of one setting."""
    return {value: {key: value} for value in values}


QUESTIONS: Mapping[str, Choice] = {
    "modules": Choice(
        "Which modules add to the hidden state?", choice("world_model.modules", "both", "gmamba", "lmamba")
    ),
    "variation": Choice(
        "Does GMamba need the variation loss, and a trained code for it?",
        {
            "off": {"world_model.variation_scale": 0.0, "world_model.variation_head": "frozen"},
            **choice("world_model.variation_head", "frozen", "learned"),
        },
    ),
    "acting": Choice(
        "Act on the predicted code of a frame (latent) or on the one seen?",
        choice("agent.acting", "prior", "posterior"),
    ),
    "bootstrap": Choice("Which value does the return mix in?", choice("actor_critic.bootstrap", "current", "next")),
    "memory": Choice("What do dreams remember?", choice("imagination.memory", "window", "recurrent")),
    "contexts": Choice("Where do dreams start?", choice("imagination.contexts", "replay", "batch")),
    "latents": Choice(
        "What is the code of a frame (latent)?", choice("world_model.latents", "sampled", "likeliest", "probabilities")
    ),
}


class Variant(NamedTuple):
    """One answer to one question: the settings that it changes. None are changed where it is the preset's own."""

    question: str
    choice: str
    changes: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name, such as ``modules-gmamba``."""
        return f"{self.question}-{self.choice}"

    @property
    def folder(self) -> str:
        """The first part of its run folders' names."""
        return self.name if self.changes else "preset"

    @property
    def label(self) -> str:
        """Its name in tables and figures."""
        return self.choice if self.changes else f"{self.choice} (preset)"


class Ablation(Sweep):
    """Variants of one preset on one game, each with the same seeds. Its runs are trained without a notebook.

    Args:
        game: the game, as `preset` takes it.
        preset: what all variants share.
        env_steps: the budget of each run; None takes the preset's.
        variants: names of `QUESTIONS` (all their answers), single ones such as ``modules-gmamba``, or ``all``;
            the preset's own answer to a question is always among them, to compare with.
        seeds: such as ``"1 2 3"`` or ``"1-3"``.
        folder: where run folders go; a relative path counts from the checkout.
        overrides: more settings for all variants.

    Raises:
        GlamkitError: an unknown game, preset, variant or setting, or no seeds; nothing is written then.
    """

    def __init__(
        self,
        game: str,
        preset: str,
        env_steps: int | None,
        variants: str | Sequence[str],
        seeds: str | int | Sequence[int],
        folder: str | Path,
        overrides: str | Mapping[str, Any] = "",
    ) -> None:
        if not str(folder):
            raise GlamkitError("folder is empty; name one for the runs, such as 'runs/ablation'.")
        base, given = make_preset(preset, overrides, game=game, env_steps=env_steps), parse_overrides(overrides)
        numbers, wanted = read_seeds(seeds), read_variants(variants)
        if "trainer.seed" in given:
            seed = given["trainer.seed"]
            raise GlamkitError(f"overrides gives trainer.seed = {seed}, and seeds says which seeds; leave one out.")
        every = [variant(base, *name.split("-")) for name in read_variants("all")]
        topics = {name.split("-")[0] for name in wanted}
        self.variants = [v for v in every if v.name in wanted or (not v.changes and v.question in topics)]
        make_env(base.env).close()
        distinct = {v.folder: v.changes for v in self.variants}
        entries = [
            PlannedRun(f"{name}-seed{seed}", base.env.game, preset, seed, env_steps, {**given, **changes})
            for seed in numbers  # seed by seed, so that variants can be compared as soon as possible
            for name, changes in distinct.items()
        ]
        super().__init__(SweepPlan(resolve(folder) / game_folder(game), entries), notebook=None)

    def groups(self) -> dict[str, dict[str, list[VariantSummary]]]:
        """The results of the runs, however far they are: question -> label of a variant -> its seeds."""
        results: dict[str, list[VariantSummary]] = {}
        for entry, job in zip(self.plan.entries, self.jobs, strict=True):
            results.setdefault(entry.variant, []).append(summary.read(job))
        alone = len(self.variants) == 1  # the preset as it is, compared with nothing
        groups: dict[str, dict[str, list[VariantSummary]]] = {}
        for v in self.variants:
            groups.setdefault(v.question, {})["preset" if alone else v.label] = results[v.folder]
        return groups

    def title(self, group: str) -> str:
        """A question in words, over its panels."""
        return QUESTIONS[group].text if len(self.variants) > 1 else "Learning curve"


def variant(base: Config, question: str, answer: str) -> Variant:
    """The variant of the config `base` with one answer to a question of `QUESTIONS`."""
    changes = dict(QUESTIONS[question].choices[answer])
    if question == "variation" and answer != "off" and not base.world_model.variation_scale:
        changes["world_model.variation_scale"] = WorldModelConfig().variation_scale  # a preset without the loss
    return Variant(question, answer, changes if base.override(changes) != base else {})


def read_variants(names: str | Iterable[str]) -> list[str]:
    """Names of questions and variants -> names of variants, each once, in the table's order.

    Raises:
        GlamkitError: an unknown name, with the nearest right one, or none at all.
    """
    every = {q: [f"{q}-{answer}" for answer in question.choices] for q, question in QUESTIONS.items()}
    single = list(chain.from_iterable(every.values()))
    known = {"all": single, **every, **{name: [name] for name in single}}
    chosen: set[str] = set()
    for name in names.replace(",", " ").split() if isinstance(names, str) else names:
        if name not in known:
            raise GlamkitError(f"unknown variant {name!r}; {nearest(name, known)}")
        chosen.update(known[name])
    if not chosen:
        raise GlamkitError(f"variants is empty; allowed: {', '.join(known)}.")
    return [name for name in single if name in chosen]
