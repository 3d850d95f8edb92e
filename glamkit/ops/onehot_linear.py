"""Products with one-hot codes: on CPUs the columns of the weights that a code picks are added up, and nothing else.

A latent is K codes of C classes, so of a matrix with K * C columns it picks K. Adding those takes a sixth of the time
of the product, and the gradient of the weights, which adds up rows of the outputs' gradient, a third.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamkit.ops.precision import precision
from glamkit.ops.scan import only_looked_at

TABLE = 512  # outputs of a product at a time: with 1,024 columns in bfloat16 they fill a second-level cache of 1 MB
LARGE, MANY = 2**18, 64  # from as many numbers in the codes' part of a weight, and as many rows, looking up pays
STRIPE = 128  # outputs of a gradient at a time: of many thousand rows they stay in a third-level cache


class Codes(NamedTuple):
    """The shape of a latent: `variables` codes K, of `classes` C each."""

    variables: int
    classes: int

    @property
    def size(self) -> int:
        """Z = K * C, how many numbers they are together."""
        return self.variables * self.classes


class Inputs(NamedTuple):
    """What a `CodeLinear` reads on a CPU, looked up once for all that read the same."""

    codes: Tensor  # (..., Z)
    columns: Tensor  # (..., K), what the codes pick; -1 everywhere if a single one is not one-hot
    others: Tensor  # (..., H)


class CodeLinear(nn.Linear):
    """A linear layer without bias whose first inputs are codes: (..., Z + others) -> (..., out).

    Args:
        codes: their shape.
        others: number of inputs behind the codes.
        out: number of outputs.
    """

    def __init__(self, codes: Codes, others: int, out: int) -> None:
        super().__init__(codes.size + others, out, bias=False)
        self.codes, self.others = codes, others

    def forward(self, x: Tensor | Inputs) -> Tensor:
        """On a CPU by adding up columns, if the codes are one-hot."""
        x = self.inputs(x) if isinstance(x, Tensor) else x
        if isinstance(x, Tensor):
            return super().forward(x)
        of_codes, of_others = self.weight.to(x.others.dtype).split([self.codes.size, self.others], -1)
        codes, columns, others = (part.flatten(0, -2) for part in x)
        y = product(codes, columns, of_codes)
        y = torch.addmm(y, others, of_others.T) if self.others else y
        return y.view(*x.codes.shape[:-1], self.out_features)

    def inputs(self, x: Tensor) -> Tensor | Inputs:
        """Inputs (..., Z + others) as `forward` reads them: as they are where nothing is looked up."""
        return self.look(*x.split([self.codes.size, self.others], -1)) if self.looks_up(x) else x

    def looks_up(self, x: Tensor) -> bool:
        """Whether that is faster than a product for x (..., any)."""
        size, rows = self.codes.size * self.out_features, x.shape[:-1].numel()
        return x.device.type == "cpu" and size >= LARGE and rows >= MANY

    def look(self, codes: Tensor, others: Tensor) -> Tensor | Inputs:
        """The same from codes (..., Z) and others (..., H)."""
        if not self.looks_up(codes):
            return torch.cat([codes, others], -1)
        return Inputs(codes, _read(codes.detach(), self.codes.classes), others.to(precision(codes)))


def product(codes: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
    """The product codes @ weight.T (N, out), with the gradients of both; computed in the weight's kind of numbers.

    Args:
        codes: (N, Z), on a CPU.
        columns: as in `Inputs`.
        weight: (out, Z).
    """
    return (_product_here if only_looked_at() else _product)(codes, columns, weight)


def _read(codes: Tensor, classes: int) -> Tensor:
    """`Inputs.columns` of codes (..., Z); compilers read the codes once for all of it."""
    parts = codes.unflatten(-1, (-1, classes))
    index = (parts * torch.arange(classes, dtype=codes.dtype, device=codes.device)).sum(-1)
    # Numbers that are their own squares are 0 or 1.
    one_hot = (parts.sum(-1) == 1) & ((parts.square() - parts).abs().sum(-1) == 0)
    columns = index.long() + torch.arange(0, codes.shape[-1], classes, device=codes.device)
    return torch.where(one_hot.all(), columns, -1)


def _product_here(codes: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
    if not _one_hot(columns):
        return codes.to(weight.dtype) @ weight.T
    tables = [F.embedding_bag(columns, part.T.contiguous(), mode="sum") for part in weight.split(TABLE)]
    return torch.cat(tables, -1)


_product = torch.library.custom_op("glamkit::code_product", _product_here, mutates_args=())


@_product.register_fake
def _(codes: Tensor, _: Tensor, weight: Tensor) -> Tensor:
    return weight.new_empty(len(codes), len(weight))


@torch.library.custom_op("glamkit::code_gradient", mutates_args=())
def _gradient(grad: Tensor, codes: Tensor, columns: Tensor) -> Tensor:
    """The weight's gradient (out, K * C) from the product's (N, out): each column adds up the rows that picked it."""
    if not _one_hot(columns):
        return grad.T @ codes.to(grad.dtype)
    picked, order = columns.T.flatten().sort(stable=True)
    rows, first = order % len(codes), torch.searchsorted(picked, torch.arange(codes.shape[-1]))
    stripes = [F.embedding_bag(rows, part.contiguous(), first, mode="sum") for part in grad.split(STRIPE, -1)]
    return torch.cat(stripes, -1).T.contiguous()


@_gradient.register_fake
def _(grad: Tensor, codes: Tensor, _: Tensor) -> Tensor:
    return grad.new_empty(grad.shape[-1], codes.shape[-1])


def _one_hot(columns: Tensor) -> bool:
    return bool(len(columns) and columns[0, 0] >= 0)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG001 - torch calls it so
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
    codes, columns, weight = ctx.saved_tensors
    of_codes, _, of_weight = ctx.needs_input_grad
    return (
        (grad @ weight).to(codes.dtype) if of_codes else None,
        None,
        _gradient(grad.contiguous(), codes, columns) if of_weight else None,
    )


_product.register_autograd(_backward, setup_context=_keep)
