"""Compares what glamkit computes with what the released model computes: ``glamkit parity FILE...``.

A reference file holds outputs of the released code for made-up weights and inputs, which are built from a seed. This
module builds the same weights and inputs, computes our outputs and compares them array by array.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from glamkit.config import Config, WorldModelConfig
from glamkit.errors import GlamkitError, reason
from glamkit.models.released import WORLD_MODEL_NAMES, import_released, import_released_agent, released_name
from glamkit.models.world_model import WorldModel
from glamkit.ops.functional import lambda_return, two_hot_mean
from glamkit.training.accelerate import accelerate
from glamkit.training.updates import adam, backward_and_clip
from glamkit.types import Batch, Rollout

Values = dict[str, Tensor]
BY_DESIGN = "differs by design"

# First match wins: pattern of an array's name, how its difference is measured, and the most that is allowed.
# `scaled` is the absolute difference over the array's largest value, or over 1 where all are smaller.
# Weights move by some 3e-5 per update, so what is left `after` three of them is held to about a hundredth of that.
TOLERANCES = [
    (r"eval/(train_forward|inference_forward)\..*", "absolute", 1e-3),
    (r"eval/(embedding|reconstruction|posterior_logits|variation_posterior_logits)", "scaled", 1e-4),
    (r"eval/.*", "scaled", 1e-3),
    (r"train/loss\..*", "relative", 1e-5),
    (r"train/grad_norm/.*", "relative", 1e-2),
    (r"three_updates/.*", "relative", 1e-4),
    (r"after/.*", "absolute", 1e-6),
    (r".*", "scaled", 1e-4),
]


class Row(NamedTuple):
    """One array: largest errors, tolerance and verdict, which is ok, `BY_DESIGN` or what is wrong."""

    name: str
    absolute: float
    relative: float
    tolerance: str
    verdict: str

    @property
    def fails(self) -> bool:
        """Whether it is beyond its tolerance or cannot be compared."""
        return self.verdict not in ("ok", BY_DESIGN)

    def __str__(self) -> str:
        return f"{self.name:<62} {self.absolute:9.2e} {self.relative:9.2e}  {self.tolerance:<14} {self.verdict}"


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a reference file says of its weights and inputs, and the released outputs."""
    with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name].astype(np.float64) for name in stored.files if name != "meta"}
        return json.loads(stored["meta"].tobytes()), arrays


def parameters(meta: dict[str, Any]) -> Values:
    """The made-up weights, by the released code's names. Each depends on the seed and its own name alone."""
    shapes, result = meta["shapes"], {}
    last = max((name.split(".")[1] for name in shapes if name.startswith("critic.")), key=int, default="")
    for name, shape in shapes.items():
        random = np.random.RandomState(zlib.crc32(f"{meta['seed']}:{name}".encode()))
        noise = np.asarray(random.standard_normal(shape)).astype(np.float32)
        value = _made_up(name, shape, noise)
        if name.startswith((f"critic.{last}.", f"slow_critic.{last}.")):
            value = value * meta.get("head_scale", 1.0)
        kind = np.int64 if name.endswith("num_batches_tracked") else np.float32
        result[name] = torch.from_numpy(np.asarray(value, dtype=kind))
    return result


def _made_up(name: str, shape: list[int], noise: np.ndarray) -> Any:
    """One weight: noise around values that a trained network could have."""
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(noise)
    if name.endswith("num_batches_tracked"):
        return 100
    if name.endswith("A_log"):
        return np.log(np.arange(1, shape[1] + 1)) + 0.05 * noise
    if name.endswith("dt_proj.bias"):
        return -4 + 0.5 * noise
    if name.endswith(".D") or (len(shape) == 1 and name.endswith("weight")):
        return 1 + 0.1 * noise
    if len(shape) == 1:  # biases and running means
        return 0.1 * noise
    return noise / np.sqrt(np.prod(shape[1:]))


def frames_and_steps(meta: dict[str, Any], size: int) -> Batch:
    """The world model's made-up input: (batch, length) steps, whose frames keep four fifths of the pixels each."""
    random, shape = np.random.RandomState(meta["seed"] + 1000), (meta["batch"], meta["length"])
    frames = random.randint(0, 256, (*shape, 3, size, size)).astype(np.uint8)
    for t in range(1, shape[1]):
        keep = random.rand(shape[0], 1, size, size) < 0.8
        frames[:, t] = np.where(keep, frames[:, t - 1], frames[:, t])
    actions = random.randint(0, meta["actions"], shape)
    rewards = random.choice([0, 0, 0, 1, -1, 3], shape)
    ends = random.rand(*shape) < 0.05
    rewards_and_ends = torch.from_numpy(rewards).float(), torch.from_numpy(ends).float()
    return Batch(torch.from_numpy(frames), torch.from_numpy(actions), *rewards_and_ends)


def made_up_rollout(meta: dict[str, Any]) -> Rollout:
    """The actor-critic's made-up input: (batch, length) random steps."""
    random, (count, steps) = np.random.RandomState(meta["seed"] + 1000), (meta["batch"], meta["length"])
    states = torch.from_numpy(random.standard_normal((count, steps + 1, meta["feat"])))
    actions = torch.from_numpy(random.randint(0, meta["actions"], (count, steps)))
    rewards = torch.from_numpy(2 * random.standard_normal((count, steps)))
    ends = torch.from_numpy(random.rand(count, steps) < 0.1)
    return Rollout(states.float(), actions, rewards.float(), ends.float())


def world_model_values(meta: dict[str, Any]) -> Values:
    """Our world model's outputs in full, by the arrays' names without their slices."""
    model, _ = import_released(parameters(meta))
    accelerate(model, torch.device("cpu"))
    # Probabilities instead of samples, as in the reference: no random numbers, and gradients flow.
    model.sample = torch.exp
    batch = frames_and_steps(meta, 4 * 2 ** len(model.config.channels))
    values = _values_before_loss(model.eval(), batch)
    model.train()
    loss, parts = model.loss(batch)
    loss.backward()
    values |= {f"train/loss.{name}": part for name, part in parts.items()}
    for name, parameter in model.named_parameters():
        norm = torch.zeros(()) if parameter.grad is None else parameter.grad.norm()
        values[f"train/grad_norm/{released_name(name, WORLD_MODEL_NAMES)}"] = norm
    return values


@torch.no_grad()
def _values_before_loss(model: WorldModel, batch: Batch) -> Values:
    """Everything before the loss, in evaluation mode: BatchNorm uses its running statistics."""
    embedding, posterior, latent = model.observe(batch.frames)
    tokens = model.tokens(latent, batch.actions)
    hidden, variation = model.sequence_model(tokens)
    memories = {n: model.sequence_model.memory(tokens[:, -n:]) for n in range(1, tokens.shape[1] + 1)}
    return {
        "eval/embedding": embedding,
        "eval/posterior_logits": posterior,
        "eval/variation_posterior_logits": model.varied(embedding[:, model.config.window :]),
        "eval/reconstruction": model.decode(latent),
        "eval/train_forward.latent": hidden,
        "eval/train_forward.global": variation,
        "eval/prior_logits": model.prior(hidden),
        "eval/variation_prior_logits": model.variation_prior(variation),
        "eval/reward_logits": model.reward(hidden),
        "eval/reward": model.outcome(hidden)[0],
        "eval/termination_logit": model.termination(hidden).squeeze(-1),
        **{f"eval/inference_forward.last{n}": memory.hidden.unsqueeze(1) for n, memory in memories.items()},
    }


def agent_values(meta: dict[str, Any]) -> Values:
    """Our actor-critic's outputs: the first values, three updates, and the weights after them."""
    model, rollout = import_released_agent(parameters(meta)), made_up_rollout(meta)
    config, states = model.config, rollout.states
    values: Values = {}
    with torch.no_grad():
        slow = two_hot_mean(model.slow_critic(states), model.bins)
        values |= {"value": model.value(states), "slow_value": slow, "logits": model.actor(states)}
        values["lambda_return"] = lambda_return(
            rollout.rewards, rollout.terminations, values["value"], config.discount, config.trace, config.bootstrap
        )
    settings, updates = Config().actor_critic_optimizer, []
    optimizer = adam(model, settings)
    for _ in range(3):
        loss, parts = model.loss(rollout)
        backward_and_clip(model, loss, parts, settings.clip)
        optimizer.step()
        model.move_slow_critic()
        updates.append(parts | {"norm_ratio": parts["range"].clamp(min=1.0)})
    theirs = {"policy": "policy_loss", "value": "value_loss", "slow_value": "slow_value_loss", "total": "total_loss"}
    theirs |= {"entropy": "entropy_loss", "range": "S", "norm_ratio": "norm_ratio"}
    values |= {f"three_updates/{name}": torch.stack([u[ours] for u in updates]) for ours, name in theirs.items()}
    return values | {f"after/{name}": value for name, value in model.state_dict().items()}


