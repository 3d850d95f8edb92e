"""Weights rounded once for many calls; `torch.autocast` rounds them at each, and a rollout reads them H times."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Rounded:
    """A twin of a module for use under autocast: same results, less work.

    It shares all tensors with the module but those of its linear layers that are rounded or read by columns. For
    float32 it is the module itself.

    Args:
        module: the original.
        precision: what autocast rounds to.
        exact: parts whose layers are not rounded, as they are used without autocast, or not at all.
        by_columns: a layer of these of whose weight single columns are read: each lies in one piece in the twin.
    """

    def __init__(
        self, module: nn.Module, precision: torch.dtype, exact: Iterable[nn.Module], by_columns: nn.Linear | None = None
    ) -> None:
        self.copies: list[Tensor] = []
        self.originals: list[Tensor] = []
        self.columns: list[tuple[Tensor, Tensor]] = []
        self.twin: Any = module
        if precision == torch.float32:
            return
        shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        self.twin, kept = copy.deepcopy(module, shared), {layer for part in exact for layer in part.modules()}
        for own, other in zip(module.modules(), self.twin.modules(), strict=True):
            if own is by_columns:
                other.weight = nn.Parameter(own.weight.detach().T.contiguous().T, requires_grad=False)
                self.columns.append((other.weight, own.weight))
            elif isinstance(own, nn.Linear) and own not in kept:
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
        for copied, weight in self.columns:  # apart: in one list with others, all would be copied one by one
            copied.copy_(weight)
        return self.twin
