"""A model's activations by name, through loss, imagination and acting; and others in their place."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from glamkit.errors import GlamkitError, nearest
from glamkit.training.accelerate import plainly
from glamkit.training.load import LoadedRun

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def watch(
    model: LoadedRun | nn.Module, *names: str, replace: Mapping[str, Callable[[Any], Any]] | None = None
) -> Iterator[dict[str, list[Any]]]:
    """Context in which the named modules' outputs are noted, or replaced by what a function makes of them.

    Inside, the model is as it is written: accelerations would bypass modules, so they are taken out and put back at the
    end. What a `Trainer` has compiled or recorded is not reached: call the model's own `loss`, `imagine` or `act`.

    Some modules are never called as a whole: agent, world model and actor-critic; outside `loss` the sequence model;
    GMamba, its blocks, their mixers and `conv1d` where imagination has the memory ``recurrent``. ``gmamba.out`` is
    called in every memory. Of a named module that was not called in the context a warning tells at its end.

    Args:
        model: an opened run, an agent, a world model or a part of one.
        names: of modules, as in `named_modules`; the end of one will do if it is one module's alone: ``gmamba.out``.
        replace: functions of an output that give another of the same shape, such as `torch.zeros_like`, by name.

    Returns:
        For each of `names` the outputs in the order of calls, without gradients, as replaced.

    Raises:
        GlamkitError: a name is no module's or several modules', or a replacement has another shape.
    """
    module, replace = model.agent if isinstance(model, LoadedRun) else model, replace or {}
    seen: dict[str, list[Any]] = {name: [] for name in names}
    silent = dict.fromkeys((*names, *replace))

    def noted(name: str, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        silent.pop(name, None)
        if name in replace:
            before, output = output, replace[name](output)
            given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            if isinstance(before, Tensor) and given != tuple(before.shape):
                raise GlamkitError(f"the replacement of {name!r} gives {given}; use shape {tuple(before.shape)}.")
        if name in seen:
            seen[name].append(tree_map_only(Tensor, lambda part: part.detach().clone(), output))
        return output

    with contextlib.ExitStack() as stack:
        stack.enter_context(plainly(module))
        for name in list(silent):
            stack.callback(_find(module, name).register_forward_hook(functools.partial(noted, name)).remove)
        yield seen
    for name in silent:
        logger.warning("%r was not called: nothing of it is noted or replaced; every memory calls gmamba.out.", name)


def _find(module: nn.Module, name: str) -> nn.Module:
    """The one module of this name, or whose name ends so."""
    parts = dict(module.named_modules())
    ends = [name] if name in parts else [own for own in parts if own.endswith(f".{name}")]
    if len(ends) == 1:
        return parts[ends[0]]
    every = {own.split(".", first)[-1] for own in parts if own for first in range(own.count(".") + 1)}
    what = f"is the name of {len(ends)} modules" if ends else "is no module"
    raise GlamkitError(f"{name!r} {what}; {nearest(name, ends or sorted(every))}")
