"""A sweep file means what a person wrote, and says so where YAML would read something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glamkit.config import read_seeds
from glamkit.errors import GlamkitError
from glamkit.sweeps import plan
from glamkit.sweeps.ablation import Ablation


def test_what_is_written_is_what_is_meant(tmp_path: Path) -> None:
    """YAML itself would read on as true, 010 as 8, 1.10 as 1.1 and 1:30 as 90."""
    path = tmp_path / "study.yaml"
    path.write_text(
        "games: glamkit/Catch-v0\npreset: debug\nseeds: 010\nenv_steps:\nfolder: 1:30\n"
        "overrides: {runtime.compile: off, runtime.record: no}\n"
        "variants: {on: {agent.context: reset}, 1.10: {imagination.starts: 4}, none: }\n"
    )
    made = plan.make(**plan.read_file(path))
    names = ["Catch-v0/on-seed10", "Catch-v0/1.10-seed10", "Catch-v0/none-seed10"]
    assert [entry.folder for entry in made.entries] == names and made.folder.name == "1:30"
    config = made.entries[1].config()
    assert (config.runtime.compile, config.runtime.record, config.imagination.starts) == ("off", False, 4)
    assert made.entries[0].config().agent.context == "reset"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"variants": {"a": "agent.acting=prior", "A": "agent.acting=posterior"}}, "two runs would share the folder"),
        ({"seeds": "1,000"}, "seeds = '1,000' may be one number or several; write 1000, or 1 0 with spaces"),
    ],
)
def test_what_would_be_something_else_than_it_looks_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GlamkitError, match=sentence):
        plan.make("glamkit/Catch-v0", preset="debug", **given)


def test_seeds_with_commas_are_still_seeds() -> None:
    assert read_seeds("101,102, 010") == [101, 102, 10]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"overrides": {"trainer": {"warmup": 50}, "trainer.warmup": 60}}, "trainer.warmup is given twice"),
        (
            {"overrides": "agent.acting=prior", "variants": {"b": "agent.acting=posterior"}},
            "agent.acting is given twice, as 'prior' and as 'posterior'",
        ),
        ({"variants": ["a:agent.acting=prior", "a:agent.acting=posterior"]}, "two runs would share the folder"),
        ({"variants": {"a": "agent.acting=prior agent.acting=posterior"}}, "agent.acting is given twice"),
    ],
)
def test_settings_of_a_batch_are_given_once(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GlamkitError, match=sentence):
        plan.make("glamkit/Catch-v0", preset="debug", **given)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("trainer.seed=5", "trainer.seed is given twice"),
        ("env.game=Pong", "env.game is given twice"),
    ],
)
def test_an_ablation_refuses_an_override_that_no_run_would_follow(
    tmp_path: Path, overrides: str, sentence: str
) -> None:
    with pytest.raises(GlamkitError, match=sentence):
        Ablation("glamkit/Catch-v0", "debug", None, "modules", "1", tmp_path, overrides)
