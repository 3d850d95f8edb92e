"""Both sides of the benchmark compute the same, the clock adds up, and the gauges read what is there."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from glamkit.bench import hardware, timing
from glamkit.bench.timing import PHASES, Clock, TimedTrainer
from glamkit.config import parse_overrides, preset
from glamkit.runtime import Machine, memory_kept

CPU = "runtime.device=cpu runtime.kernel=glamkit"
# Probabilities for latents: no random numbers are drawn, so that the sides can be compared. A large epsilon: Adam makes
# whole steps of the tiniest gradients otherwise, and those are rounding errors. No free nats: every KL is trained.
EXACT = f"{CPU} runtime.precision=float32 world_model.latents=probabilities world_model_optimizer.epsilon=1e-3"
EXACT += " world_model_optimizer.learning_rate=1e-3 actor_critic_optimizer.learning_rate=1e-2"
EXACT += " world_model.free_nats=0 world_model.variation_free_nats=0"
LINUX = sys.platform == "linux"

PARTS = ("reconstruction", "reward", "termination", "dynamics", "representation", "variation")
PARTS += ("dynamics_kl", "variation_kl")


@pytest.fixture
def bench(tmp_path: Path) -> TimedTrainer:
    return TimedTrainer(preset("debug", EXACT), tmp_path)


# Both sides -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_three_updates_of_both_sides_give_the_same_losses(precision: str, near: float, tmp_path: Path) -> None:
    settings = parse_overrides(EXACT) | {"runtime.precision": precision}
    bench = TimedTrainer(preset("debug", settings), tmp_path)
    trainer, plain = bench.trainer, bench.plain
    # Pong hardly moves at first, and batch normalisation would enlarge what little there is, rounding included.
    trainer.replay.frames.random_(0, 256)
    batch, totals = trainer.replay.sample(), []
    for _ in range(3):
        trainer.means.take()
        trainer.train_world_model(batch)
        fast, slow = trainer.means.take(), plain.train_world_model(batch)
        for name in ("total", *PARTS):  # what else is logged counts events, and one at the edge counts or does not
            value = slow[name]
            assert fast[f"world_model/{name}"] == pytest.approx(float(value), rel=near), name
        totals.append(float(slow["total"]))
    assert totals[1] < 0.99 * totals[0] and totals[2] < 0.99 * totals[1]  # so an update left out would be seen


def test_both_sides_dream_the_same_and_learn_the_same_from_it(
    bench: TimedTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, plain = bench.trainer, bench.plain
    for critic in (trainer.agent.actor_critic, plain.actor_critic):
        monkeypatch.setattr(critic, "act", lambda states, c=critic: c.policy(states).argmax(-1))
    fast, slow = trainer.phases.imagine(bench.context, trainer.horizon), plain.imagine(bench.context)
    assert fast.actions.shape == (8, trainer.horizon) and torch.equal(fast.actions, slow.actions)
    torch.testing.assert_close(fast.states, slow.states, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.rewards, slow.rewards, rtol=1e-3, atol=1e-3)
    for _ in range(3):
        trainer.means.take()
        trainer.train_actor_critic(fast)
        known = trainer.means.take()
        for name, value in plain.train_actor_critic(slow).items():
            assert known[f"actor_critic/{name}"] == pytest.approx(float(value), rel=1e-3, abs=1e-4), name
    slow_critics = [critic.slow_critic.parameters() for critic in (trainer.agent.actor_critic, plain.actor_critic)]
    pairs = zip(*slow_critics, strict=True)
    assert all(torch.allclose(ours, theirs, rtol=0, atol=1e-5) for ours, theirs in pairs)


def test_the_reference_side_does_it_the_ordinary_way(bench: TimedTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, replay, requests = bench.plain, bench.trainer.replay, []
    for optimizer in (plain.world_model_optimizer, plain.actor_critic_optimizer):
        assert not optimizer.defaults["fused"]
    assert all(p.is_contiguous() and p.dtype == torch.float32 for p in plain.world_model.parameters())
    sample, embed = replay.sample, plain.world_model.embed
    monkeypatch.setattr(replay, "sample", lambda *sizes: requests.append(sizes) or sample(*sizes))
    monkeypatch.setattr(plain.world_model, "embed", lambda f: requests.append(f.is_contiguous()) or embed(f))
    before = [p.clone() for p in plain.world_model.parameters() if p.requires_grad]
    plain.update()
    settings = bench.trainer.config.imagination
    assert requests == [(), True, (settings.starts, settings.context_length), True]
    after = [p for p in plain.world_model.parameters() if p.requires_grad]
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    ours = dict(bench.trainer.agent.world_model.named_parameters())
    assert all(ours[name] is not p for name, p in plain.world_model.named_parameters())


def test_every_phase_changes_what_it_trains_and_nothing_else(bench: TimedTrainer) -> None:
    for side, owner in (("fast", bench.trainer.agent), ("reference", bench.plain)):
        parts: dict[str, torch.nn.Module] = {name: getattr(owner, name) for name in ("world_model", "actor_critic")}
        for phase in PHASES:
            work = getattr(bench, side)(phase)
            before = {name: next(part.parameters()).clone() for name, part in parts.items()}
            work()
            changed = {name for name, part in parts.items() if not torch.equal(next(part.parameters()), before[name])}
            assert changed == {"step": {"world_model", "actor_critic"}}.get(phase, {phase} & set(parts)), (side, phase)


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# The clock ------------------------------------------------------------------------------------------------------------


def test_ratios_are_formed_round_by_round(bench: TimedTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rounds of (fast, reference) after one of each that does not count; the machine is slow in the last round.
    spans = iter([9.0, 99.0, 1.0, 5.0, 2.0, 4.0, 10.0, 60.0])
    monkeypatch.setattr(hardware, "seconds", lambda _, work: work() or next(spans))
    calls: list[str] = []
    works: dict[tuple[str, str], Callable[[], Any]] = {
        ("step", "fast"): lambda: calls.append("fast"),
        ("step", "reference"): lambda: calls.append("reference"),
    }
    lines: list[str] = []
    clock = Clock(bench.trainer, works, lines.append)
    clock.warm_up("reference")
    clock.run(3)
    # The fast side runs once more each round: its memory is there when the clock starts, as it is in training.
    assert calls == ["fast", "reference"] + ["fast", "fast", "reference"] * 3
    row = clock.compare("step", "fast")
    assert (row["fast_s"], row["reference_s"], row["ratio"]) == (2, 5, 5)
    assert row["ratios"] == [5, 2, 6] and row["fast_each_s"] == [1, 2, 10]
    assert lines[2:4] == [
        "round 1 of 3: step fast; about 5m24s left of these",
        "round 1 of 3: step reference; about 4m59s left of these",
    ]
    assert lines[-1] == "round 3 of 3: step reference; about 4s left of these"


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
    # Asked before the next tensor: a hole amid the heap takes it in, and stays then until memory is lines back again.
    assert resident() < held - 0.9 * 2**26
    # Large pages are cleared in one go, so that there may be few.
    assert cleared() > 10


def test_run_hours_by_hand() -> None:
    config = preset(
        "debug",
        "trainer.env_steps=148 trainer.warmup=48 trainer.update_every=2 imagination.horizon=4 "
        "imagination.horizon_growth=50 imagination.horizon_growth_limit=2",
    )
    # Updates at the even steps 50 .. 148; horizon 5 up to step 99 (25 updates), 6 from step 100 on (25 updates).
    hours = timing.run_hours(config, {4: 1.0, 6: 3.0}, {"acting_and_game": 10.0, "game_alone": 16.0})
    assert hours * 3600 == pytest.approx(25 * 2.0 + 25 * 3.0 + 100 / 10 + 48 / 16)
    # Up to step 100, 26 updates train the world model alone, and actions are random.
    late = config.override(**{"imagination.begin": 100})
    hours = timing.run_hours(late, {4: 1.0, 6: 3.0, 0: 0.5}, {"acting_and_game": 10.0, "game_alone": 16.0})
    assert hours * 3600 == pytest.approx(26 * 0.5 + 24 * 3.0 + 48 / 10 + 100 / 16)


def test_a_step_is_timed_at_the_horizons_of_the_run(tmp_path: Path) -> None:
    changes = "trainer.env_steps=148 imagination.horizon_growth=10 imagination.horizon_growth_limit=6"
    trainer = TimedTrainer(preset("debug", f"{CPU} {changes}"), tmp_path).trainer
    step, lines = trainer.step, list[str]()
    costs = timing.step_costs(trainer, 1, lines.append)
    assert list(costs) == [4, 7, 10] and min(costs.values()) > 0
    late = preset("debug", f"{CPU} {changes} imagination.begin=60")
    both = timing.step_costs(TimedTrainer(late, tmp_path / "late").trainer, 2, lines.append)
    assert list(both) == [4, 7, 10, 0] and 0 < both[0] < both[10]
    assert trainer.step == step and lines[-1] == "timing steps as configured, at horizon 10, 3 of 3"


# Gauges ---------------------------------------------------------------------------------------------------------------


def test_operations_of_a_product() -> None:
    left, right = torch.randn(3, 5), torch.randn(5, 7, requires_grad=True)
    assert hardware.flops(lambda: left @ right) == 2 * 3 * 5 * 7
    assert hardware.flops(lambda: (left @ right).sum().backward()) == 2 * (2 * 3 * 5 * 7)


def test_acting_is_timed_where_actions_are_not_random_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = preset("debug", f"{CPU} trainer.env_steps=900001 imagination.begin=900000")
    trainer, acted = TimedTrainer(late, tmp_path).trainer, list[int]()
    usual = trainer.phases.player.act
    monkeypatch.setattr(trainer.phases.player, "act", lambda *given: acted.append(trainer.step) or usual(*given))
    weight = next(trainer.agent.world_model.encoder.parameters())
    before = weight._version
    speeds = hardware.game_speeds(trainer, 0.05)
    assert acted[0] == 900_000 and min(speeds.values()) > 0
    assert weight._version - before == len(acted), "what was encoded before an update is of no use after it"


def test_the_matrix_rate_of_each_precision() -> None:
    rates = hardware.matrix_rates(Machine(preset("debug", f"{CPU} runtime.precision=bfloat16").runtime), 64, 2)
    assert list(rates) == ["float32", "bfloat16"] and min(rates.values()) > 0
    assert list(hardware.matrix_rates(Machine(preset("debug", CPU).runtime), 64, 2)) == ["float32"]


@pytest.mark.skipif(not LINUX, reason="other systems do not say how much memory a phase took")
def test_the_peak_is_forgotten_between_phases() -> None:
    peak, readings = hardware.PeakMemory(torch.device("cpu")), []
    for megabytes in (0, 400, 0):
        peak.begin()
        torch.ones(megabytes * 250_000)
        readings.append(peak.read() or 0)
    assert readings[1] - readings[0] > 380e6 and readings[1] - readings[2] > 380e6


def test_a_rate_does_not_count_the_first_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.0, 11.0, 12.0, 12.0])
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(clock))
    work = iter([100, 50, 3, 5])
    assert hardware.rate(lambda: next(work), 2.0) == 4.0
