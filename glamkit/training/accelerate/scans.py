"""GMamba's scan by glamkit's operations or by mamba-ssm's fused kernel, in place of a loop over the steps."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from glamkit.errors import GlamkitError
from glamkit.models.mamba import Mamba
from glamkit.ops import scan as ops
from glamkit.training.accelerate.swap import swap


class ScanMamba(Mamba):
    """`Mamba` by the operations of `ops.scan`."""

    def scan(self, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        """As `Mamba.scan`."""
        return ops.selective_scan(u, dt, A, B, C)

    def scan_step(
        self, h: Tensor, driven: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `Mamba.scan_step`."""
        return ops.scan_step(h, driven, dt, A, B, C)

    def taps(self) -> tuple[Tensor, Tensor]:
        """As `Mamba.taps`, laid out for compilers."""
        assert self.conv1d.bias is not None
        return ops.transposed(self.conv1d.weight.squeeze(1)), self.conv1d.bias


class FusedMamba(Mamba):
    """`Mamba` whose scan is mamba-ssm's kernel, which keeps time in the last axis."""

    def scan(self, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        """As `Mamba.scan`."""
        fused = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
        u, dt, B, C = (part.transpose(1, 2).contiguous() for part in (u, dt, B, C))
        return fused(u, dt, A, B, C).transpose(1, 2)


def available_kernels() -> dict[str, str]:
    """The scans by name; the text is empty where one can be used, else why mamba-ssm does not load."""
    try:
        importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except Exception as error:  # an import of compiled code can fail in any way; the doctor explains this text
        return {"glamkit": "", "mamba-ssm": f"{type(error).__name__}: {error}"}
    return {"glamkit": "", "mamba-ssm": ""}


def select_kernel(module: nn.Module, choice: str, device: torch.device) -> str:
    """Puts mamba-ssm's scan into every `Mamba` inside `module` if asked; returns the scan's name for the record.

    Args:
        module: any module.
        choice: ``auto``, ``glamkit`` or ``mamba-ssm``; auto is glamkit's, which is as fast and repeats to the bit.
        device: where `module` will run.

    Raises:
        GlamkitError: mamba-ssm was asked for and cannot run here.
    """
    if choice != "mamba-ssm":
        return "glamkit"
    elsewhere = "" if device.type == "cuda" else f"it needs a CUDA GPU, and the device is {device}"
    if reason := available_kernels()["mamba-ssm"] or elsewhere:
        raise GlamkitError(f"runtime.kernel = 'mamba-ssm' cannot be used ({reason}); use auto or glamkit.")
    for part in module.modules():
        if isinstance(part, Mamba):
            swap(part, FusedMamba)
    return "mamba-ssm"
