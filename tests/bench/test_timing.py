"""Both sides of the benchmark compute the same, the clock adds up."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from glamkit.bench import benchmark, timing
from glamkit.bench.timing import PHASES, PLAIN, in_turns, played, works_of
from glamkit.config import parse_overrides, preset
from glamkit.runtime import memory_kept
from glamkit.training.accelerate.rules import plain_class
from glamkit.training.trainer import Trainer

CPU = "runtime.device=cpu runtime.kernel=glamkit"
# Probabilities for latents: no random numbers are drawn, so that the sides can be compared. A large epsilon: Adam makes
# whole steps of the tiniest gradients otherwise, and those are rounding errors. No free nats: every KL is trained.
EXACT = f"{CPU} runtime.precision=float32 world_model.latents=probabilities world_model_optimizer.epsilon=1e-3"
EXACT += " world_model_optimizer.learning_rate=1e-3 actor_critic_optimizer.learning_rate=1e-2"
EXACT += " world_model.free_nats=0 world_model.variation_free_nats=0"

PARTS = ("reconstruction", "reward", "termination", "dynamics", "representation", "variation")
PARTS += ("dynamics_kl", "variation_kl")


@pytest.fixture
def fast(tmp_path: Path) -> Trainer:
    return played(preset("debug", EXACT), tmp_path / "fast")


def plainly(precise: str, folder: Path) -> Trainer:
    """The reference side."""
    return played(preset("debug", precise).override(PLAIN), folder / "plain")


# Both sides -----------------------------------------------------------------------------------------------------------


def test_both_sides_start_from_the_same_weights_and_steps(fast: Trainer, tmp_path: Path) -> None:
    plain = plainly(EXACT, tmp_path)
    ours, theirs = fast.agent.state_dict(), plain.agent.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(*parts) for parts in zip(fast.replay.sample(), plain.replay.sample(), strict=True))
    assert {type(part) for part in plain.agent.modules()} == {plain_class(part) for part in plain.agent.modules()}
    assert plain.machine.precision == torch.float32
    assert (plain.machine.compiles, plain.machine.recorder, plain.kernel) == (False, None, "glamkit")


@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_three_updates_of_both_sides_give_the_same_losses(precision: str, near: float, tmp_path: Path) -> None:
    settings = parse_overrides(EXACT) | {"runtime.precision": precision}
    trainer, plain = played(preset("debug", settings), tmp_path / "fast"), plainly(EXACT, tmp_path)
    # Pong hardly moves at first, and batch normalisation would enlarge what little there is, rounding included.
    trainer.replay.frames.random_(0, 256)
    batch, totals = trainer.replay.sample(), []
    for _ in range(3):
        fast, slow = (after(side, partial(side.train_world_model, batch)) for side in (trainer, plain))
        for name in ("total", *PARTS):  # what else is logged counts events, and one at the edge counts or does not
            assert fast[f"world_model/{name}"] == pytest.approx(slow[f"world_model/{name}"], rel=near), name
        totals.append(slow["world_model/total"])
    assert totals[1] < 0.99 * totals[0] and totals[2] < 0.99 * totals[1]  # so an update left out would be seen


def after(trainer: Trainer, work: Callable[[], Any]) -> dict[str, float]:
    """What a trainer logs of some work."""
    trainer.means.take()
    work()
    return trainer.means.take()


def test_both_sides_dream_the_same_and_learn_the_same_from_it(
    fast: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, settings = plainly(EXACT, tmp_path), fast.config.imagination
    critics = [fast.agent.actor_critic, plain.agent.actor_critic]
    for critic in critics:
        monkeypatch.setattr(critic, "act", lambda states, c=critic: c.policy(states).argmax(-1))
    real = fast.replay.sample(settings.starts, settings.context_length)
    context = fast.phases.encode(real.frames, real.actions)
    ours, theirs = (side.phases.imagine(context, fast.horizon) for side in (fast, plain))
    assert ours.actions.shape == (8, fast.horizon) and torch.equal(ours.actions, theirs.actions)
    torch.testing.assert_close(ours.states, theirs.states, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.rewards, theirs.rewards, rtol=1e-3, atol=1e-3)
    for _ in range(3):
        known = after(fast, partial(fast.train_actor_critic, ours))
        expected = after(plain, partial(plain.train_actor_critic, theirs))
        assert known == pytest.approx(expected, rel=1e-3, abs=1e-4)
    pairs = zip(*(critic.slow_critic.parameters() for critic in critics), strict=True)
    assert all(torch.allclose(one, other, rtol=0, atol=1e-5) for one, other in pairs)


def test_every_phase_changes_what_it_trains_and_nothing_else(fast: Trainer) -> None:
    parts, works = dict(fast.agent.named_children()), works_of(fast)
    for phase in PHASES:
        before = {name: next(part.parameters()).clone() for name, part in parts.items()}
        works[phase]()
        changed = {name for name, part in parts.items() if not torch.equal(next(part.parameters()), before[name])}
        assert changed == {"step": {"world_model", "actor_critic"}}.get(phase, {phase} & set(parts)), phase


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# The clock ------------------------------------------------------------------------------------------------------------


def test_ratios_are_formed_round_by_round(fast: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rounds of (fast, reference) after one of each that does not count; the machine is slow in the last round.
    spans = iter([9.0, 99.0, 1.0, 5.0, 2.0, 4.0, 10.0, 60.0])
    monkeypatch.setattr(timing, "seconds", lambda _, work: work() or next(spans))
    calls: list[str] = []
    works: dict[tuple[str, str], Callable[[], Any]] = {
        ("step", "fast"): lambda: calls.append("fast"),
        ("step", "reference"): lambda: calls.append("reference"),
    }
    lines: list[str] = []
    result = in_turns(fast.machine, works, 3, lines.append)
    # The fast side runs once more each round: its memory is there when the clock starts, as it is in training.
    assert calls == ["fast", "fast", "reference"] * 4
    row = benchmark.compare(*result.values())
    assert (row["fast_s"], row["reference_s"], row["ratio"]) == (2, 5, 5)
    assert row["ratios"] == [5, 2, 6]
    assert lines[2:4] == [
        "round 1 of 3: step, glamkit; about 5m24s left of these",
        "round 1 of 3: step, the plain way; about 4m59s left of these",
    ]
    assert lines[-1] == "round 3 of 3: step, the plain way; about 4s left of these"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in their own ways")
def test_freed_memory_is_kept_inside_and_given_back_after() -> None:
    def cleared(megabytes: int = 64) -> int:
        """Pages that the system had to clear for a tensor."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(megabytes * 2**18)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    device, pages = torch.device("cpu"), 2**26 // 4096
    with memory_kept(device):
        # Each smaller than the one before: some small thing may have come to lie in its place.
        assert min(cleared(size) for size in range(64, 54, -2)) < pages / 10
        held = resident()
    # Asked before the next tensor: a hole amid the heap takes it in, and stays then until memory is given back.
    assert resident() < held - 0.9 * 2**26
    # Large pages are cleared in one go, so that there may be few.
    assert cleared() > 10


