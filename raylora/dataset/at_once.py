"""Several pictures at once: decoding and filters leave the interpreter, so threads share the work."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

MOST_AT_ONCE = 4
"""Pictures in memory, each as large as one that may be read."""
Item = TypeVar("Item")
Made = TypeVar("Made")


def at_once(make: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
    """What is made of each, in their order. What `make` raises of the first that fails is raised."""
    with ThreadPoolExecutor(min(MOST_AT_ONCE, os.cpu_count() or 1)) as pool:
        return list(pool.map(make, items))
