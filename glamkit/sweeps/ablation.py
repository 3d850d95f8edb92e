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

from glamkit.config import Config, WorldModelConfig, game_folder, override, parse_overrides, read_seeds
from glamkit.config import preset as make_preset
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError, nearest
from glamkit.notebook import Table, Tell
from glamkit.plotting import Picture
from glamkit.runs.folder import Run, resolve
from glamkit.sweeps import status_table, summary
from glamkit.sweeps.cost import estimate
from glamkit.sweeps.job import Job
from glamkit.sweeps.pool import Local
from glamkit.sweeps.summary import VariantSummary
from glamkit.sweeps.sweep import agree


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
UNASKED = 0.25  # hours of machine time that nobody has to agree to in a notebook
NOTE = "Mean return: of the evaluation's episodes, then over seeds. Interval: Student's t over the seeds' means."


class Variant(NamedTuple):
    """One answer to one question: its config without the seed, and whether that is the preset's own."""

    question: str
    choice: str
    config: Config
    plain: bool

    @property
    def name(self) -> str:
        """Its name, such as ``modules-gmamba``."""
        return f"{self.question}-{self.choice}"

    @property
    def folder(self) -> str:
        """The first part of its run folders' names."""
        return "preset" if self.plain else self.name

    @property
    def label(self) -> str:
        """Its name in tables and figures."""
        return f"{self.choice} (preset)" if self.plain else self.choice


class Ablation:
    """Variants of one preset on one game, each with the same seeds.

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
        self.base = make_preset(preset, overrides, game=game, env_steps=env_steps)
        self.seeds = read_seeds(seeds)
        wanted = read_variants(variants)
        if "trainer.seed" in (given := parse_overrides(overrides)):
            seed = given["trainer.seed"]
            raise GlamkitError(f"overrides gives trainer.seed = {seed}, and seeds says which seeds; leave one out.")
        every = [variant(self.base, *name.split("-")) for name in read_variants("all")]
        topics = {name.split("-")[0] for name in wanted}
        self.variants = [v for v in every if v.name in wanted or (v.plain and v.question in topics)]
        make_env(self.base.env).close()
        self.folder = resolve(folder) / game_folder(game)

    def job(self, variant: Variant, seed: int) -> Job:
        """One run of a variant."""
        return Job(Run(self.folder / f"{variant.folder}-seed{seed}"), override(variant.config, {"trainer.seed": seed}))

    @property
    def jobs(self) -> list[Job]:
        """All runs, seed by seed, so that variants can be compared as soon as possible."""
        distinct = {variant.folder: variant for variant in self.variants}
        return [self.job(variant, seed) for seed in self.seeds for variant in distinct.values()]

    def cost(
        self, workers: int | None = None, agreed: bool = False, tell: Tell = lambda _: None, most: float = UNASKED
    ) -> str:
        """The hours that the unfinished runs will take, as a sentence; see `sweep.agree` and `cost.estimate`.

        Raises:
            GlamkitError: it is more than `most` hours, and nobody agreed.
        """
        return agree(estimate(self.jobs, Local(self.jobs, workers), tell=tell), agreed, most)

    def run(self, workers: int | None = None) -> None:
        """Makes the runs that are not finished.

        Args:
            workers: runs at once; None for one per CPU core.

        Raises:
            GlamkitError: as in `status_table.run_jobs`.
        """
        status_table.run_jobs(self.jobs, Local(self.jobs, workers))

    def outcomes(self, variant: Variant) -> list[VariantSummary]:
        """The results of its seeds, however far they are."""
        return [summary.read(self.job(variant, seed)) for seed in self.seeds]

    def table(self) -> Table:
        """A row for each variant: mean return of the evaluations, interval over seeds, and learning curve."""
        groups = {f"{v.question}: {v.label}": self.outcomes(v) for v in self.variants}
        return Table(summary.rows(groups, self.base.trainer.env_steps), NOTE)

    def figure(self) -> Picture:
        """Learning curves and final scores, a row of panels for each question."""
        alone = len(self.variants) == 1  # the preset as it is, compared with nothing
        questions = {
            "Learning curve" if alone else QUESTIONS[name].text: {
                "preset" if alone else v.label: self.outcomes(v) for v in self.variants if v.question == name
            }
            for name in dict.fromkeys(variant.question for variant in self.variants)
        }
        budget = f"{self.base.trainer.env_steps:,} agent steps, preset {self.base.preset}"
        seeds = f"seeds {', '.join(map(str, self.seeds))}"
        return summary.figure(questions, self.base.trainer.env_steps, f"{self.base.env.game}: {budget}, {seeds}")

    def __repr__(self) -> str:
        return repr(self.plan())

    def _repr_html_(self) -> str:
        return self.plan()._repr_html_()

    def plan(self) -> Table:
        """The settings of all runs, and how many are finished."""
        todo, budget = self.jobs, f"{self.base.trainer.env_steps:,} agent steps each"
        done = sum(job.score() is not None for job in todo)
        rows = [
            ("game", self.base.env.game),
            ("preset", self.base.preset),
            ("variants", ", ".join(f"{v.question}: {v.label}" for v in self.variants)),
            ("runs", f"{len(todo)}, {budget}, seeds {', '.join(map(str, self.seeds))}; {done} are finished"),
            ("folder", self.folder),
        ]
        return Table(rows)


def variant(base: Config, question: str, answer: str) -> Variant:
    """The variant of the config `base` with one answer to a question of `QUESTIONS`."""
    changes = dict(QUESTIONS[question].choices[answer])
    if question == "variation" and answer != "off" and not base.world_model.variation_scale:
        changes["world_model.variation_scale"] = WorldModelConfig().variation_scale  # a preset without the loss
    config = override(base, changes)
    return Variant(question, answer, config, config == base)


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
