"""What the device of a tensor has: Triton's kernels, as operations of torch, and the precision of products."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Triton compiles what starts its kernels with a C compiler; the kernels were tried on NVIDIA's GPUs alone.
TRITON = bool(
    importlib.util.find_spec("triton")
    and any(map(shutil.which, (os.environ.get("CC", "gcc"), "gcc", "clang")))
    and torch.version.hip is None
)


def has_kernels(device: torch.device) -> bool:
    """Whether Triton's kernels run there: the only place that decides it."""
    return TRITON and device.type == "cuda"


def kernels(module: str) -> Any:
    """The module of some kernels, imported when they are first used: importing Triton is slow."""
    return importlib.import_module(f"glamkit.ops.triton.{module}")


def operation(module: str) -> Callable[[Callable[..., Any]], Any]:
    """Makes an operation of torch of a function that returns its outputs empty: the kernel of its name fills them."""

    def made(shapes: Callable[..., Any]) -> Any:
        def computed(*inputs: Any) -> Any:
            return getattr(kernels(module), shapes.__name__)(*inputs)

        schema, name = torch.library.infer_schema(shapes, mutates_args=()), f"glamkit::{module}_{shapes.__name__}"
        result = torch.library.custom_op(name, computed, mutates_args=(), schema=schema)
        result.register_fake(shapes)
        return result

    return made


def precision(x: Tensor) -> torch.dtype:
    """What products with x are computed in: what autocast rounds to, if it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def float32(x: Tensor) -> torch.autocast:
    """Context that keeps autocast away from what needs all digits, on x's device."""
    return torch.autocast(x.device.type, enabled=False)
