"""Why a run does not learn, from its log alone: ratios of what was counted, and a verdict in a few sentences.

Causes come before what they cause. Without rewards in the replay nobody can learn to predict them; without pictures
there is nothing to predict from. Without a model no rollout is true, and without true rollouts no policy learns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from glamkit.config import Config

LATE = 0.2  # share of the log that is the end of the run
EPISODES = 5  # fewest of them whose returns say anything
APART = 0.5  # of the larger of two mean rewards: farther apart they differ
TOO_GOOD, TOO_LITTLE = "dreams are too good", "dreams promise less than games give"
AGREE = "imagined and real rewards agree"
Entries = Sequence[Mapping[str, Any]]


class Finding(NamedTuple):
    """A sign and what it says: figures, and what to try."""

    sign: str
    text: str

    def __str__(self) -> str:
        return f"{self.sign}: {self.text}"


def ratios(metrics: Mapping[str, float]) -> dict[str, float]:
    """Precision and recall of the reward and the termination head; absent where nothing was predicted or came."""
    values = {}
    for head in ("reward", "termination"):
        name = f"world_model/{head}"
        for ratio, whole in (("precision", "alarms"), ("recall", "events")):
            if metrics.get(f"{name}_{whole}"):
                values[f"{name}_{ratio}"] = metrics[f"{name}_hits"] / metrics[f"{name}_{whole}"]
    return values


class LogSummary:
    """A run's log as the findings ask for it; arguments as in `verdict`.

    Lines of the end of the run are `late`. Imagination is compared with `games`, which `source` names. `change` tells
    in words how the return has changed, and `gain` in standard errors.
    """

    def __init__(self, entries: Entries, config: Config, evaluated: Entries) -> None:
        self.config = config
        self.lines = [entry for entry in entries if entry["kind"] == "log" and "world_model/total" in entry]
        self.episodes = [entry for entry in entries if entry["kind"] == "episode" and entry["episode/length"]]
        self.step = max((entry["step"] for entry in entries), default=0)
        from_step = self.step - LATE * (self.step - config.trainer.warmup)
        self.late = [line for line in self.lines if line["step"] > from_step] or self.lines[-1:]
        last = [e for e in self.episodes if e["step"] > from_step]
        played = [e for e in self.episodes if e["step"] > config.random_steps]  # by the policy, as dreams are
        most = max(EPISODES, sum(e["step"] > from_step for e in played))
        self.games, self.source = played[-most:], "the last games"
        if len(evaluated) >= EPISODES:
            self.games = [{f"episode/{key}": episode[key] for key in ("return", "length")} for episode in evaluated]
            self.source = "the evaluation"
        early = [e for e in self.episodes if e["step"] < from_step]
        count = max(EPISODES, sum(e["step"] <= config.random_steps for e in early))  # as many as had random actions
        first, final = ([e["episode/return"] for e in part] for part in (early[:count], last))
        self.change, self.gain = f"{len(self.episodes)} episodes have ended, too few to compare", math.nan
        if min(len(first), len(final)) >= EPISODES:
            (one, error), (other, its_error) = mean_and_error(first), mean_and_error(final)
            self.gain = (other - one) / max(math.hypot(error, its_error), 1e-9)
            start = f"the first {len(first)} episodes returned {one:.2f} on average"
            self.change = f"{start}, the last {len(final)} {other:.2f}"

    def mean(self, key: str) -> float:
        """Mean over the end of the run; nan where there is none."""
        values = [line[key] for line in self.late if line.get(key) is not None]
        return sum(values) / len(values) if values else math.nan

    def ratio(self, part: str, whole: str) -> float:
        """Mean of `part` over mean of `whole`; nan where there is none."""
        whole_mean = self.mean(whole)
        return self.mean(part) / whole_mean if whole_mean else math.nan


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))


def verdict(entries: Iterable[Mapping[str, Any]], config: Config, evaluated: Entries = ()) -> list[Finding]:
    """What stands in the way of learning, causes first, and what can be done; or that learning shows, if it does.

    Imagined rewards are compared with real ones wherever there are games enough.

    Args:
        entries: the lines of the run's log, oldest first (`log.read`).
        config: the run's config.
        evaluated: episodes of an evaluation, as in its report; without any, those of training are compared.
    """
    record = LogSummary(list(entries), config, evaluated)
    if not record.lines:
        due = config.trainer.next_update(0)
        when = f"the first one ends step {due:,}" if record.step < due else "lower trainer.log_every to see more"
        return [Finding("no update in the log yet", f"{record.step:,} steps were played; {when}.")]
    if record.gain > 3:
        return [Finding("learning shows", f"{record.change}."), *compared(record)]
    causes = no_reward, unseen_rewards, no_pictures, blind_prior
    effects = reward_head, termination_head, compared, collapsed
    findings = [finding for check in (*causes, *effects) for finding in check(record)]
    if all(finding.sign == AGREE for finding in findings):
        findings.insert(0, Finding("no learning yet", f"{record.change}; no fault shows. Train longer."))
    return findings


def no_reward(record: LogSummary) -> Iterator[Finding]:
    """Nothing to learn from."""
    rates = [line["replay/reward_rate"] for line in record.lines if "replay/reward_rate" in line]
    if rates and not any(rates) and not any(e["episode/return"] for e in record.episodes):
        text = f"of {record.step:,} steps none was rewarded. "
        cure = "Explore longer (imagination.begin, actor_critic.entropy), or choose a game with more frequent rewards."
        yield Finding("the replay holds no reward yet", text + cure)


def unseen_rewards(record: LogSummary) -> Iterator[Finding]:
    """Rewards that the bins cannot tell from none."""
    rate, events = record.mean("replay/reward_rate"), record.mean("world_model/reward_events")
    settings, size = record.config.world_model, record.ratio("replay/reward_size", "replay/reward_rate")
    bins = math.expm1(2 * settings.bin_limit / (settings.bins - 1))
    if rate > 0 and events == 0 and size < bins:
        text = f"they are {size:.2g} on average, and bins are {bins:.2g} apart at 0"
        cure = "multiply the game's rewards, or set a smaller world_model.bin_limit or more world_model.bins."
        yield Finding("the rewards are too small to be seen", f"{text}: {cure}")


def no_pictures(record: LogSummary) -> Iterator[Finding]:
    """What moves is not seen."""
    unexplained = record.ratio("world_model/reconstruction", "replay/spread")
    if unexplained > (1.5 if record.config.world_model.foreground_scale else 0.5):  # weight for small things costs this
        cure = "train longer, or raise world_model_optimizer.learning_rate or the number of latents"
        text = f"the error is {unexplained:.3g} times that of one still picture; {cure}. Small things come last."
        yield Finding("the pictures are not reconstructed", text)


def blind_prior(record: LogSummary) -> Iterator[Finding]:
    """The forecast of the next frame is not trained."""
    free, floor = record.mean("world_model/dynamics_free"), record.config.world_model.free_nats
    if free > 0.9:
        text = f"the surprise at it (KL) stayed in {free:.0%} of updates below {floor:g} nats, under which it is not "
        yield Finding("the next frame is not predicted", text + "trained (free bits): lower world_model.free_nats.")


def reward_head(record: LogSummary) -> Iterator[Finding]:
    """Rewards that are not predicted, or predicted and do not come; nothing where none came or the bins show none."""
    recall = record.ratio("world_model/reward_hits", "world_model/reward_events")
    precision = record.ratio("world_model/reward_hits", "world_model/reward_alarms")
    if recall < 0.5:
        text = f"recall {recall:.0%}, at {100 * record.mean('replay/reward_rate'):.2g} % rewarded steps. "
        cure = "If so train longer, or let a batch hold more steps (replay.batch_size)."
        yield Finding("the reward head misses rewards", f"{text}Are the things seen that bring them? {cure}")
    elif recall >= 0.5 and precision < 0.5:
        text = f"precision {precision:.0%}, recall {recall:.0%}. Dreams then reward what brings nothing: train longer."
        yield Finding("the reward head sees rewards that do not come", text)


def termination_head(record: LogSummary) -> Iterator[Finding]:
    """Ends that are not predicted, or predicted where none come: imagined rollouts end as they are predicted."""
    predicted, real = record.mean("world_model/termination_predicted"), record.mean("world_model/termination_events")
    if real > 0 and not 0.5 <= predicted / real <= 2:
        text = f"predicted with a mean probability of {100 * predicted:.2g} %, they come in {100 * real:.2g} % of steps"
        yield Finding("terminations are misjudged", f"{text}: train longer.")


def compared(record: LogSummary) -> Iterator[Finding]:
    """Imagined reward per step beside that of games; nothing where nothing was imagined or few games were played.

    They differ if farther apart than three standard errors, `APART` of the larger one, and one reward an episode.
    """
    values = [line["imagination/reward"] for line in record.late if line.get("imagination/reward") is not None]
    games, reward = record.games, record.ratio("replay/reward_size", "replay/reward_rate")
    unrewarded = math.isnan(reward) and not any(e["episode/return"] for e in games)
    if not values or len(games) < EPISODES or unrewarded:
        return
    returns, lengths = (np.array([e[f"episode/{key}"] for e in games]) for key in ("return", "length"))
    imagined, length = float(np.mean(values)), lengths.mean()
    given = returns.mean() / length
    errors = [mean_and_error(part)[1] for part in (values, (returns - given * lengths) / length) if len(part) > 1]
    pair = f"imagined {imagined:.3g} per step, {len(games)} games {given:.3g} ({record.source})"
    limit = max(3 * math.hypot(*errors), APART * max(abs(imagined), abs(given)))
    if abs(imagined - given) <= limit or abs(imagined - given) * length < reward:
        yield Finding(AGREE, f"{pair}, as far as so many can show.")
    elif imagined < given:
        cure = "Imagination starts where rewards are rare, or misses them: see the reward head, and train longer."
        yield Finding(TOO_LITTLE, f"{pair}. {cure}")
    else:
        text = f"they promise {imagined * length:.2f} per episode, games of that time gave {returns.mean():.2f}. "
        cure = "The policy uses errors of the model: shorten imagination.horizon, or train longer."
        yield Finding(TOO_GOOD, f"{pair}: {text}{cure}")


def collapsed(record: LogSummary) -> Iterator[Finding]:
    """A policy that has decided, or one that cannot."""
    share, size = record.mean("actor_critic/entropy_share"), record.mean("actor_critic/advantage")
    if share < 0.05:
        cure = "raise actor_critic.entropy or lower actor_critic_optimizer.learning_rate"
        yield Finding("the policy collapsed", f"entropy {share:.1%} of its maximum; {record.change}: {cure}.")
    elif share > 0.85:  # a fresh policy has 0.9 to 1
        text = f"entropy {share:.1%} of its maximum; scaled advantages are {size:.2g} on average. "
        blind = "Dreams show no difference between actions: look at rewards in dreams, lengthen imagination.horizon."
        slow = "Dreams do tell actions apart: train longer, or lower actor_critic.entropy."
        yield Finding("the policy is still random", text + (blind if size < 0.01 else slow))
