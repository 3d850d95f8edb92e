"""Programs whose Triton kernels are interpreted, on any machine.

The interpreter has to be chosen before triton is first imported, so each runs in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import pytest


def interpret(program: str) -> None:
    """Runs a program whose kernels are interpreted; it can import what is here."""
    triton = importlib.metadata.version("triton") if importlib.util.find_spec("triton") else "0.0"
    if tuple(map(int, triton.split(".")[:2])) < (3, 7):  # before, NumPy 2.4 stops the interpreter at every loop
        pytest.skip("needs triton 3.7 or newer, which torch brings along for GPUs alone: pip install triton")
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    seeded = "import torch; torch.manual_seed(0); " + program  # a draw just at an edge may fall on either side
    done = subprocess.run([sys.executable, "-c", seeded], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