def compare(name: str, theirs: np.ndarray, values: Values) -> Row:
    """Compares one array. A value's relative error is |ours - theirs| / max(|theirs|, 0.01 max |theirs|)."""
    plain, _, part = name.removesuffix("]").partition("[")
    kind, allowed = next((kind, most) for pattern, kind, most in TOLERANCES if re.fullmatch(pattern, plain))
    tolerance = f"{kind} {allowed:.0e}"
    ours = fit(values[plain].detach().double().numpy(), part, theirs.shape) if plain in values else None
    if ours is None or not theirs.size:
        return Row(name, float("nan"), float("nan"), tolerance, "not known to glamkit, or of another shape")
    difference, largest = np.abs(ours - theirs), np.abs(theirs).max()
    scale = np.maximum(np.abs(theirs), 0.01 * largest)
    relative = np.divide(difference, scale, out=np.where(difference == 0, 0.0, np.inf), where=scale > 0)
    worst = {"absolute": difference.max(), "scaled": difference.max() / max(largest, 1.0), "relative": relative.max()}
    verdict = "ok" if worst[kind] <= allowed else "BEYOND"  # written so that nan is beyond
    last = re.fullmatch(r"eval/inference_forward\.last(\d+)", plain)
    if last and 1 < int(last[1]) < WorldModelConfig().window:
        # The released code reads only the last token of a context shorter than S; we read all (table of choices).
        verdict = BY_DESIGN
    return Row(name, float(worst["absolute"]), float(worst["relative"]), tolerance, verdict)


def fit(whole: np.ndarray, part: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The part of our array that a reference file kept, or None if no reading of its name gives that shape.

    Slices count axes from the first (``:,:,:4``) or to the last (``::64``). Without slices it is the whole array, or
    the first values of the flattened one.
    """
    try:
        axes = [slice(*(int(n) if n else None for n in text.split(":"))) for text in part.split(",") if part]
        spare = [slice(None)] * (whole.ndim - len(axes))
        readings = [whole[(*axes, *spare)], whole[(*spare, *axes)]]
    except (ValueError, TypeError, IndexError):  # no slices, or more of them than axes
        return None
    readings += [] if part else [whole.ravel()[: int(np.prod(shape))]]
    return next((reading for reading in readings if reading.shape == shape), None)


def check(path: str | Path) -> list[Row]:
    """All arrays of one reference file, compared with ours, or a GlamkitError for a file that is damaged or none."""
    try:
        meta, arrays = read(path)
        values = agent_values(meta) if "actor.0.weight" in meta["shapes"] else world_model_values(meta)
        rows = [compare(name, theirs, values) for name, theirs in arrays.items()]
    except Exception as error:  # numpy, zipfile and torch raise a dozen kinds for damaged files
        raise GlamkitError(f"{path} is no reference file, or a damaged one: {reason(error)}.") from None
    if not rows:
        raise GlamkitError(f"{path} is no reference file: it has no arrays.")
    return rows


def in_words(path: str) -> tuple[str, bool]:
    """The table of one reference file as text, and whether all arrays agree."""
    rows = check(path)
    failed, designed = sum(row.fails for row in rows), sum(row.verdict == BY_DESIGN for row in rows)
    agree = len(rows) - failed - designed
    lines = [path, f"{'array':<62} {'absolute':>9} {'relative':>9}  tolerance", *map(str, rows)]
    lines.append(f"{len(rows)} arrays: {agree} agree, {designed} differ by design, {failed} do not agree.\n")
    return "\n".join(lines), failed == 0
