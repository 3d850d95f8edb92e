"""The replay ring: every step of the run, and windows drawn from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from glamkit.config import ReplayConfig
from glamkit.runtime import send
from glamkit.types import Batch


class Replay:
    """A ring of `capacity` steps on the training device.

    Steps are numbered from 0 for the whole run; step i lies in row i % capacity. Windows are chosen by step number
    among the steps still stored, so none can cross the place where the ring is being overwritten. Windows may cross the
    end of an episode, as in the released code: the termination stored with the step says so.
    """

    def __init__(self, config: ReplayConfig, image_size: int, device: torch.device, seed: int = 0) -> None:
        self.config, self.size, self.device = config, image_size, device
        rows = config.capacity
        # Height x width x channel is what environments give and, permuted, what channels_last convolutions want.
        self.frames = torch.empty(rows, image_size, image_size, 3, dtype=torch.uint8, device=device)
        self.actions = torch.zeros(rows, dtype=torch.int64, device=device)
        self.rewards = torch.zeros(rows, dtype=torch.float32, device=device)
        self.terminations = torch.zeros(rows, dtype=torch.float32, device=device)
        self.count = 0
        self.generator = torch.Generator().manual_seed(seed)

    def __repr__(self) -> str:
        gigabytes = self.frames.nbytes / 2**30
        return f"Replay({len(self):,} of {self.config.capacity:,} steps, {gigabytes:.2f} GiB when full)"

    def __len__(self) -> int:
        return min(self.count, self.config.capacity)

    @property
    def oldest(self) -> int:
        """Number of the oldest step still stored."""
        return self.count - len(self)

    def add(self, frame: np.ndarray, action: int, reward: float, termination: bool) -> None:
        """Stores one step; `frame` is (size, size, 3) uint8."""
        row = self.count % self.config.capacity
        self.frames[row] = torch.from_numpy(frame)
        self.actions[row], self.rewards[row], self.terminations[row] = action, reward, float(termination)
        self.count += 1

    def sample_starts(self, count: int, length: int) -> Tensor:
        """First steps of `count` windows of `length`: uniform, but for the last `newest_windows`, the newest."""
        newest = min(self.config.newest_windows, count)
        last = self.count - length
        uniform = torch.randint(self.oldest, last + 1, (count - newest,), generator=self.generator)
        return torch.cat([uniform, torch.arange(last - newest + 1, last + 1)])

    def window(self, starts: Tensor, length: int) -> Batch:
        """The windows that begin at the given step numbers (n,)."""
        first = send(starts, self.device)
        rows = (first.unsqueeze(1) + torch.arange(length, device=self.device)) % self.config.capacity
        return Batch(
            self.frames[rows].permute(0, 1, 4, 2, 3), self.actions[rows], self.rewards[rows], self.terminations[rows]
        )

    def sample(self, count: int | None = None, length: int | None = None) -> Batch:
        """A batch for the world model (`config.batch_size` x `config.sequence_length`), or of another size."""
        length = length or self.config.sequence_length
        return self.window(self.sample_starts(count or self.config.batch_size, length), length)

    def part(self, first: int, last: int) -> dict[str, Tensor]:
        """Steps first .. last - 1 by number, as plain tensors on the CPU, for saving."""
        rows = (torch.arange(first, last) % self.config.capacity).to(self.device)
        return {name: getattr(self, name)[rows].cpu() for name in ("frames", "actions", "rewards", "terminations")}

    def load_part(self, first: int, part: dict[str, Tensor]) -> None:
        """Puts back steps that `part` gave, of which there are `count`."""
        begin = max(first, self.oldest)  # older steps of the part lie where newer ones are
        last = first + len(next(iter(part.values())))
        rows = (torch.arange(begin, last) % self.config.capacity).to(self.device)
        for name, values in part.items():
            getattr(self, name)[rows] = values[begin - first :].to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """All but the stored steps."""
        return {"count": self.count, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`; the steps themselves come from `load_part`."""
        self.count = state["count"]
        self.generator.set_state(state["generator"])
