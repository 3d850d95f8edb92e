"""Acting on CPUs: each step looks at the recent past anew, of which one frame alone was not encoded before."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from glamkit.models.networks import Encoder
from glamkit.ops.precision import precision

CACHED = 1024  # frames of a call: more are contexts from the replay, of which few come again


class CachingEncoder(Encoder):
    """`Encoder` that keeps the embeddings of the frames in its last two calls, for as long as its weights stay.

    Two, as acting asks for the frames of the past and then for the present one. An embedding is the same whichever
    frames are encoded with it, so that a run may be resumed with nothing kept.
    """

    state: tuple[object, ...] = ()
    newer: dict[bytes, Tensor]  # embeddings (E,) by the bytes of their frames, of the last call
    older: dict[bytes, Tensor]  # of the call before

    def forward(self, frames: Tensor) -> Tensor:
        """As `Encoder.forward`."""
        if self.training or torch.is_grad_enabled() or len(frames) > CACHED or frames.dtype != torch.uint8:
            return super().forward(frames)
        if self.state != (state := weights_state(self)):
            self.state, self.newer, self.older = state, {}, {}
        keys = [frame.tobytes() for frame in frames.permute(0, 2, 3, 1).cpu().numpy()]
        known = self.older | self.newer
        missing = {key: number for number, key in enumerate(keys) if key not in known}
        if missing:
            # The plain way: another, as for many frames, would round embeddings by how many are encoded together.
            made = Encoder.forward(self, frames[list(missing.values())])
            known.update(zip(missing, made, strict=True))
        self.older, self.newer = self.newer, {key: known[key] for key in keys}
        return torch.stack([known[key] for key in keys])


def weights_state(encoder: Encoder) -> tuple[object, ...]:
    """What changes whenever weights, statistics or precision do."""
    tensors = list(chain(encoder.parameters(), encoder.buffers()))
    return precision(tensors[0]), *((tensor.data_ptr(), tensor._version) for tensor in tensors)
