"""Both sides of the benchmark compute the same, the clock adds up, and the gauges read what is there."""

from __future__ import annotations

import platform
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from glamkit.bench import hardware, timing
from glamkit.bench.timing import PHASES, PLAIN, Clock, TimedTrainer
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
def bench(tmp_path: Path) -> TimedTrainer:
    return TimedTrainer(preset("debug", EXACT), tmp_path / "fast")


def plainly(precise: str, folder: Path) -> Trainer:
    """The reference side."""
    return TimedTrainer(preset("debug", precise).override(PLAIN), folder / "plain").trainer


# Both sides -----------------------------------------------------------------------------------------------------------


def test_both_sides_start_from_the_same_weights_and_steps(bench: TimedTrainer, tmp_path: Path) -> None:
    fast, plain = bench.trainer, plainly(EXACT, tmp_path)
    ours, theirs = fast.agent.state_dict(), plain.agent.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(*parts) for parts in zip(fast.replay.sample(), plain.replay.sample(), strict=True))
    assert {type(part) for part in plain.agent.modules()} == {plain_class(part) for part in plain.agent.modules()}
    assert plain.machine.precision == torch.float32
    assert (plain.machine.compiles, plain.machine.recorder, plain.kernel) == (False, None, "glamkit")


@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_three_updates_of_both_sides_give_the_same_losses(precision: str, near: float, tmp_path: Path) -> None:
    settings = parse_overrides(EXACT) | {"runtime.precision": precision}
    trainer, plain = TimedTrainer(preset("debug", settings), tmp_path / "fast").trainer, plainly(EXACT, tmp_path)
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
    bench: TimedTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, plain = bench.trainer, plainly(EXACT, tmp_path)
    critics = [trainer.agent.actor_critic, plain.agent.actor_critic]
    for critic in critics:
        monkeypatch.setattr(critic, "act", lambda states, c=critic: c.policy(states).argmax(-1))
    fast, slow = (side.phases.imagine(bench.context, trainer.horizon) for side in (trainer, plain))
    assert fast.actions.shape == (8, trainer.horizon) and torch.equal(fast.actions, slow.actions)
    torch.testing.assert_close(fast.states, slow.states, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.rewards, slow.rewards, rtol=1e-3, atol=1e-3)
    for _ in range(3):
        known = after(trainer, partial(trainer.train_actor_critic, fast))
        expected = after(plain, partial(plain.train_actor_critic, slow))
        assert known == pytest.approx(expected, rel=1e-3, abs=1e-4)
    pairs = zip(*(critic.slow_critic.parameters() for critic in critics), strict=True)
    assert all(torch.allclose(ours, theirs, rtol=0, atol=1e-5) for ours, theirs in pairs)


def test_every_phase_changes_what_it_trains_and_nothing_else(bench: TimedTrainer) -> None:
    parts = dict(bench.trainer.agent.named_children())
    for phase in PHASES:
        work = bench.work(phase)
        before = {name: next(part.parameters()).clone() for name, part in parts.items()}
        work()
        changed = {name for name, part in parts.items() if not torch.equal(next(part.parameters()), before[name])}
        assert changed == {"step": {"world_model", "actor_critic"}}.get(phase, {phase} & set(parts)), phase


def test_a_side_s_memory_is_that_of_its_own_trainer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made, stepped = list[Any](), list[Any]()
    monkeypatch.setattr(timing, "Trainer", lambda *given: made.append(Trainer(*given)) or made[-1])
    usual = timing.update
    monkeypatch.setattr(timing, "update", lambda trainer: stepped.append(trainer) or usual(trainer))
    assert timing.peak(preset("debug", CPU).override(PLAIN)) == hardware.peak_memory(torch.device("cpu"))
    assert len(made) == 1 and stepped == 2 * made and made[0].config.runtime.accelerate == "off"


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
    clock.warm_up()
    clock.run(3)
    # The fast side runs once more each round: its memory is there when the clock starts, as it is in training.
    assert calls == ["fast", "reference"] + ["fast", "fast", "reference"] * 3
    row = clock.compare("step", "fast")
    assert (row["fast_s"], row["reference_s"], row["ratio"]) == (2, 5, 5)
    assert row["ratios"] == [5, 2, 6] and row["fast_each_s"] == [1, 2, 10]
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
    late = config.override({"imagination.begin": 100})
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


def test_the_peak_is_read_where_linux_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "STATUS", tmp_path / "status")
    assert hardware.peak_memory(torch.device("cpu")) is None
    (tmp_path / "status").write_text("VmPeak:\t  999 kB\nVmHWM:\t  123 kB\n")
    assert hardware.peak_memory(torch.device("cpu")) == 123 * 1024


def test_a_rate_does_not_count_the_first_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = iter([10.0, 10.0, 11.0, 12.0, 12.0]), list[int]()
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(clock))
    assert hardware.rate(lambda: calls.append(1), 2.0) == 1.0 and len(calls) == 4
