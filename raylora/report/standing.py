"""How a search stands: which trials may be shown, how its best score grew, how long its trials still take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

from raylora.tracking.recorder import TrialRecord

MOST_ROWS = 20
BLOCKS = "▁▂▃▄▅▆▇█"
LONGEST_LINE = 40
"""Characters of the line that shows how the best score grew."""
FEWEST_ENDED = 2
"""Trials that must have ended before anything is said of the others' time: the first one is the guide's, which is never
stopped early."""


class Standing:
    """What is known of a search's trials as they are told.

    A search has any number of trials, and each record all reports of its trial, so only those that may still be shown
    are kept: trials under way, those of new seeds, and the best of those that ended.

    Args:
        trials: how many the search has in all.
        earlier: those of before it was interrupted.
        clock: seconds, of any beginning.
    """

    def __init__(self, trials: int, earlier: Sequence[TrialRecord] = (), clock: Callable[[], float] = time.monotonic):
        self.trials, self.ended, self._images_ended = trials, 0, 0
        self._records: dict[str, TrialRecord] = {}
        self._clock, self._began = clock, clock()
        self.growth: list[float] = []
        """The best score once each trial had ended, but those before any score."""
        for record in earlier:
            self.end(record) if _has_ended(record) else self.hear(record)
        self._images_before = self._images

    def hear(self, record: TrialRecord) -> None:
        """A trial that has begun or reported."""
        self._records[record.trial_id] = record

    def end(self, record: TrialRecord) -> None:
        """A trial that has ended: told once of each."""
        self.hear(record)
        if counts(record):
            self.ended += 1
            self._images_ended += record.images_seen
        if best := self.best:
            self.growth.append(best.score)
        self._drop_the_worst()

    def _drop_the_worst(self) -> None:
        ended, best = sorted(filter(_has_ended, self.records), key=lambda record: -record.score), self.best
        for record in ended[MOST_ROWS:]:
            if record is not best:
                del self._records[record.trial_id]

    @property
    def records(self) -> list[TrialRecord]:
        return list(self._records.values())

    @property
    def best(self) -> TrialRecord | None:
        return best_of(self.records)

    @property
    def _under_way(self) -> list[int]:
        """Images that each trial which has not ended has seen."""
        return [record.images_seen for record in self.records if counts(record) and not _has_ended(record)]

    @property
    def _images(self) -> int:
        return self._images_ended + sum(self._under_way)

    @property
    def elapsed_s(self) -> float:
        """Since this part of the search began."""
        return self._clock() - self._began

    @property
    def left_s(self) -> float | None:
        """What the search's trials still take, if they see as many images as those that ended, as fast as so far.

        None where nothing can be told: too few have ended, none has reported since this part began, or all are done.
        """
        seen, under_way = self._images - self._images_before, self._under_way
        if self.ended < FEWEST_ENDED or seen <= 0 or self.ended >= self.trials:
            return None
        each = self._images_ended / self.ended
        waiting = max(0, self.trials - self.ended - len(under_way))
        images = each * waiting + sum(max(0.0, each - so_far) for so_far in under_way)
        return images * self.elapsed_s / seen


def counts(record: TrialRecord) -> bool:
    """Whether it is one of the search's trials, and not one of the best trained again."""
    return record.confirms is None


def _has_ended(record: TrialRecord) -> bool:
    return counts(record) and record.status != "running"


def best_of(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The one that would win by its own score; None before any score."""
    able = [record for record in records if counts(record) and not record.over_limits and math.isfinite(record.score)]
    return max(able, key=lambda record: record.score, default=None)


def sparkline(values: Sequence[float], low: float | None = None, high: float | None = None) -> str:
    """A block for each value, as high as that lies between the lowest and the highest (Tufte's word for such a line).

    Args:
        low, high: other bounds, so that lines compare; what lies beyond them is drawn at them.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    bottom, top = min(finite) if low is None else low, max(finite) if high is None else high
    steps = (len(BLOCKS) - 1) / (top - bottom) if top > bottom else 0.0
    return "".join(
        BLOCKS[round(min(max((value - bottom) * steps, 0), len(BLOCKS) - 1))] if math.isfinite(value) else " "
        for value in values
    )


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 05 min`, `2 d 04 h`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if hours < 48 else f"{hours // 24} d {hours % 24:02} h"
