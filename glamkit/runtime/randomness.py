"""Random numbers: seeded once, saved and restored, and left undisturbed by what only looks."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

# What is one for the whole process, such as random numbers and the style of figures, one thread at a time may set.
ALONE = threading.RLock()


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """All global random-number states, as plain values and tensors that any safe loader can read."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Inverse of `random_state`; GPU states are restored when the same number of GPUs is there."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


@contextlib.contextmanager
def undisturbed(seed: int | None = None) -> Iterator[None]:
    """Random numbers drawn inside leave those outside as they were. Other threads wait: theirs would be among them."""
    with ALONE:
        before = random_state()
        if seed is not None:
            seed_everything(seed)
        try:
            yield
        finally:
            set_random_state(before)
