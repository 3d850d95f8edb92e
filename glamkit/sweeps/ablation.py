"""Compares choices: each variant has the same budget and several seeds, and its score an interval.

Every run is an ordinary run folder, FOLDER/<game>/<variant>-seed<N>. A variant equal to the preset is the preset's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from glamkit.config import Config, WorldModelConfig, game_folder, parse_overrides, read_seeds
from glamkit.config import preset as make_preset
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError, nearest
from glamkit.runs.folder import resolve
from glamkit.sweeps.plan import PlannedRun, SweepPlan
from glamkit.sweeps.summary import VariantSummary
from glamkit.sweeps.sweep import Sweep


class Question(NamedTuple):
    """A question in words, the setting that answers it, and the answers that are compared."""

    text: str
    key: str
    answers: Sequence[str]


QUESTIONS = {
    "modules": Question("Which modules add to the hidden state?", "world_model.modules", ("both", "gmamba", "lmamba")),
    "variation": Question(
        "Does GMamba need the variation loss, and a trained code for it?",
        "world_model.variation_head",
        ("off", "frozen", "learned"),  # off: without the loss, see `variant`
    ),
    "acting": Question("Act on the predicted or on the seen code of a frame?", "agent.acting", ("prior", "posterior")),
    "bootstrap": Question("Which value does the return mix in?", "actor_critic.bootstrap", ("current", "next")),
    "memory": Question("What do dreams remember?", "imagination.memory", ("window", "recurrent")),
    "contexts": Question("Where do dreams start?", "imagination.contexts", ("replay", "batch")),
    "latents": Question("What is a frame's code?", "world_model.latents", ("sampled", "likeliest", "probabilities")),
}


class Variant(NamedTuple):
    """One answer to one question: the settings that it changes. None are changed where it is the preset's own."""

    question: str
    choice: str
    changes: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The first part of its run folders' names, such as ``modules-gmamba``."""
        return f"{self.question}-{self.choice}" if self.changes else "preset"

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
        numbers, wanted = read_seeds(seeds), read_variants(variants)
        base = make_preset(preset, overrides, game=game, seed=numbers[0], env_steps=env_steps)
        make_env(base.env).close()
        asked = {question for question, _ in wanted}
        every = [variant(base, *name) for name in read_variants("all")]
        self.variants = [v for v in every if v[:2] in wanted or (not v.changes and v.question in asked)]
        given, distinct = parse_overrides(overrides), {v.folder: v.changes for v in self.variants}
        entries = [
            PlannedRun(f"{name}-seed{seed}", base.env.game, preset, seed, env_steps, {**given, **changes})
            for seed in numbers  # seed by seed, so that variants can be compared as soon as possible
            for name, changes in distinct.items()
        ]
        super().__init__(SweepPlan(resolve(folder) / game_folder(game), entries), notebook=None)

    def groups(self) -> dict[str, dict[str, list[VariantSummary]]]:
        """The results of the runs, however far they are: question -> label of a variant -> its seeds."""
        (results,) = super().groups().values()  # of the one game
        groups: dict[str, dict[str, list[VariantSummary]]] = {}
        for v in self.variants:
            groups.setdefault(v.question, {})[v.label] = results[v.folder]
        return groups

    def title(self, group: str) -> str:
        """A question in words, over its panels."""
        return QUESTIONS[group].text


def variant(base: Config, question: str, answer: str) -> Variant:
    """The variant of the config `base` with one answer to a question of `QUESTIONS`."""
    changes: dict[str, Any] = {QUESTIONS[question].key: answer}
    if (question, answer) == ("variation", "off"):
        changes = {"world_model.variation_scale": 0.0, "world_model.variation_head": "frozen"}
    elif question == "variation" and not base.world_model.variation_scale:
        changes["world_model.variation_scale"] = WorldModelConfig().variation_scale  # a preset without the loss
    return Variant(question, answer, changes if base.override(changes) != base else {})


def read_variants(names: str | Iterable[str]) -> list[tuple[str, str]]:
    """Names of questions and variants -> question and answer of each variant, each once, in the table's order."""
    every = [(question, answer) for question, asked in QUESTIONS.items() for answer in asked.answers]
    known = ["all", *QUESTIONS, *("-".join(pair) for pair in every)]
    given = names.replace(",", " ").split() if isinstance(names, str) else list(names)
    if not given:
        raise GlamkitError(f"variants is empty; allowed: {', '.join(known)}.")
    for name in given:
        if name not in known:
            raise GlamkitError(f"unknown variant {name!r}; {nearest(name, known)}")
    return [pair for pair in every if {"all", pair[0], "-".join(pair)} & set(given)]
