"""What products are computed in under autocast, and how to keep autocast away."""

from __future__ import annotations

import torch
from torch import Tensor


def precision(x: Tensor) -> torch.dtype:
    """What products with x are computed in: what autocast rounds to, if it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def float32(x: Tensor) -> torch.autocast:
    """Context that keeps autocast away from what needs all digits, on x's device."""
    return torch.autocast(x.device.type, enabled=False)
