"""Answers of what is slow to ask, ready at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

SOON_S = 0.5
"""While there is no answer yet, as before a cluster is there."""


class Refreshed:
    """The last answer of something that is asked again and again in a thread of its own, while the block lasts.

    Whoever calls this never waits: a cluster that doesn't answer costs what it would have said.

    Args:
        ask: it raises nothing.
        every_s: seconds between two questions, once there was an answer.
    """

    def __init__(self, ask: Callable[[], str], every_s: float):
        self._ask, self._every_s = ask, every_s
        self._last, self._is_over = "", threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="refreshed", daemon=True)

    def __call__(self) -> str:
        return self._last

    def __enter__(self) -> Refreshed:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()  # and not waited for: a driver may not answer any more

    def _go_on(self) -> None:
        while not self._is_over.is_set():
            self._last = self._ask()
            self._is_over.wait(self._every_s if self._last else min(self._every_s, SOON_S))
