"""The training loop (GLAM, Algorithm 1): collect, train the world model, imagine, train the actor-critic."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glamkit.config import Config
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError, reason
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.agent import Agent, RecentSteps
from glamkit.models.world_model import Observed, WorldModel
from glamkit.notebook import Tell
from glamkit.runs import tensorboard
from glamkit.runs.files import remove
from glamkit.runs.folder import Run, resolve
from glamkit.runs.log import Log, Means
from glamkit.runs.provenance import Provenance
from glamkit.runs.session import Session
from glamkit.runtime import Machine, memory_kept, seed_everything
from glamkit.training import checkpoint, diagnostics, evaluation, guards, snapshots, trainer_state
from glamkit.training.accelerate import accelerate, left_out
from glamkit.training.replay import Replay
from glamkit.training.trainer_state import Event
from glamkit.training.unfinished import EvaluationStoppedError, is_unfinished
from glamkit.training.updates import Gradient, Updates, adam
from glamkit.types import Batch, Rollout, choose_contexts

logger = logging.getLogger(__name__)


class Trainer:
    """A run in progress: iterate to train, stop whenever, iterate again to go on.

    Args:
        config: the experiment.
        run_dir: its folder, relative to the checkout if any; one that holds a run of the same config is resumed.
        resume: False refuses a folder that already holds a run.

    Raises:
        GlamkitError: the folder holds something else, is in use or read-only, the game is unknown, or memory is short.
    """

    def __init__(self, config: Config, run_dir: str | Path, resume: bool = True) -> None:
        self.config, self.run, off = config, Run(resolve(run_dir)), left_out(config.runtime.accelerate)
        tensorboard.require(config.runtime.tensorboard)
        evaluation.check_protocol(config)
        guards.note_idle(config)
        self.env = make_env(config.env)
        self.run.check(config, resume)
        self.machine = Machine(config.runtime, config.trainer.updates)
        guards.check_memory(config, self.env.num_actions, self.machine)
        device, image_size, actions = self.machine.device, config.env.image_size, self.env.num_actions
        seed_everything(config.trainer.seed)
        with guards.explained(config, self.machine):
            world_model = WorldModel(config.world_model, actions)
            actor_critic = ActorCritic(config.actor_critic, world_model.features, actions)
            self.agent = Agent(config.agent, world_model, actor_critic).to(device).eval()
            self.agent.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
            self.replay = Replay(config.replay, image_size, device, config.trainer.seed)
        self.kernel = accelerate(self.agent, device, off, self.machine.kernel)
        self.phases = Updates(config, self.agent, self.machine, off)
        self.optimizers = {
            "world_model": adam(world_model, config.world_model_optimizer),
            "actor_critic": adam(actor_critic, config.actor_critic_optimizer),
        }
        self.past = RecentSteps(config.agent, 1, image_size, device)
        self.means, self.log = Means(), Log(self.run.log_file)
        self.step, self.stored = 0, 0  # agent steps; those in the replay's parts
        self.saved = max(checkpoint.steps(self.run.checkpoints), default=0)  # agent steps of the newest checkpoint
        self.whole = True  # whether the last step came to its end; half a step must not be saved
        self.bin_range, self.crashes = guards.BinRange(config, self.means), guards.Crashes(config.runtime.env_crashes)
        self.episode, self.frame = {"return": 0.0, "length": 0}, np.zeros((image_size, image_size, 3), np.uint8)
        self.clock, self.snapshot_steps = (0.0, 0), snapshots.steps_of(config.trainer)
        self.guard = guards.Guard(self.replay, self.run.folder)
        self.tell: Tell | None = None  # is given lines about an evaluation amid training
        self.session = Session(self.run, config.runtime.max_hours, lambda: (self.step, self.saved))
        described = {**self.machine.describe(), "kernel": self.kernel}
        with self.session.opening():
            self.run.begin(config, described)
            if not trainer_state.resume(self):
                self.log.cut(0)  # lines of a process that was killed before its first checkpoint are of no use
                self.first_game()
            self.provenance = Provenance(self.run, config, self.step, device, described)
            self.mirror = tensorboard.TensorBoardLog(self.run, config.runtime.tensorboard)

    # Algorithm 1 ------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Event]:
        """Trains until the run is complete or stopped; between two events everything may be looked at or saved."""
        explained, kept = guards.explained(self.config, self.machine), memory_kept(self.machine.device)
        with self.session.turn(), explained, kept:
            self.guard.check()
            if not self.whole:
                trainer_state.roll_back(self)
            self.clock = (time.perf_counter(), self.step)
            if is_unfinished(self.run, self.config, self.step):
                yield from self.evaluate()
            while self.step < self.config.trainer.env_steps and not self.session.stops.requested():
                yield from self.whole_step()
            yield self.finish()

    def whole_step(self) -> list[Event]:
        """`advance`, and a note of whether it came to its end."""
        try:
            return self.advance()
        except BaseException:
            self.whole = False
            raise

    def advance(self) -> list[Event]:
        """One agent step and, when it is due, one update of everything."""
        settings, events = self.config.trainer, self.collect()
        if self.step > settings.warmup and self.step % settings.update_every == 0:
            batch = self.replay.sample()
            observed = self.train_world_model(batch)
            if self.step > self.config.imagination.begin:
                self.train_actor_critic(self.imagine(batch, observed))
        if self.step in self.snapshot_steps:
            snapshots.save(self.run.snapshots, self.step, self.agent)
        if self.step % settings.log_every == 0:
            events.append(self.write_log())
        if self.config.evaluation.every and self.step % self.config.evaluation.every == 0:
            events += self.evaluate()
        if self.step % settings.save_every == 0:
            events.append(self.save())
        return [*events, Event("step", self.step, {})]

    def collect(self) -> list[Event]:
        """One step in the real game: act, store, and start anew when it is over."""
        if self.step < self.config.random_steps:
            actions = torch.randint(self.env.num_actions, (1,), device=self.machine.device)
        else:
            actions = self.phases.player.act(self.frame[None], self.past)
        action = int(actions)
        outcome = self.crashes.attempt(self.env, action)
        if outcome is None:
            return [self.restart_game(), *self.collect()]
        self.replay.add(self.frame, action, outcome.reward, outcome.terminated)
        self.bin_range.add(outcome.reward, outcome.terminated, outcome.ended)
        self.past.add(self.frame[None], actions, np.array([outcome.ended]))
        self.step += 1
        self.episode["return"] += outcome.reward
        self.episode["length"] += 1
        self.frame = outcome.observation
        return self.finish_episode() if outcome.ended else []

    def finish_episode(self) -> list[Event]:
        """Logs the episode and resets the game; the seed given at the run's start goes on."""
        metrics = {f"episode/{name}": float(value) for name, value in self.episode.items()}
        self.log.write(self.step, "episode", metrics)
        self.episode, event = {"return": 0.0, "length": 0}, Event("episode", self.step, metrics)
        frame = self.crashes.reset(self.env)
        if frame is None:
            return [event, self.restart_game()]
        self.frame = frame
        return [event]

    def first_game(self) -> None:
        """Starts the run's first game; one that cannot be played leaves its cause in status.json."""
        try:
            frame = self.crashes.reset(self.env, self.config.trainer.seed)
            if frame is None:
                self.restart_game()
            else:
                self.frame = frame
        except GlamkitError as error:
            self.session.tell("failed", reason(error))
            raise

    def train_world_model(self, batch: Batch) -> Observed:
        """One update of the world model; returns what it saw."""
        observed, gradient, held = self.phases.learn_world(batch)
        self.optimizer_step("world_model", gradient)
        self.means.add(held, "replay")
        return observed

    def imagine(self, batch: Batch, observed: Observed) -> Rollout:
        """Imagined rollouts from real contexts, following the policy."""
        settings = self.config.imagination
        if settings.contexts == "batch":
            context = choose_contexts(batch, observed.latent, settings.starts, settings.context_length)
        else:
            real = self.replay.sample(settings.starts, settings.context_length)
            context = self.phases.encode(real.frames, real.actions)
        rollout = self.phases.imagine(context, self.horizon)
        rewards, ends = rollout.rewards.mean(), rollout.terminations.mean()
        self.means.add({"reward": rewards, "termination": ends, "horizon": self.horizon}, "imagination")
        return rollout

    def train_actor_critic(self, rollout: Rollout) -> None:
        """One update of actor and critic; then the slow critic moves."""
        progress = torch.full((), self.config.trainer.progress(self.step), device=self.machine.device)
        self.optimizer_step("actor_critic", self.phases.learn_behaviour(rollout, progress))
        self.agent.actor_critic.move_slow_critic()

    def optimizer_step(self, name: str, gradient: Gradient) -> None:
        """One step down the gradient that was left in the model of that name."""
        self.guard.note(self.step, name, gradient.loss, gradient.norm)
        optimizer, settings = self.optimizers[name], getattr(self.config, f"{name}_optimizer")
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(self.config.trainer.progress(self.step))
        optimizer.step()
        self.means.add(gradient.metrics, name)

    @property
    def horizon(self) -> int:
        """H now: longer rollouts as the world model improves."""
        settings = self.config.imagination
        return settings.horizon + min(self.step // settings.horizon_growth, settings.horizon_growth_limit)

    # Log, save, stop, resume ------------------------------------------------------------------------------------------

    def write_log(self) -> Event:
        """Means since the last line; speed is over the same steps."""
        self.machine.synchronize()
        self.guard.check()
        now, (before, at) = time.perf_counter(), self.clock
        metrics = self.means.take()
        metrics |= diagnostics.ratios(metrics)
        spread = self.agent.actor_critic.range
        largest = max(float(spread.low), float(spread.high), key=abs)
        if self.bin_range.beyond("imagined returns", largest, "actor_critic"):
            metrics["actor_critic/return_beyond"] = abs(largest)
        metrics["time/steps_per_second"] = (self.step - at) / max(now - before, 1e-9)
        self.clock = (now, self.step)
        self.log.write(self.step, "log", metrics)
        self.mirror.follow()
        return Event("log", self.step, metrics)

    def evaluate(self) -> list[Event]:
        """Plays whole episodes with the present policy; training goes on as if it had not.

        One that is stopped is no event: the loop ends, and when it goes on the rest is played.
        """
        started, (before, at) = time.perf_counter(), self.clock
        about = self.agent, self.config, self.machine, self.step
        try:
            stop, file = self.session.stops.requested, self.run.evaluation_at(self.step)
            report = evaluation.evaluate(*about, run=self.run, stop=stop, tell=self.tell, file=file)
        except EvaluationStoppedError:
            remove(file)  # of before the run went back to an older checkpoint
            return []
        except GlamkitError:
            self.save()  # the game is at fault, and what was trained is good
            raise
        finally:
            if self.env.released:
                self.reopen_game()
        metrics = evaluation.summary(report)
        self.log.write(self.step, "evaluation", metrics)
        self.clock = (before + time.perf_counter() - started, at)  # the speed is that of training
        return [Event("evaluation", self.step, metrics)]

    def save(self) -> Event:
        """Writes everything from which the run can go on.

        Raises:
            GlamkitError: what would be written is spoilt or half a step, or the disk is full; nothing was replaced.
        """
        started = time.perf_counter()
        self.guard.check(self.agent)
        if not self.whole:
            raise GlamkitError(f"{self.run.folder} is not saved: its last step was left half-way; iterate to go on.")
        self.log.sync()
        state = self.state_dict()
        try:
            trainer_state.check(self, state)
        except ValueError as error:
            raise GlamkitError(f"{self.run.folder} is not saved: {error}; make the trainer again to go on.") from None
        self.stored = checkpoint.save_replay(self.run.replay, self.replay, self.stored)
        checkpoint.save(self.run.checkpoints, self.step, state)
        self.saved = self.step
        self.session.tell("running")
        self.provenance.write(self.step)
        return Event("saved", self.step, {"time/save_seconds": time.perf_counter() - started})

    def finish(self) -> Event:
        """The end of the loop: what is not saved yet is saved. With an evaluation left to play it is stopped."""
        metrics = self.save().metrics if self.saved != self.step else {}
        left = self.step < self.config.trainer.env_steps or is_unfinished(self.run, self.config, self.step)
        self.session.end(state := "stopped" if left else "done")
        return Event(state, self.step, metrics)

    @property
    def stop_requested(self) -> bool:
        """Whether the loop is to end after the present step; may be set by whoever runs it."""
        return bool(self.session.stops.reason)

    @stop_requested.setter
    def stop_requested(self, wanted: bool) -> None:
        self.session.stops.reason = (self.session.stops.reason or "asked to by its program") if wanted else ""

    def state_dict(self) -> dict[str, Any]:
        """All of the run's state but the stored steps."""
        return trainer_state.gather(self)

    def reopen_game(self, state: dict[str, Any] | None = None) -> None:
        """Puts the game back to a state, or to the present one; where it does not come back, a new one is started."""
        try:
            self.env.restore(state or self.env.clone())
        except Exception as error:  # a game with randomness of its own, or whatever a stranger's game raises
            logger.warning("%s. A new episode is started.", reason(error))
            self.restart_game()

    def restart_game(self) -> Event:
        """A new game in place of one that crashed or did not come back; its unfinished episode is forgotten."""
        if self.crashes.too_many and self.step:
            self.save()
        self.crashes.check(self.env)
        self.env, self.frame = self.crashes.restart(self.env, self.config.trainer.seed + self.step)
        self.episode, self.bin_range.steps = {"return": 0.0, "length": 0}, []
        self.past.forget()
        return Event("crash", self.step, {"crashes": float(self.crashes.count)})
