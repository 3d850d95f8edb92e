"""A CPU's memory: freed blocks stay in the process while it trains, and go back to the system at the end."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

import torch

# malloc.h: M_MMAP_MAX is -4, M_MMAP_THRESHOLD -3, M_TRIM_THRESHOLD -1. Blocks of their own none, giving back never; and
# where glibc arrives by itself after the first large tensors.
KEEPING = {-4: 0, -1: -1}
USUAL = {-4: 65536, -3: 32 << 20, -1: 64 << 20}


@contextlib.contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """Memory freed inside stays in this process for the tensors to come, and goes back to the system at the end.

    glibc returns every large block at once, and the system clears its pages before it lends them out again: on CPUs a
    sixth of an update of the published size. On GPUs torch keeps memory itself; with other C libraries nothing happens.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    try:
        for option, value in KEEPING.items():
            libc.mallopt(option, value)
        yield
    finally:
        for option, value in USUAL.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
