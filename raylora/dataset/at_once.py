"""Several pictures at once: decoding and filters leave the interpreter, so threads share the work."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

MOST_AT_ONCE = 4
"""Pictures in work; `pixels.IN_FLIGHT` bounds what of them is in memory."""
Item = TypeVar("Item")
Made = TypeVar("Made")


class Allowance:
    """How much of something all threads together may have at once; whoever would take more waits."""

    def __init__(self, most: int):
        self._most, self._left = most, most
        self._given_back = threading.Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Have so much, or all of it where it is less."""
        amount = min(amount, self._most)
        with self._given_back:
            self._given_back.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            with self._given_back:
                self._left += amount
                self._given_back.notify_all()


def at_once(make: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
    """What is made of each, in their order. What `make` raises of the first that fails is raised."""
    with ThreadPoolExecutor(min(MOST_AT_ONCE, os.cpu_count() or 1)) as pool:
        return list(pool.map(make, items))
