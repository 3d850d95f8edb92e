"""The table of rules: what is faster where. `accelerate` puts it in once; `plainly` takes it out for a while."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
from collections.abc import Callable, Collection, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn

from glamkit.errors import GlamkitError, nearest
from glamkit.models.actor_critic import ActorCritic
from glamkit.models.networks import MLP, Decoder, Encoder
from glamkit.models.world_model import WorldModel
from glamkit.ops.device import has_kernels
from glamkit.training.accelerate import frames
from glamkit.training.accelerate.imagination import PairedSequenceModel, SampledActions, SampledStates
from glamkit.training.accelerate.layers import BatchNormReLU, RectifiedMLP, SilentReLU, SpareOutputs
from glamkit.training.accelerate.windows import FusedMamba, ScanMamba, WindowLMamba, WindowMamba, WindowSequenceModel

logger = logging.getLogger(__name__)

Swaps = Iterator[tuple[nn.Module, type[nn.Module]]]


class Rule(NamedTuple):
    """One way to be faster: its name, on which devices it is, and which modules get which class."""

    name: str
    where: Callable[[torch.device], bool]
    swaps: Callable[[nn.Module], Swaps]


def accelerate(module: nn.Module, device: torch.device, off: Collection[str] = (), kernel: str = "auto") -> str:
    """Gives the modules inside `module`, itself included, their faster classes; weights and names stay.

    With a `foreign` class among them all stay as they are, and a warning names it. `off` are names of rules left out,
    `kernel` is GMamba's scan, whose name for the record is returned.
    """
    rules = [rule for rule in RULES if rule.where(device) and rule.name not in off]
    if rules and (own := foreign(module)):
        logger.warning("%s is no class of glamkit's: nothing is accelerated, as faster classes would bypass it.", own)
        rules = []
    for rule in rules:
        for part, faster in list(rule.swaps(module)):
            swap(part, faster)
    return select_kernel(module, kernel, device)


def swap(module: nn.Module, faster: type[nn.Module]) -> None:
    """Makes a module an instance of a subclass of its class; several such subclasses stack, the latest first."""
    module.__class__ = _together(faster, type(module))  # type: ignore[arg-type]


@functools.cache
def _together(faster: type[nn.Module], present: type[nn.Module]) -> type[nn.Module]:
    if issubclass(present, faster):
        return present
    return faster if present in faster.__mro__ else type(faster.__name__, (faster, present), {})


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module had before any swap."""
    return next(kind for kind in type(module).__mro__ if not kind.__module__.startswith(__package__))


def foreign(module: nn.Module) -> str:
    """The first class of a module inside `module` that is neither glamkit's nor torch's, by name; or nothing."""
    kinds = [plain_class(part) for part in module.modules()]
    own = "glamkit.models.", "torch.nn."
    return next((kind.__qualname__ for kind in kinds if not kind.__module__.startswith(own)), "")


@contextlib.contextmanager
def plainly(module: nn.Module) -> Iterator[None]:
    """Context in which the modules inside `module` have their plain classes; afterwards they are as they were.

    Classes that a swap has made cannot be pickled: `torch.save` a `state_dict()`, or the module in this context.
    """
    fast = {part: type(part) for part in module.modules()}
    for part in fast:
        part.__class__ = plain_class(part)
    try:
        yield
    finally:
        for part, kind in fast.items():
            part.__class__ = kind


def left_out(setting: str) -> set[str]:
    """The names of rules that `runtime.accelerate` leaves out: none for ``on``, all for ``off``."""
    names = [rule.name for rule in RULES] + [WEIGHTS]
    if setting in ("on", "off"):
        return set(names) if setting == "off" else set()
    listed = [name.strip() for name in setting.split(",") if name.strip()]
    for name in listed:
        if name not in names:
            raise GlamkitError(
                f"runtime.accelerate = {setting!r} is neither on, off nor rules to leave out, such as "
                f"{names[0]},{names[1]}; {name!r} is none: {nearest(name, names)}"
            )
    return set(listed)


def missing_mamba_ssm() -> str:
    """Why mamba-ssm's scan does not load, or nothing."""
    try:
        importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except Exception as error:  # an import of compiled code can fail in any way; the doctor explains this text
        return f"{type(error).__name__}: {error}"
    return ""


