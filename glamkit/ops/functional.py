"""The method's pure functions: every one is a line of the paper or of the implementations it follows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from glamkit.types import Float, Shaped


def pictures(frames: Tensor) -> Tensor:
    """Pictures in [0, 1] from frames in bytes; other numbers stay as they are."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def squared_errors(painted: Tensor, frames: Tensor) -> Tensor:
    """Squares (N, 3, H, W), float32, of what pictures of that shape, about [0, 1], are off from frames in bytes."""
    return F.mse_loss(painted.float(), pictures(frames), reduction="none")


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): squashes rewards and returns of any size (DreamerV3)."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(x.abs())


def two_hot(x: Float[Tensor, "*n"], bins: Float[Tensor, " bins"]) -> Float[Tensor, "*n bins"]:
    """Weights (..., n) of symlog(x)'s two neighbours among evenly spaced bins; beyond the ends, of the end bin."""
    place = ((symlog(x) - bins[0]) / (bins[1] - bins[0])).clamp(0, len(bins) - 1)
    distance = (place.unsqueeze(-1) - torch.arange(len(bins), device=x.device)).abs()
    return (1 - distance).clamp(min=0)  # one bin away and further there is nothing


def two_hot_loss(logits: Tensor, x: Tensor, bins: Tensor) -> Tensor:
    """Cross entropy (nats) of logits (..., n) against the two-hot code of x (...)."""
    return -(two_hot(x, bins) * F.log_softmax(logits, -1)).sum(-1)


def two_hot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """The value (own units) that logits (..., n) stand for: symexp of the expected bin."""
    return symexp((F.softmax(logits, -1) * bins).sum(-1))


def unimix(logits: Tensor, share: float) -> Tensor:
    """Log-probabilities of a softmax mixed with `share` of uniform, over the last axis (DreamerV3)."""
    if not share:  # the logarithm of a probability that rounds to 0 has no gradient
        return F.log_softmax(logits, -1)
    probabilities = F.softmax(logits, -1)
    return torch.log((1 - share) * probabilities + share / logits.shape[-1])


def sample_categorical(log_probabilities: Tensor) -> Tensor:
    """Indices (...) drawn from normalised log-probabilities (..., n)."""
    # One uniform number for each: n times fewer than noise per class.
    return picked(log_probabilities, torch.rand_like(log_probabilities[..., :1], dtype=torch.float32))


def picked(log_probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Indices (...): where uniform numbers (..., 1) fall among the cumulated probabilities (..., n)."""
    cumulated = log_probabilities.float().exp().cumsum(-1)
    draw = uniform * cumulated[..., -1:]
    return (cumulated <= draw).sum(-1).clamp(max=log_probabilities.shape[-1] - 1)


def one_hot_sample(log_probabilities: Tensor) -> Tensor:
    """A one-hot draw whose gradient is that of the probabilities (straight-through, DreamerV2)."""
    return _straight_through(sample_categorical(log_probabilities.detach()), log_probabilities)


def one_hot_likeliest(log_probabilities: Tensor) -> Tensor:
    """The likeliest class as a one-hot code, with the gradient of `one_hot_sample`, but without its noise."""
    return _straight_through(log_probabilities.argmax(-1), log_probabilities)


def _straight_through(index: Tensor, log_probabilities: Tensor) -> Tensor:
    code = F.one_hot(index, log_probabilities.shape[-1]).to(log_probabilities.dtype)
    if not log_probabilities.requires_grad:
        return code
    probabilities = log_probabilities.exp()
    return code + (probabilities - probabilities.detach())


def kl_categorical(left: Float[Tensor, "*n K C"], right: Float[Tensor, "*n K C"]) -> Float[Tensor, "*n"]:
    """KL(left || right) in nats between normalised log-probabilities (..., K, C), summed over K."""
    return (left.exp() * (left - right)).sum((-2, -1))


def free_nats(kl: Tensor, floor: float) -> Tensor:
    """max(floor, mean KL): the mean is taken first, as in the released code."""
    return kl.mean().clamp(min=floor)


def lambda_return(
    rewards: Float[Tensor, "N H"],
    terminations: Shaped[Tensor, "N H"],
    values: Float[Tensor, "*n H+1"],
    discount: float,
    trace: float,
    bootstrap: str = "current",
) -> Float[Tensor, "*n H"]:
    """G_t = r_t + discount (1 - c_t) ((1 - trace) V + trace G_{t+1}); the last step looks at the last value.

    V is ``values[t]`` for "current" (released code), ``values[t + 1]`` for "next" (the textbook). The last value is of
    the state after the last action; with a leading axis they are several critics'.
    """
    mixed = values[..., :-1] if bootstrap == "current" else values[..., 1:]
    live = discount * (1 - terminations.to(values.dtype))
    known, weight = rewards + live * (1 - trace) * mixed, live * trace
    result, following = [], values[..., -1]
    for t in reversed(range(rewards.shape[1])):
        following = known[..., t] + weight[:, t] * following
        result.append(following)
    return torch.stack(result[::-1], -1)


def percentiles(x: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """For both shares the int(share n)-th smallest of all n values, counted from one as the released code does."""
    ordered = x.flatten().sort().values  # on GPUs several times as fast as looking for one value
    first, last = (min(max(int(share * len(ordered)), 1), len(ordered)) - 1 for share in (low, high))
    return ordered[first], ordered[last]