def test_run_hours_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = "trainer.env_steps=148 trainer.update_every=2 imagination.begin=100 imagination.horizon_growth=10"
    trainer = played(preset("debug", f"{CPU} {changes}"), tmp_path)
    timed: list[tuple[int, bool]] = []

    def rated(work: Any) -> float:
        timed.append((trainer.step, work.args[1]))
        return 4.0 if work.args[1] else 0.5

    with monkeypatch.context() as patched:
        patched.setattr(timing, "rate", rated)
        # 52 steps with updates of the world model alone, 48 with all; an update for each two of them.
        assert timing.run_hours(trainer) * 3600 == pytest.approx(52 / 2 / 4 + 48 / 2 / 0.5)
    assert timed == [(74, True), (124, False)] and trainer.step == 48
    assert timing.run_hours(trainer) > 0 and trainer.step == 48


def test_a_longer_run_takes_longer_in_a_process_of_its_own() -> None:
    config = preset("debug", f"{CPU} runtime.compile=off", game="glamkit/Catch-v0")
    hours = timing.hours_apart(config, os.environ)
    assert 0 < hours < 0.1
    assert timing.hours(config.override({"trainer.env_steps": 9600})) > 10 * hours


def test_a_rate_does_not_count_the_first_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = iter([10.0, 10.0, 10.2, 10.4, 10.4]), list[int]()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    assert timing.rate(lambda: calls.append(1)) == pytest.approx(5.0) and len(calls) == 4
