"""What training costs: its seconds and its memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

FORGET_PEAK = "5"
"""What Linux takes in `clear_refs` to begin a process's peak anew (proc_pid_clear_refs(5))."""
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit of the kernel's `ru_maxrss` (getrusage(2))."""


class Meter:
    """Adds up the seconds of training, and keeps the most memory that it took.

    On a GPU that is what torch had allocated there. Elsewhere it is the process's resident set, with the base model
    and whatever an earlier trial in the same process has left there, so an upper bound; where the kernel can't forget
    an earlier peak, it is the process's peak so far.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self.train_s, self._peak_bytes = 0.0, 0

    @property
    def peak_memory_gib(self) -> float:
        return self._peak_bytes / 2**30

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what the block costs; it must leave nothing under way on the device."""
        _forget_peak(self._device)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.train_s += time.perf_counter() - began
            self._peak_bytes = max(self._peak_bytes, _peak_bytes(self._device))

    def state_dict(self) -> dict[str, float]:
        return {"train_s": self.train_s, "peak_bytes": self._peak_bytes}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on counting where `state_dict` was taken."""
        self.train_s, self._peak_bytes = state["train_s"], int(state["peak_bytes"])


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # no Linux, or not allowed
            Path("/proc/self/clear_refs").write_text(FORGET_PEAK, encoding="ascii")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES
