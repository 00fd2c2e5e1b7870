"""Memory that has run out, in whatever words it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from raylora.errors import RayloraError

OUT_OF_CPU_MEMORY = "DefaultCPUAllocator"
"""Part of torch's message (c10/core/impl/alloc_cpu.cpp) when the operating system gives it no more memory."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether it may go better with fewer images at once, or with smaller numbers."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or OUT_OF_CPU_MEMORY in str(error)


@contextmanager
def enough_memory(what: str, mend: str) -> Iterator[None]:
    """One message in place of torch's, if memory runs out in the block.

    Args:
        what: is done in it, as `as models are loaded`.
        mend: what takes less.

    Raises:
        RayloraError: it does.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise RayloraError(f"out of memory {what}; {mend}") from None
        raise