def select_kernel(module: nn.Module, choice: str, device: torch.device) -> str:
    """Puts mamba-ssm's scan into every `Mamba` inside `module` if asked; returns the scan's name for the record."""
    if choice != "mamba-ssm":
        return "glamkit"
    elsewhere = "" if device.type == "cuda" else f"it needs a CUDA GPU, and the device is {device}"
    if reason := missing_mamba_ssm() or elsewhere:
        raise GlamkitError(f"runtime.kernel = 'mamba-ssm' cannot be used ({reason}); use auto or glamkit.")
    for part, faster in list(_of(FusedMamba)(module)):
        swap(part, faster)
    return "mamba-ssm"


def _each(module: nn.Module, *kinds: Any) -> Iterator[Any]:
    return (part for part in module.modules() if isinstance(part, kinds))


def _of(*faster: type[nn.Module]) -> Callable[[nn.Module], Swaps]:
    """Swaps of all modules of the classes that these are made from."""
    return lambda module: ((part, kind) for kind in faster for part in _each(module, kind.__base__))


def _usual(network: nn.Sequential, norm: type[nn.Module]) -> bool:
    """Whether each layer still has the norm and the ReLU that classes which compute them at once take for granted."""
    layers, kinds = list(network.children()), ((1, norm), (2, nn.ReLU))
    return len(layers) > 3 and all(isinstance(part, kind) for first, kind in kinds for part in layers[first::3])


def _norms(module: nn.Module) -> Swaps:
    for network in _each(module, Encoder, Decoder):
        for norm, relu in pairwise(network):
            if isinstance(norm, nn.BatchNorm2d) and isinstance(relu, nn.ReLU):
                yield from ((norm, BatchNormReLU), (relu, SilentReLU))


def _slices(module: nn.Module) -> Swaps:
    return ((encoder, frames.SlicingEncoder) for encoder in _each(module, Encoder) if _usual(encoder, nn.BatchNorm2d))


def _last_layer(module: nn.Module) -> Swaps:
    return ((decoder[-1], frames.BlockedConv2d) for decoder in _each(module, Decoder))


def _frames(module: nn.Module) -> Swaps:
    for encoder in _each(module, Encoder):
        if _usual(encoder, nn.BatchNorm2d):
            yield encoder, frames.FrameEncoder
            yield encoder[0], frames.HalvingConv2d
    for decoder in _each(module, Decoder):
        yield from ((decoder, frames.FrameDecoder), (decoder[-1], frames.DoublingConv2d))


def _outputs(module: nn.Module) -> Swaps:
    return ((mlp[-1], SpareOutputs) for mlp in _each(module, MLP))


def _rectified(module: nn.Module) -> Swaps:
    return ((mlp, RectifiedMLP) for mlp in _each(module, MLP) if _usual(mlp, nn.LayerNorm))


def _choices(module: nn.Module) -> Swaps:
    yield from ((model, SampledStates) for model in _each(module, WorldModel) if _usual(model.stem, nn.LayerNorm))
    yield from ((pair, SampledActions) for pair in _each(module, ActorCritic) if _usual(pair.actor, nn.LayerNorm))


def _anywhere(_: torch.device) -> bool:
    return True


def _cpu(device: torch.device) -> bool:
    return device.type == "cpu"


def _gpu(device: torch.device) -> bool:
    return device.type not in ("cpu", "mps")  # on Apple's GPUs nobody has tried


WEIGHTS = "rounded_weights"  # the one rule that is not about a module: the twin in `updates`
RULES = [
    Rule("scan", _anywhere, _of(ScanMamba)),  # as one operation with its own gradient
    # Windows share what does not depend on the window.
    Rule("shared_windows", _anywhere, _of(WindowMamba, WindowLMamba, WindowSequenceModel)),
    Rule("paired_windows", has_kernels, _of(PairedSequenceModel)),  # imagined steps of GMamba and LMamba together
    Rule("batch_norm", _anywhere, _norms),  # with its ReLU in place, or in few passes
    Rule("slices", _cpu, _slices),  # without training, many frames are encoded part by part, BatchNorm in convolutions
    Rule("last_layer", _cpu, _last_layer),  # the decoder's last convolution in blocks
    Rule("embedding_cache", _cpu, _of(frames.CachingEncoder)),  # while acting, each frame is encoded once
    Rule("image_conv", _gpu, _frames),  # frames as bytes
    Rule("layer_norm", has_kernels, _rectified),  # with its ReLU in one pass
    Rule("spare_outputs", _gpu, _outputs),  # the critics' 255 bins multiplied as 256
    Rule("sampling", has_kernels, _choices),  # what imagination chooses, in one kernel each
]
