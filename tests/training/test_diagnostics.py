"""The verdict: one log made up by hand for each finding, and a run that fails on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_logs import HEALTHY, made_up
from square import SQUARE, Square, square
from tiny_runs import finished, log, short

from glamkit.config import Config, preset
from glamkit.training.diagnostics import AGREE, TOO_GOOD, TOO_LITTLE, Finding, ratios, verdict

CONFIG = preset("debug", "trainer.env_steps=1000 trainer.warmup=100")


def faults(entries: list[Any], config: Config = CONFIG) -> list[Finding]:
    """The findings, without the row that is always there: imagined beside real rewards, where these agree."""
    return [finding for finding in verdict(entries, config) if finding.sign != AGREE]


def only(entries: list[Any], config: Config = CONFIG) -> Finding:
    (finding,) = faults(entries, config)
    return finding


def test_learning_shows() -> None:
    result = only(made_up(last=0.9, world_model__dynamics_free=1.0))
    assert result.sign == "learning shows"
    assert result.text == "the first 10 episodes returned -0.50 on average, the last 18 0.90."


def test_the_first_episodes_are_those_of_random_play() -> None:
    longer = preset("debug", "trainer.env_steps=1000 trainer.warmup=100 imagination.begin=200")
    assert only(made_up(last=0.9), longer).text.startswith("the first 20 episodes returned -0.")


def test_no_fault_and_no_learning() -> None:
    assert str(only(made_up())) == (
        "no learning yet: the first 10 episodes returned -0.50 on average, the last 18 -0.50; no fault shows. "
        "Train longer."
    )
    few = [entry for entry in made_up() if entry["kind"] == "log" or entry["step"] < 30]
    assert only(few).text.startswith("2 episodes have ended, too few to compare; no fault shows. Train longer.")


def test_nothing_was_trained() -> None:
    assert only(made_up(steps=90)).sign == "no update in the log yet"
    assert only([]).text == "0 steps were played; the first one ends step 101."


def test_rewards_too_small_for_the_bins_are_named_and_give_no_nan() -> None:
    tiny = {"replay/reward_size": 1e-7, "world_model/reward_events": 0.0, "world_model/reward_hits": 0.0}
    changes = {key.replace("/", "__"): value for key, value in tiny.items()}
    for alarms in (0.0, 0.1):
        result = verdict(made_up(**changes, world_model__reward_alarms=alarms), CONFIG)
        assert result[0].sign == "the rewards are too small to be seen"
        assert result[0].text.startswith("they are 1e-06 on average, and bins are 0.17 apart at 0: multiply")
        assert "world_model.bin_limit" in result[0].text
        assert not [str(finding) for finding in result if "nan" in str(finding)]


@pytest.mark.parametrize("reward", [1e-6, -1e-6, 1e-3])
def test_a_run_with_tiny_rewards_says_so(reward: float, tmp_path: Path) -> None:
    class Tiny(Square):
        def step(self, action: int) -> Any:
            frame, _, *rest = super().step(action)
            return frame, reward, *rest

    square(Tiny, length=10)
    config = short(game=SQUARE)
    result = [str(finding) for finding in verdict(log(finished(config, tmp_path)), config)]
    assert f"they are {abs(reward):.2g} on average" in next(text for text in result if "too small to be seen" in text)
    assert not [text for text in result if "nan" in text]


CASES: list[tuple[dict[str, Any], str, str]] = [
    (
        {"world_model__reconstruction": 30.0},
        "the pictures are not reconstructed",
        "the error is 0.75 times that of one still picture; train longer, or raise",
    ),
    (
        {"world_model__reconstruction": 19886.0},
        "the pictures are not reconstructed",
        "the error is 497 times that of one still picture; train longer, or raise",
    ),
    (
        {"world_model__dynamics_free": 0.98},
        "the next frame is not predicted",
        "the surprise at it (KL) stayed in 98% of updates below 1 nats, under which it is not trained (free bits)",
    ),
    (
        {"world_model__reward_hits": 0.0, "world_model__reward_alarms": 0.0},
        "the reward head misses rewards",
        "recall 0%, at 10 % rewarded steps.",
    ),
    (
        {"world_model__reward_hits": 0.003, "world_model__reward_alarms": 0.004},
        "the reward head misses rewards",
        "recall 3%, at 10 % rewarded steps.",
    ),
    (
        {"world_model__reward_alarms": 0.4},
        "the reward head sees rewards that do not come",
        "precision 20%, recall 80%.",
    ),
    (
        {"world_model__termination_predicted": 0.01},
        "terminations are misjudged",
        "predicted with a mean probability of 1 %, they come in 10 % of steps",
    ),
    (
        {"imagination__reward": 0.08},
        "dreams are too good",
        "they promise 0.80 per episode, games of that time gave -0.50.",
    ),
    (
        {"imagination__reward": -0.2},
        "dreams promise less than games give",
        "imagined -0.2 per step, 18 games -0.05 (the last games). Imagination starts where rewards are rare",
    ),
    (
        {"actor_critic__entropy_share": 0.01},
        "the policy collapsed",
        "entropy 1.0% of its maximum; the first 10 episodes returned -0.50 on average, the last 18 -0.50: raise actor",
    ),
    (
        {"actor_critic__entropy_share": 0.99, "actor_critic__advantage": 0.001},
        "the policy is still random",
        "advantages are 0.001 on average. Dreams show no difference between actions",
    ),
    (
        {"actor_critic__entropy_share": 0.9, "actor_critic__advantage": 0.2},
        "the policy is still random",
        "advantages are 0.2 on average. Dreams do tell actions apart: train longer",
    ),
]


@pytest.mark.parametrize(("changes", "sign", "figures"), CASES, ids=[sign for _, sign, _ in CASES])
def test_each_fault_is_found_alone(changes: dict[str, Any], sign: str, figures: str) -> None:
    result = only(made_up(**changes))
    assert result.sign == sign
    assert figures in result.text
    assert result.text.endswith(".")


# reward per step: of every imagined step; of the games, and how much they differ; what the verdict says
REWARDS = {
    "Pong": (-0.0052, [-0.0066, -0.0095, -0.0053, -0.0084, -0.0065, -0.0055, -0.0072, -0.0101], AGREE),
    "BattleZone": (0.369, [0.12, 0.1, 0.14, 0.08, 0.16, 0.12, 0.12, 0.12], TOO_GOOD),
    "poor": (0.1, [0.9, 1.0, 1.1, 0.9, 1.0, 1.1, 1.0, 1.0], TOO_LITTLE),
    "just within a half": (0.51, [1.0] * 8, AGREE),
    "just beyond a half": (0.49, [1.0] * 8, TOO_LITTLE),
    "games too unlike": (0.3, [0.0, 2.0, 0.0, 2.0, 0.0, 2.0, 0.0, 2.0], AGREE),
    "less than one reward an episode": (0.009, [0.0005] * 8, AGREE),
    "more than one reward an episode": (0.011, [0.0005] * 8, TOO_GOOD),
    "missed penalties": (-0.001, [-0.02] * 8, TOO_GOOD),
    "invented penalties": (-0.1, [-0.02] * 8, TOO_LITTLE),
}


@pytest.mark.parametrize("case", REWARDS)
def test_imagined_rewards_are_compared_with_those_of_games(case: str) -> None:
    imagined, games, sign = REWARDS[case]
    entries = [line for line in made_up(imagination__reward=imagined) if line["kind"] == "log"]
    entries += [
        {"step": 900 + n, "kind": "episode", "episode/return": 100 * reward, "episode/length": 100.0}
        for n, reward in enumerate(games)
    ]
    (row,) = [row for row in verdict(entries, CONFIG) if row.sign in (AGREE, TOO_GOOD, TOO_LITTLE)]
    assert row.sign == sign and f"imagined {imagined:.3g} per step" in row.text
    evaluated = [{"return": 100 * imagined, "length": 100, "cut": False}] * 5  # these count, where there are any
    (row,) = [row for row in verdict(entries, CONFIG, evaluated) if row.sign in (AGREE, TOO_GOOD, TOO_LITTLE)]
    assert row.sign == AGREE and "5 games" in row.text and "(the evaluation)" in row.text


def test_games_of_random_play_are_not_compared_with_dreams_of_the_policy() -> None:
    late = preset("debug", "trainer.env_steps=1000 trainer.warmup=100 imagination.begin=970")
    assert TOO_GOOD in [row.sign for row in verdict(made_up(imagination__reward=0.5), CONFIG)]
    assert TOO_GOOD not in [row.sign for row in verdict(made_up(imagination__reward=0.5), late)]  # three are too few


def test_rewards_that_the_bins_show_are_never_called_too_small() -> None:
    """A rare one may have been sampled where nothing is predicted yet."""
    none = {f"world_model__reward_{name}": 0.0 for name in ("hits", "events", "alarms")}
    assert "the rewards are too small to be seen" not in [row.sign for row in verdict(made_up(**none), CONFIG)]


def test_learning_too_is_shown_with_the_rewards_beside_each_other() -> None:
    assert [row.sign for row in verdict(made_up(last=0.9), CONFIG)] == ["learning shows", AGREE]
    rows = verdict(made_up(last=0.9, imagination__reward=0.5), CONFIG)
    assert [row.sign for row in rows] == ["learning shows", TOO_GOOD]


def test_no_reward_at_all() -> None:
    none = {f"world_model__reward_{name}": 0.0 for name in ("hits", "events", "alarms")}
    entries = made_up(replay__reward_rate=0.0, replay__reward=0.0, imagination__reward=0.0, **none)
    for entry in entries:
        if entry["kind"] == "episode":
            entry["episode/return"] = 0.0
    result = only(entries)
    assert result.sign == "the replay holds no reward yet"
    assert result.text.startswith("of 1,000 steps none was rewarded. Explore longer")


def test_weight_for_small_things_allows_a_larger_error_of_pictures() -> None:
    weighted = CONFIG.override({"world_model.foreground_scale": 30.0})
    for size, told in ((40.0, False), (70.0, True)):  # 1 and 1.75 times the still picture's
        signs = [finding.sign for finding in verdict(made_up(world_model__reconstruction=size), weighted)]
        assert ("the pictures are not reconstructed" in signs) == told


def test_causes_come_before_what_they_cause() -> None:
    everything: dict[str, Any] = {}
    for changes, sign, _ in CASES:
        if sign not in ("the policy is still random", TOO_LITTLE):
            everything |= {key: value for key, value in changes.items() if key != "late"}
    signs = [finding.sign for finding in verdict(made_up(**everything), CONFIG)]
    assert signs == [
        "the pictures are not reconstructed",
        "the next frame is not predicted",
        "the reward head misses rewards",
        "terminations are misjudged",
        "dreams are too good",
        "the policy collapsed",
    ]


def test_a_log_without_the_measures_is_judged_by_what_it_has() -> None:
    old = [{k: v for k, v in e.items() if "replay" not in k and "world_model/re" not in k} for e in made_up()]
    assert only(old).sign == "no learning yet"


def test_ratios_are_of_sums_and_absent_without_events() -> None:
    counts = {"world_model/reward_hits": 0.02, "world_model/reward_alarms": 0.08, "world_model/reward_events": 0.04}
    counts |= {f"world_model/termination_{name}": 0.0 for name in ("hits", "alarms", "events")}
    assert ratios(counts) == {"world_model/reward_precision": 0.25, "world_model/reward_recall": 0.5}
    assert ratios({}) == {}


# Real runs ------------------------------------------------------------------------------------------------------------


class Unrewarded(Square):
    """The square, which nobody rewards."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        frame, _, ended, cut, more = super().step(action)
        return frame, 0.0, ended, cut, more


def test_a_run_that_fails_on_purpose_says_why(tmp_path: Path) -> None:
    square(Unrewarded, length=6)
    config = short(game=SQUARE)
    result = verdict(log(finished(config, tmp_path)), config)
    assert result[0].sign == "the replay holds no reward yet"
    assert result[0].text.startswith("of 60 steps none was rewarded.")


def test_a_run_logs_all_measures(tmp_path: Path) -> None:
    config = short(game="glamkit/Catch-v0")
    lines = log(finished(config, tmp_path))
    last = lines[-1] if lines[-1]["kind"] == "log" else lines[-2]
    assert set(HEALTHY) <= set(last)
    assert last["world_model/reward_recall"] == pytest.approx(
        last["world_model/reward_hits"] / last["world_model/reward_events"]
    )
    assert 0 <= last["actor_critic/entropy_share"] <= 1
    assert 0.05 < last["replay/reward_rate"] < 0.3
    assert "the replay holds no reward yet" not in [finding.sign for finding in verdict(lines, config)]
