"""Weights rounded once for many calls; `torch.autocast` rounds them at each, and a rollout reads them H times."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Rounded:
    """A twin of a module for autocast to that precision, or for float32 the module itself: same results, less work.

    It shares all tensors but the rounded ones of linear layers; those of the parts `exact` are not rounded.
    """

    def __init__(self, module: nn.Module, precision: torch.dtype, exact: Iterable[nn.Module]) -> None:
        self.copies: list[Tensor] = []
        self.originals: list[Tensor] = []
        self.twin: Any = module
        if precision == torch.float32:
            return
        shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        self.twin, kept = copy.deepcopy(module, shared), {layer for part in exact for layer in part.modules()}
        for own, other in zip(module.modules(), self.twin.modules(), strict=True):
            if isinstance(own, nn.Linear) and own not in kept:
                for name, weight in own.named_parameters(recurse=False):
                    rounded = nn.Parameter(weight.detach().to(precision), requires_grad=False)
                    setattr(other, name, rounded)
                    self.copies.append(rounded)
                    self.originals.append(weight)

    @torch.no_grad()
    def renewed(self) -> Any:
        """The twin, with the weights as they are now."""
        if self.copies:
            torch._foreach_copy_(self.copies, self.originals)
        return self.twin
