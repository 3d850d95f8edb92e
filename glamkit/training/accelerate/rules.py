"""The table of rules: what is faster where. `accelerate` puts it in once; `plainly` takes it out for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import torch
from torch import nn

from glamkit.errors import GlamkitError, nearest
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.mamba import Mamba
from glamkit.models.networks import MLP, Decoder, Encoder
from glamkit.models.sequence_model import LMamba, SequenceModel
from glamkit.models.world_model import WorldModel
from glamkit.ops.scan import has_kernels
from glamkit.training.accelerate.choices import SampledActions, SampledStates
from glamkit.training.accelerate.embedding_cache import CachingEncoder
from glamkit.training.accelerate.frames import (
    DoublingConv2d,
    FrameDecoder,
    FrameEncoder,
    HalvingConv2d,
    SlicingEncoder,
    faster_by_blocks,
)
from glamkit.training.accelerate.layers import BatchNormReLU, RectifiedMLP, SilentReLU, SpareOutputs
from glamkit.training.accelerate.pairs import PairedSequenceModel
from glamkit.training.accelerate.scans import ScanMamba, select_kernel
from glamkit.training.accelerate.swap import plain_class, swap
from glamkit.training.accelerate.windows import WindowLMamba, WindowMamba, WindowSequenceModel

Swaps = Iterator[tuple[nn.Module, type[nn.Module]]]


class Rule(NamedTuple):
    """One way to be faster: its name, on which devices it is, and which modules get which class."""

    name: str
    where: Callable[[torch.device], bool]
    swaps: Callable[[nn.Module], Swaps]


def accelerate(module: nn.Module, device: torch.device, off: Collection[str] = (), kernel: str = "auto") -> str:
    """Gives the modules inside `module`, itself included, their faster classes; weights and names stay.

    Args:
        module: a whole agent, a world model or a part of one.
        device: where it computes.
        off: names of rules that are left out.
        kernel: GMamba's scan, see `select_kernel`, whose name for the record is returned.
    """
    for rule in RULES:
        if rule.where(device) and rule.name not in off:
            for part, faster in list(rule.swaps(module)):
                swap(part, faster)
    return select_kernel(module, kernel, device)


@contextlib.contextmanager
def plainly(module: nn.Module) -> Iterator[None]:
    """Context in which the modules inside `module` have their plain classes; afterwards they are as they were."""
    fast = {part: type(part) for part in module.modules()}
    for part in fast:
        part.__class__ = plain_class(part)
    try:
        yield
    finally:
        for part, kind in fast.items():
            part.__class__ = kind


def left_out(setting: str) -> set[str]:
    """The names of rules that `runtime.accelerate` leaves out: none for ``on``, all for ``off``.

    Raises:
        GlamkitError: a name in the list is no rule's.
    """
    names = [rule.name for rule in RULES] + [WEIGHTS]
    if setting in ("on", "off"):
        return set(names) if setting == "off" else set()
    listed = [name for name in setting.split(",") if name]
    for name in listed:
        if name not in names:
            raise GlamkitError(
                f"runtime.accelerate = {setting!r} is neither on, off nor rules to leave out, such as "
                f"{names[0]},{names[1]}; {name!r} is none: {nearest(name, names)}"
            )
    return set(listed)


# The table ------------------------------------------------------------------------------------------------------------


def _of(*pairs: tuple[type[nn.Module], type[nn.Module]]) -> Callable[[nn.Module], Swaps]:
    """Swaps of all modules of some classes."""

    def swaps(module: nn.Module) -> Swaps:
        for part in module.modules():
            for plain, faster in pairs:
                if isinstance(part, plain):
                    yield part, faster

    return swaps


def _norms(module: nn.Module) -> Swaps:
    for part in module.modules():
        if isinstance(part, Encoder | Decoder):
            for norm, relu in zip(list(part), list(part)[1:], strict=False):
                if isinstance(norm, nn.BatchNorm2d):
                    yield norm, BatchNormReLU
                    yield relu, SilentReLU


def _frames(module: nn.Module) -> Swaps:
    for part in module.modules():
        if isinstance(part, Encoder):
            yield from ((part, FrameEncoder), (part[0], HalvingConv2d))
        elif isinstance(part, Decoder):
            yield from ((part, FrameDecoder), (part[-1], DoublingConv2d))


def _outputs(module: nn.Module) -> Swaps:
    for part in module.modules():
        if isinstance(part, MLP):
            yield part[-1], SpareOutputs


def _anywhere(_: torch.device) -> bool:
    return True


def _cpu(device: torch.device) -> bool:
    return device.type == "cpu"


WEIGHTS = "rounded_weights"  # the one rule that is not about a module: the twin in `updates`
RULES = [
    Rule("scan", _anywhere, _of((Mamba, ScanMamba))),  # as one operation with its own gradient
    Rule(  # windows share what does not depend on the window
        "shared_windows",
        _anywhere,
        _of((Mamba, WindowMamba), (LMamba, WindowLMamba), (SequenceModel, WindowSequenceModel)),
    ),
    # Imagined steps of GMamba and LMamba together.
    Rule("paired_windows", has_kernels, _of((SequenceModel, PairedSequenceModel))),
    Rule("batch_norm", _anywhere, _norms),  # with its ReLU in place, or in few passes
    Rule("slices", _cpu, _of((Encoder, SlicingEncoder))),  # without training, many frames are encoded part by part
    Rule("embedding_cache", _cpu, _of((Encoder, CachingEncoder))),  # while acting, each frame is encoded once
    Rule("image_conv", faster_by_blocks, _frames),  # frames as bytes, in blocks that kernels are fast for
    Rule("layer_norm", has_kernels, _of((MLP, RectifiedMLP))),  # with its ReLU in one pass
    Rule("spare_outputs", faster_by_blocks, _outputs),  # the critics' 255 bins multiplied as 256
    # Latents, tokens and actions in one kernel each.
    Rule("sampling", has_kernels, _of((WorldModel, SampledStates), (ActorCritic, SampledActions))),
]
