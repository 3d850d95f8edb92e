"""Evaluation: which episodes are played, by which protocol, and that training does not notice."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from square import SQUARE, Square, square
from tiny_runs import finished, log, short
from torch import Tensor

from glamkit import cli
from glamkit.config import Config, EnvConfig, parse_overrides, preset
from glamkit.envs import videos
from glamkit.envs.registry import Games
from glamkit.errors import GlamkitError
from glamkit.models.agent import Agent, RecentSteps
from glamkit.report import score_files
from glamkit.runtime import Machine, random_state
from glamkit.runtime import machine as machines
from glamkit.training import evaluation
from glamkit.training.trainer import Trainer


class Uneven(Square):
    """A game of 5 or 25 steps, as its seed has it; each step is worth a point, so the return is the length."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        assert seed is not None
        self.length = length_of(seed)
        return super().reset(seed=seed, options=options)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        frame, _, *rest = super().step(action)
        return frame, 1.0, *rest


class Moody(Square):
    """A game whose rewards come from nowhere."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        frame, _, *rest = super().step(action)
        return frame, float(self.hidden.random()), *rest


class Scripted(Agent):
    """An agent that acts at random and notes how it was asked."""

    def __init__(self, actions: int) -> None:
        torch.nn.Module.__init__(self)
        self.actions, self.asked = actions, list[tuple[list[int], bool]]()
        self.norm = torch.nn.BatchNorm1d(2)

    def act(self, frames: np.ndarray, past: RecentSteps, sampled: bool = True) -> Tensor:
        assert not self.norm.training and len(frames) == len(past.lengths)
        self.asked.append((past.lengths.tolist(), sampled))
        return torch.randint(self.actions, (len(frames),))


def length_of(seed: int) -> int:
    return 5 if seed % 2 else 25


def game_seed(own: int) -> int:
    """What a single environment makes of its seed."""
    return int(np.random.default_rng(own).integers(2**31))


def settings(overrides: str = "", game: str = SQUARE) -> Config:
    base = {"runtime.device": "cpu", "evaluation.episode_steps": 60}
    return preset("debug", base | parse_overrides(overrides), game=game)


def played(config: Config, actions: int = 3, seed: int = 0) -> tuple[dict[str, Any], Scripted]:
    agent = Scripted(actions)
    return evaluation.evaluate(agent, config, Machine(config.runtime), 7, seed), agent


@pytest.mark.parametrize("games", [1, 3, 20])
def test_the_planned_episodes_are_played_whatever_their_lengths(games: int) -> None:
    """The first to finish would be the short ones; here each of the 20 seeds gives the length that belongs to it."""
    square(Uneven)
    report, agent = played(settings(f"evaluation.episodes=20 evaluation.games={games}"))
    planned = (np.random.SeedSequence(0).generate_state(20) >> 1).tolist()
    assert [episode["seed"] for episode in report["episodes"]] == planned
    expected = [length_of(game_seed(seed)) for seed in planned]
    assert {5, 25} == set(expected)
    assert [episode["length"] for episode in report["episodes"]] == expected
    assert [episode["return"] for episode in report["episodes"]] == expected
    assert report["mean_return"] == np.mean(expected) and report["step"] == 7
    assert max(len(lengths) for lengths, _ in agent.asked) == games


def test_a_hundred_episodes_on_twenty_games() -> None:
    square(length=3)
    report, agent = played(settings("evaluation.episodes=100"))
    assert len(report["episodes"]) == len({episode["seed"] for episode in report["episodes"]}) == 100
    assert [len(lengths) for lengths, _ in agent.asked] == [20] * 15


def test_games_that_are_over_have_no_past_to_be_read() -> None:
    square(Uneven)
    _, agent = played(settings("evaluation.episodes=20"))
    lengths, _ = agent.asked[-1]
    assert len(agent.asked) == 25 and set(lengths) == {0, 8}  # 8: as much as the agent looks at


def test_long_episodes_are_cut_and_say_so() -> None:
    square(Uneven)
    report, _ = played(settings("evaluation.episodes=20 evaluation.episode_steps=10"))
    assert {(episode["length"], episode["cut"]) for episode in report["episodes"]} == {(5, False), (10, True)}
    assert "; " in evaluation.in_words(report) and "of them cut short" in evaluation.in_words(report)


def test_sampled_or_greedy_and_seeded() -> None:
    square(length=6)
    for sampled in (True, False):
        _, agent = played(settings(f"evaluation.sampled={sampled}"))
        assert {drawn for _, drawn in agent.asked} == {sampled}
    one, again, other = (played(settings(), seed=seed)[0] for seed in (1, 1, 2))
    assert one == again and one["episodes"] != other["episodes"]


def test_the_protocol_card_says_how_it_was_measured() -> None:
    config = preset("atari100k", "evaluation.no_ops=30 evaluation.sticky=off evaluation.episodes=100", game="Pong")
    card = evaluation.card(config, 5)
    expected = {
        "game": "Pong", "episodes": 100, "sampled": True, "episode_steps": 27_000, "games": 20, "no_ops": 30,
        "sticky": 0.0, "frame_skip": 4, "life_loss": True, "image_size": 64, "acting": "prior", "seed": 5,
    }  # fmt: skip
    assert {key: card[key] for key in expected} == expected
    assert set(card["versions"]) == {"glamkit", "ale-py", "gymnasium"} and "every" not in card
    assert evaluation.card(preset("atari100k", "env.sticky=0 evaluation.sticky=on"), 0)["sticky"] == 0.25
    assert evaluation.card(preset("atari100k", "env.sticky=0.1"), 0)["sticky"] == 0.1
    plain = evaluation.card(preset("debug", game="glamkit/Catch-v0"), 0)
    assert [plain[key] for key in ("sticky", "no_ops", "frame_skip", "life_loss")] == [None] * 4  # they mean nothing


def first_frames(no_ops: int, seeds: list[int], sticky: float = 0.25) -> np.ndarray:
    games = Games(EnvConfig(game="MsPacman", image_size=32, sticky=sticky), no_ops)
    frames = [games.reset(np.array(seeds))]
    frames += [games.step(np.full(len(seeds), step % 9))[0] for step in range(60)]
    games.close()
    return np.stack(frames)


def test_no_op_starts_and_sticky_actions_are_seeded() -> None:
    starts = first_frames(30, [1, 2])
    assert np.array_equal(starts, first_frames(30, [1, 2]))
    assert not np.array_equal(starts, first_frames(0, [1, 2]))
    plain = first_frames(0, [1, 2], sticky=0)
    assert np.array_equal(plain[:, 0], plain[:, 1])  # neither: every episode is the same
    idle = first_frames(200, [1, 2], sticky=0)
    assert not np.array_equal(idle[:, 0], idle[:, 1])


def test_an_episode_is_its_seed_and_actions() -> None:
    """Played again alone, with sticky actions and no-op starts, it brings the same rewards, whatever its round."""
    overrides = "evaluation.episode_steps=150 evaluation.no_ops=30 evaluation.episodes=3 evaluation.games=1"
    config = preset("debug", f"runtime.device=cpu {overrides}", game="MsPacman")
    agent, machine = Scripted(9), Machine(config.runtime)
    episodes = evaluation.play(agent.eval(), config, machine, 0, None, None)
    assert len({episode.score for episode in episodes}) > 1
    for episode, side in zip(episodes, (32, 64, 160), strict=True):
        steps = list(videos.replay(config.env, 30, episode, side))
        assert len(steps) == episode.length + 1 and steps[-1][1] == episode.score
        assert steps[0][0].shape == (side, side, 3)


def test_videos_of_the_best_the_median_and_the_worst(tmp_path: Path) -> None:
    square(Uneven, shape=(20, 20, 3))
    config, film = settings("evaluation.episodes=5"), tmp_path / "videos" / "evaluation"
    agent = Scripted(3)
    report = evaluation.evaluate(agent, config, Machine(config.runtime), 7, film=film)
    returns = [episode["return"] for episode in report["episodes"]]
    shown = {name: returns[entry["episode"]] for name, entry in report["videos"].items()}
    assert shown == {"best": max(returns), "median": sorted(returns)[2], "worst": min(returns)}
    for name, entry in report["videos"].items():
        with Image.open(tmp_path / "videos" / entry["file"]) as picture:
            lasting = sum(frame.info["duration"] for frame in ImageSequence.Iterator(picture))  # equal frames are one
            assert picture.size == (160, 160) and lasting == 100 * shown[name] + 1500
    assert {path.suffix for path in film.parent.iterdir()} == {".gif"}


def test_an_episode_that_cannot_be_played_again_is_not_shown(tmp_path: Path, caplog: Any) -> None:
    square(Moody, length=5)
    config = settings("evaluation.episodes=3")
    with caplog.at_level(logging.WARNING):
        report = evaluation.evaluate(Scripted(3), config, Machine(config.runtime), 7, film=tmp_path / "film")
    assert report["videos"] == {} and "played again it had" in caplog.text
    assert not list(tmp_path.glob("*.gif"))


def test_a_score_is_not_lost_for_want_of_a_picture(tmp_path: Path, caplog: Any) -> None:
    square(length=5)
    config, film = settings("evaluation.episodes=3"), tmp_path / "file" / "evaluation"
    film.parent.write_text("")  # where the folder of videos should be
    with caplog.at_level(logging.WARNING):
        report = evaluation.evaluate(Scripted(3), config, Machine(config.runtime), 7, film=film)
    assert report["videos"] == {} and len(report["episodes"]) == 3
    assert f"{film.parent} cannot be written: File exists" in caplog.text


def test_evaluation_leaves_random_numbers_alone() -> None:
    square(length=4)
    agent, config = Scripted(3), settings()
    agent.train()
    before = random_state()
    evaluation.evaluate(agent, config, Machine(config.runtime), 0)
    assert torch.equal(random_state()["torch"], before["torch"]) and random_state()["python"] == before["python"]
    agent.act = lambda *_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        evaluation.evaluate(agent, config, Machine(config.runtime), 0)


EVERY = "evaluation.every=30 evaluation.episode_steps=15 evaluation.episodes=2"


def test_evaluation_during_training_changes_nothing(tmp_path: Path) -> None:
    with_it = finished(short(EVERY), tmp_path / "with")
    without = finished(short(), tmp_path / "without")
    lines = [line for line in log(with_it) if line["kind"] != "evaluation"]
    assert lines == log(without) and any("world_model/total" in line for line in lines)
    states = with_it.agent.state_dict(), without.agent.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])  # BatchNorm's statistics are here
    evaluated = [line for line in log(with_it) if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluated] == [30, 60]
    files = sorted((tmp_path / "with" / "evaluations").iterdir())
    assert [path.name for path in files] == ["000000030.json", "000000060.json"]
    report = json.loads(files[-1].read_text())
    assert (report["step"], report["mean_return"]) == (60, evaluated[-1]["evaluation/return"])
    assert evaluated[-1]["evaluation/cut"] == sum(episode["cut"] for episode in report["episodes"]) > 0
    assert not (tmp_path / "without" / "evaluations").exists()


def test_evaluation_during_training_is_resumed_exactly(tmp_path: Path) -> None:
    config = short(EVERY, game="glamkit/Catch-v0")
    whole = finished(config, tmp_path / "whole")
    cut = Trainer(config, tmp_path / "cut")
    for event in cut:
        if event.step == 45:  # the newest checkpoint then is that of step 25
            break
    del cut
    assert log(finished(config, tmp_path / "cut")) == log(whole)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "catch"
    trainer = finished(short(game="glamkit/Catch-v0"), folder)
    about = trainer.agent, trainer.config, trainer.machine, trainer.step
    evaluation.evaluate(*about, file=trainer.run.evaluation_file)
    return folder


def test_a_checkpoint_is_evaluated_from_the_command_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = json.loads((run / "evaluation.json").read_text())
    assert cli.main(["evaluate", str(run)]) == 0  # its own protocol, at its end: the same score again
    second = json.loads((run / "evaluation.json").read_text())
    assert second.pop("videos") and second == first
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "evaluation.json")
    assert (run / "videos" / "evaluation-best.gif").exists()
    scores = tmp_path / "scores.json"
    assert cli.main(["evaluate", str(run), "--no-videos", "--save", str(scores)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(scores)
    assert score_files.read(scores)["mean_return"] == first["mean_return"]
    arguments = ["--checkpoint", "50", "--episodes", "3", "--actions", "greedy"]
    assert cli.main(["evaluate", str(run), *arguments, "--seed", "4", "--no-videos"]) == 0
    name = "000000050-3-episodes-sampled-False-episode_steps-40-seed-4.json"
    changes = "evaluation.episodes=3 evaluation.sampled=no evaluation.sticky=off evaluation.no_ops=5"
    ataris = evaluation.name_of(preset("atari100k", changes, game="Pong").evaluation, 50, 4)
    assert ataris == "000000050-3-episodes-sampled-False-sticky-off-no_ops-5-seed-4"
    report = json.loads((run / "evaluations" / name).read_text())
    assert report["step"] == 50 and len(report["episodes"]) == 3 and "videos" not in report
    assert report["protocol"]["sampled"] is False and report["protocol"]["seed"] == 4
    message, path = capsys.readouterr().out.splitlines()
    assert message.startswith("step 50: mean return") and path.endswith(name)
    assert json.loads((run / "evaluation.json").read_text())["step"] == 64  # the run's score is not touched


def test_a_run_is_opened_on_the_device_that_is_asked_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, usual = [], machines.resolve_device
    monkeypatch.setattr(machines, "resolve_device", lambda name: asked.append(name) or usual(name))
    assert evaluation.opened(run, changes={"runtime.device": "cpu"}).machine.device.type == "cpu"
    assert {*asked} == {"cpu"}  # and not auto, the run's own: it may be a GPU that is full


def test_scores_of_episodes_of_another_length_overwrite_no_others(run: Path) -> None:
    all_changes = ({"evaluation.episode_steps": 5}, {"evaluation.episode_steps": 7}, {})
    opened = [evaluation.opened(run, changes=changes) for changes in all_changes]
    paths = [evaluation.evaluate_run(one, seed=9, film=False)[1] for one in opened]
    assert [path.stem for path in paths] == [f"000000064-2-episodes-episode_steps-{most}-seed-9" for most in (5, 7, 40)]
    assert [json.loads(path.read_text())["protocol"]["episode_steps"] for path in paths] == [5, 7, 40]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--checkpoint", "13"], "holds no checkpoint of step 13, but those of 50 and 64"),
        (["--checkpoint", "last"], "checkpoint = 'last' is not a whole number."),
        (["--episodes", "0"], "evaluation.episodes = 0 is outside 1 to 1000."),
        (["--episodes", "many"], "evaluation.episodes = 'many' is not a whole number."),
        (["--no-ops", "-1"], "evaluation.no_ops = -1 is outside"),
        (["--device", "gpu"], "runtime.device = 'gpu' is not a device"),
        (["--seed", "x"], "'x' is not a valid integer range."),
        (["--seed", "-1"], "-1 is not in the range 0<=x<=4294967295."),
        (["--seed", "5000000000"], "5000000000 is not in the range 0<=x<=4294967295."),
    ],
)
def test_mistakes_are_refused_in_one_sentence(
    run: Path, arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.rglob("*"))
    assert cli.main(["evaluate", str(run), *arguments]) == (2 if "--seed" in arguments else 1)  # 2 is click's
    message = capsys.readouterr()
    assert hint in message.err and len(message.err.splitlines()) == 1 and not message.out
    assert sorted(run.rglob("*")) == before


def test_folders_without_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GlamkitError, match=r"holds no run: there is no config\.json"):
        evaluation.opened(tmp_path)
