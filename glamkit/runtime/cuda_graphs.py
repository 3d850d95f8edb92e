"""GPU work that is recorded once and then replayed, as CUDA graphs.

A training step is thousands of small kernels, which Python needs longer to start than a GPU to run. Recorded, they are
started by one call, on the same addresses. Random numbers go on from the generator as they would without.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from glamkit.errors import GlamkitError, reason


class Recorder:
    """What the recordings of one machine share: a stream to record on, and memory, as they never run side by side."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        self.lasting: set[int] = set()  # ids of tensors that a recording writes; others may read them where they are

    def aside(self, work: Callable[[], Any]) -> Any:
        """Does some work on the stream of the recordings, in order with what is done around it."""
        here = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            result = work()
        here.wait_stream(self.stream)
        return result


class Recorded:
    """A function of tensors and constants whose work is replayed from the third call on.

    The first call with new shapes or constants is an ordinary one, in which libraries set up what cannot be set up in a
    recording; the second is recorded. Only the latest shapes' recording is kept. What it returns carries no gradients,
    and lasts until it or another function of the same recorder is called again: what is to be kept has to be copied.
    """

    def __init__(self, function: Callable[..., Any], recorder: Recorder) -> None:
        self.function, self.recorder = function, recorder
        self.seen: Hashable = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Any] = []
        self.outputs: Any = None

    def __call__(self, *inputs: Any) -> Any:
        """What the function returns for these."""
        leaves, structure = tree_flatten(inputs)
        kind = (structure, *map(_kind, leaves))
        if kind != self.seen:
            self._forget()
            outputs = self.recorder.aside(lambda: self.function(*inputs))
            self.seen = kind
            return tree_map_only(Tensor, Tensor.detach, outputs)
        if self.graph is None:
            self._record(leaves, structure)
        assert self.graph is not None
        for own, given in zip(self.inputs, leaves, strict=True):
            if isinstance(own, Tensor) and own is not given:
                own.copy_(given)
        self.graph.replay()
        return self.outputs

    def _record(self, leaves: list[Any], structure: Any) -> None:
        """Recording runs nothing: afterwards all is as it was before."""
        lasting, graph = self.recorder.lasting, torch.cuda.CUDAGraph()
        copied = [isinstance(leaf, Tensor) and id(leaf) not in lasting for leaf in leaves]
        inputs = [leaf.detach().clone() if copy else leaf for leaf, copy in zip(leaves, copied, strict=True)]
        given = tree_unflatten(inputs, structure)
        try:
            # Other threads may use the GPU meanwhile: a person in a dream beside the training, say.
            with torch.cuda.graph(graph, self.recorder.pool, self.recorder.stream, capture_error_mode="thread_local"):
                outputs = tree_map_only(Tensor, Tensor.detach, self.function(*given))
        except RuntimeError as error:
            cause = error.__context__ or error  # ending a recording that failed fails as well
            if "out of memory" in str(cause):
                raise cause from None
            why = f"({reason(cause)}); go on with runtime.record=false"
            raise GlamkitError(f"the GPU's work could not be recorded {why}.") from error
        self.graph, self.inputs, self.outputs = graph, inputs, outputs
        lasting |= {id(leaf) for leaf in tree_flatten(outputs)[0]}

    def _forget(self) -> None:
        self.recorder.lasting -= {id(leaf) for leaf in tree_flatten(self.outputs)[0]}
        self.seen, self.graph, self.inputs, self.outputs = None, None, [], None


def _kind(leaf: Any) -> Hashable:
    """What a recording is made for: a tensor's shape and type, and any other value itself."""
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf
