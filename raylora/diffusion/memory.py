"""Memory that has run out, in whatever words it is told."""

from __future__ import annotations

import torch

OUT_OF_CPU_MEMORY = "DefaultCPUAllocator"
"""Part of torch's message (c10/core/impl/alloc_cpu.cpp) when the operating system gives it no more memory."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether it may go better with fewer images at once, or with smaller numbers."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or OUT_OF_CPU_MEMORY in str(error)
