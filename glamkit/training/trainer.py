"""The training loop (GLAM, Algorithm 1): collect, train the world model, imagine, train the actor-critic."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from glamkit.config import Config
from glamkit.envs.registry import make_env
from glamkit.errors import GlamkitError, StoppedError, reason
from glamkit.models.agent import Agent, RecentSteps
from glamkit.models.world_model import Observed
from glamkit.notebook import Tell
from glamkit.runs import tensorboard
from glamkit.runs.files import remove
from glamkit.runs.folder import Run, resolve
from glamkit.runs.log import Log, Means
from glamkit.runs.provenance import Provenance
from glamkit.runs.session import Session
from glamkit.runtime import Machine, memory_kept, random_state, seed_everything, set_random_state
from glamkit.training import checkpoint, diagnostics, evaluation, guards
from glamkit.training.accelerate import accelerate, left_out
from glamkit.training.replay import Replay
from glamkit.training.updates import Updates, adam
from glamkit.types import Batch, Rollout, choose_contexts


class Event(NamedTuple):
    """Something to tell of.

    Its kind is ``step``, ``log``, ``episode``, ``evaluation``, ``crash``, ``saved``, ``stopped`` or ``done``.
    """

    kind: str
    step: int
    metrics: dict[str, float]


class Trainer:
    """A run in progress: iterate to train, stop whenever, iterate again to go on.

    The end of a run is the event ``done``. While it is iterated in the main thread, Ctrl+C and SIGTERM end the loop
    after the present step, with an event ``stopped``: a script that has more to do asks for that kind.

    It seeds Python, NumPy and torch of this process. Each loop goes on where this trainer's last one ended, but two
    trainers that are stepped in turn share one stream of random numbers.

    Args:
        config: the experiment.
        run_dir: its folder, relative to the checkout if any; one that holds a run of the same config is resumed.
        resume: False refuses a folder that already holds a run.

    Raises:
        GlamkitError: the folder holds something else, is in use or read-only, the game is unknown, or memory is short.
    """

    def __init__(self, config: Config, run_dir: str | Path, resume: bool = True) -> None:
        self.config, self.run, off = config, Run(resolve(run_dir)), left_out(config.runtime.accelerate)
        if config.runtime.tensorboard:
            tensorboard.writer_class()  # refused before any work where it is not installed
        self.machine = Machine(config.runtime, config.trainer.updates)
        evaluation.check_protocol(config)
        guards.check_memory(config, self.machine)
        self.run.check(config, resume)  # after the rest, as it makes the folder
        self.env = make_env(config.env)
        device, image_size = self.machine.device, config.env.image_size
        seed_everything(config.trainer.seed)
        self.agent = Agent.build(config, self.env.num_actions).to(device).eval()
        self.agent.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
        self.replay = Replay(config.replay, image_size, device, config.trainer.seed)
        self.kernel = accelerate(self.agent, device, off, self.machine.kernel)
        self.phases = Updates(config, self.agent, self.machine, off)
        self.optimizers = {
            "world_model": adam(self.agent.world_model, config.world_model_optimizer),
            "actor_critic": adam(self.agent.actor_critic, config.actor_critic_optimizer),
        }
        self.past = RecentSteps(config.agent, 1, image_size, device)
        self.means, self.log = Means(), Log(self.run.log_file)
        self.step, self.stored = 0, 0  # agent steps; those in the replay's parts
        self.saved = max(checkpoint.steps(self.run.checkpoints), default=0)  # agent steps of the newest checkpoint
        self.whole = True  # whether the last step came to its end; half a step must not be saved
        self.bin_range = guards.BinRange(config)
        self.crashes = guards.Crashes(config.env.game, config.runtime.env_crashes)
        self.episode, self.frame = {"return": 0.0, "length": 0}, np.zeros((image_size, image_size, 3), np.uint8)
        self.clock, self.snapshot_steps = (0.0, 0), checkpoint.snapshot_steps(config.trainer)
        self.tell: Tell | None = None  # is given lines about an evaluation amid training
        self.session = Session(self.run, config.runtime.max_hours, lambda: (self.step, self.saved))
        described = {**self.machine.describe(), "kernel": self.kernel}
        with self.session.opening():
            self.run.begin(config, {key: value for key, value in described.items() if key != "host"})
            if not checkpoint.resume(self):
                self.log.cut(0)  # lines of a process that was killed before its first checkpoint are of no use
                try:
                    self.new_game(config.trainer.seed)
                except GlamkitError as error:
                    self.session.tell("failed", reason(error))
                    raise
            self.provenance = Provenance(self.run, config, self.step, described)
            self.mirror = tensorboard.TensorBoardLog(self.run) if config.runtime.tensorboard else None
        self.random = random_state()  # other trainers may be made before this one goes on

    # Algorithm 1 ------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Event]:
        """Trains until the run is complete or stopped; between two events everything may be looked at or saved."""
        with self.session.turn(), memory_kept(self.machine.device), self.own_random_numbers():
            self.refuse_half()
            self.clock = (time.perf_counter(), self.step)
            if self.lacks_evaluation and (played := self.evaluate()):
                yield from [*played, self.save()]  # or the next trainer would cut its line off the log
            while self.step < self.config.trainer.env_steps and not self.session.stops.requested():
                yield from self.advance()
            metrics = self.save().metrics if self.saved != self.step else {}
            if self.mirror:
                self.mirror.follow()
            left = self.step < self.config.trainer.env_steps or self.lacks_evaluation
            state = "stopped" if left else "done"
            self.session.end(state)
            yield Event(state, self.step, metrics)

    @contextlib.contextmanager
    def own_random_numbers(self) -> Iterator[None]:
        """Context in which random numbers go on where this trainer's last loop left them."""
        set_random_state(self.random)
        try:
            yield
        finally:
            self.random = random_state()

    def advance(self) -> list[Event]:
        """One agent step and, when it is due, one update of everything."""
        self.whole = False
        settings, events = self.config.trainer, self.collect()
        if self.step > settings.warmup and self.step % settings.update_every == 0:
            batch = self.replay.sample()
            observed = self.train_world_model(batch)
            if self.step > self.config.imagination.begin:
                self.train_actor_critic(self.imagine(batch, observed))
        if self.step % settings.log_every == 0:
            events.append(self.write_log())
        if self.config.evaluation.every and self.step % self.config.evaluation.every == 0:
            events += self.evaluate()
        if self.step in self.snapshot_steps:
            guards.check_weights(self.agent)
        self.whole = True  # what follows only writes what there is, so after a full disk this trainer may go on
        if self.step in self.snapshot_steps:
            checkpoint.save_snapshot(self.run.snapshots, self.step, self.agent)
        if self.step % settings.save_every == 0:
            events.append(self.save())
        return [*events, Event("step", self.step, {})]

    def collect(self) -> list[Event]:
        """One step in the real game: act, store, and start anew when it is over."""
        events, actions = list[Event](), self.choose()
        while (outcome := self.crashes.attempt(self.env.step, int(actions))) is None:
            events.append(self.restart_game())
            actions = self.choose()
        self.replay.add(self.frame, int(actions), outcome.reward, outcome.terminated)
        self.bin_range.check("world_model", outcome.reward)
        self.past.add(self.frame[None], actions, np.array([outcome.ended]))
        self.step += 1
        self.episode["return"] += outcome.reward
        self.episode["length"] += 1
        self.frame = outcome.observation
        if outcome.ended:
            metrics = {f"episode/{name}": float(value) for name, value in self.episode.items()}
            self.log.write(self.step, "episode", metrics)
            self.episode = {"return": 0.0, "length": 0}
            events += [Event("episode", self.step, metrics), *self.new_game()]
        return events

    def choose(self) -> Tensor:
        """The action (1,) for the present frame."""
        if self.step < self.config.random_steps:
            return torch.randint(self.env.num_actions, (1,), device=self.machine.device)
        return self.phases.player.act(self.frame[None], self.past)

    def train_world_model(self, batch: Batch) -> Observed:
        """One update of the world model; returns what it saw."""
        observed, metrics, held = self.phases.learn_world(batch)
        self.optimizer_step("world_model", metrics)
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

    @property
    def horizon(self) -> int:
        """H now: longer rollouts as the world model improves."""
        settings = self.config.imagination
        return settings.horizon + min(self.step // settings.horizon_growth, settings.horizon_growth_limit)

    def train_actor_critic(self, rollout: Rollout) -> None:
        """One update of actor and critic; then the slow critic moves."""
        progress = torch.full((), self.config.trainer.progress(self.step), device=self.machine.device)
        self.optimizer_step("actor_critic", self.phases.learn_behaviour(rollout, progress))
        self.agent.actor_critic.move_slow_critic()

    def optimizer_step(self, name: str, metrics: dict[str, Tensor]) -> None:
        """One step down the gradient that was left in the model of that name; `metrics` are of its loss."""
        optimizer, settings = self.optimizers[name], getattr(self.config, f"{name}_optimizer")
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(self.config.trainer.progress(self.step))
        optimizer.step()
        self.means.add(metrics, name)

    # The game ---------------------------------------------------------------------------------------------------------

    def new_game(self, seed: int | None = None) -> list[Event]:
        """Resets the game; without a seed, the one given at the run's start goes on."""
        frame = self.crashes.attempt(self.env.reset, seed)
        if frame is None:
            return [self.restart_game()]
        self.frame = frame
        return []

    def restart_game(self) -> Event:
        """A new game in place of one that crashed or did not come back; its unfinished episode is forgotten."""
        frame, env = None, self.env
        while frame is None:
            with contextlib.suppress(Exception):  # it may be beyond closing
                env.close()
            env = make_env(self.config.env)
            # Another seed at each crash: with the same it might crash again.
            frame = self.crashes.attempt(env.reset, self.config.trainer.seed + self.step + self.crashes.count)
        self.env, self.frame = env, frame
        self.episode = {"return": 0.0, "length": 0}
        self.past.forget()
        return Event("crash", self.step, {"crashes": float(self.crashes.count)})

    # Log, evaluate, save ---------------------------------------------------------------------------------------------

    def write_log(self) -> Event:
        """Means since the last line; speed is over the same steps."""
        self.machine.synchronize()
        now, (before, at) = time.perf_counter(), self.clock
        metrics = self.means.take()
        guards.check_losses(self.step, metrics)
        metrics |= diagnostics.ratios(metrics)
        spread = self.agent.actor_critic.range
        self.bin_range.check("actor_critic", max(float(spread.low), float(spread.high), key=abs))
        metrics["time/steps_per_second"] = (self.step - at) / max(now - before, 1e-9)
        self.clock = (now, self.step)
        self.log.write(self.step, "log", metrics)
        if self.mirror:
            self.mirror.follow()
        return Event("log", self.step, metrics)

    def evaluate(self) -> list[Event]:
        """Plays whole episodes with the present policy; training goes on as if it had not.

        One that is stopped is no event: the loop ends, and when it goes on the evaluation is played from its start.
        """
        started, (before, at) = time.perf_counter(), self.clock
        file, about = self.run.evaluation_at(self.step), (self.agent, self.config, self.machine, self.step)
        # Not by the time limit: an evaluation that takes longer would be begun again in every session.
        stop = partial(self.session.stops.requested, limit=False)
        try:
            report = evaluation.evaluate(*about, stop=stop, tell=self.tell, file=file)
        except StoppedError:
            remove(file)  # of before the run went back to an older checkpoint
            return []
        metrics = evaluation.summary(report)
        self.log.write(self.step, "evaluation", metrics)
        self.clock = (before + time.perf_counter() - started, at)  # the speed is that of training
        return [Event("evaluation", self.step, metrics)]

    @property
    def lacks_evaluation(self) -> bool:
        """Whether the evaluation that is due after the present step was stopped before its end."""
        every = self.config.evaluation.every
        return bool(every and self.step and self.step % every == 0) and not self.run.evaluation_at(self.step).exists()

    def save(self) -> Event:
        """Writes everything from which the run can go on.

        Raises:
            GlamkitError: it is spoilt or half a step, the disk is full, or a newer trainer has the run.
        """
        started = time.perf_counter()
        self.session.lock.check()  # where file locks do nothing, nobody else asks
        self.refuse_half()
        guards.check_weights(self.agent)
        self.log.sync()
        self.stored = checkpoint.save_replay(self.run.replay, self.replay, self.stored)
        checkpoint.save(self.run.checkpoints, self.step, checkpoint.gather(self))
        self.saved = self.step
        self.session.tell("running")
        self.provenance.write(self.step)
        return Event("saved", self.step, {"time/save_seconds": time.perf_counter() - started})

    def refuse_half(self) -> None:
        """Refuses to go on from a step that was left half-way, or to save it."""
        if not self.whole or self.step != self.replay.count:
            raise GlamkitError(
                f"the last step of {self.run.folder} was left half-way; make the trainer again (in a notebook, run the "
                f"cell that makes it) to go on from what was saved."
            )
