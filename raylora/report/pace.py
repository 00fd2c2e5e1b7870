"""How fast trials see images, how many run at once, and what follows from that for those that are left."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence


class Pace:
    """Measured from report to report, each trial by itself: what goes before the first trial is no training.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._heard: dict[str, tuple[float, int]] = {}
        """Of each trial that runs: when it began or reported, and at how many images."""
        self._images, self._seconds = 0, 0.0
        self.most_at_once = 1

    def hear(self, trial_id: str, images: int) -> None:
        """A trial that began, or has seen so many images."""
        now = self._clock()
        since, before = self._heard.setdefault(trial_id, (now, images))
        if images > before:
            self._images, self._seconds = self._images + images - before, self._seconds + now - since
            self._heard[trial_id] = now, images
        self.most_at_once = max(self.most_at_once, len(self._heard))

    def end(self, trial_id: str) -> None:
        """A trial that runs no more."""
        self._heard.pop(trial_id, None)

    @property
    def per_s(self) -> float | None:
        """Images a second of one trial; None before a report."""
        return self._images / self._seconds if self._images and self._seconds else None

    def since(self, trial_id: str) -> float:
        """Seconds since a trial was heard of; 0 of one that doesn't run."""
        now = self._clock()
        return now - self._heard.get(trial_id, (now, 0))[0]


def makespan(lengths: Sequence[float], at_once: int) -> float:
    """How long all take, each begun in its turn as soon as one of so many places is free."""
    places = [0.0] * at_once
    for length in lengths:
        heapq.heapreplace(places, places[0] + length)
    return max(places)
