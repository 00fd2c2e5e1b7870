"""How a search stands: which trials may be shown, how its best score grew, how long its trials still take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from raylora.config import SearchConfig
from raylora.report.pace import Pace, makespan
from raylora.tracking.recorder import TrialRecord

MOST_ROWS = 20
BLOCKS = "▁▂▃▄▅▆▇█"
LONGEST_LINE = 40
"""Characters of the line that shows how the best score grew."""
FEWEST_ENDED = 2
"""Trials that must have ended before anything is said of the others' time: the first one is the guide's, which is never
stopped early."""
BEST = 3
"""Trials that stand for those which are trained again."""
LATE = 0.1
"""Of what a trial had left at its last report: so much it still has, however long ago that was."""


@dataclass(frozen=True)
class After:
    """What a search does once its trials have ended."""

    trainings: int = 0
    """With new seeds."""
    has_refit: bool = False
    """Whether the winner's settings are trained on all images."""

    @staticmethod
    def of(search: SearchConfig) -> After:
        """As the settings have it: the best trials, and the first point beside them."""
        again = (search.confirm_trials + 1) * search.confirm_seeds if search.confirm_trials else 0
        return After(again, search.refit)

    @property
    def in_words(self) -> str:
        """`new seeds and the training on all images`; empty where nothing follows."""
        return " and ".join(["new seeds"] * bool(self.trainings) + ["the training on all images"] * self.has_refit)


class Standing:
    """What is known of a search's trials as they are told.

    A search has any number of trials, and each record all reports of its trial, so only those that may still be shown
    are kept: trials under way, those of new seeds, and the best of those that ended.

    Args:
        trials: how many the search has in all.
        earlier: those of before it was interrupted.
        clock: seconds, of any beginning.
        after: what follows the trials.
    """

    def __init__(
        self,
        trials: int,
        earlier: Sequence[TrialRecord] = (),
        clock: Callable[[], float] = time.monotonic,
        after: After = After(),
    ):
        self.trials, self.ended, self._ended_again = trials, 0, 0
        self._ended_at: list[int] = []
        """Images that each trial which has ended has seen."""
        self._records: dict[str, TrialRecord] = {}
        self._clock, self._began, self.after = clock, clock(), after
        self._pace = Pace(clock)
        self.growth: list[float] = []
        """The best score once each trial had ended, but those before any score."""
        for record in earlier:
            self._records[record.trial_id] = record
            if record.status != "running":
                self._count(record)

    def hear(self, record: TrialRecord) -> None:
        """A trial that has begun or reported."""
        self._records[record.trial_id] = record
        self._pace.hear(record.trial_id, record.images_seen)

    def end(self, record: TrialRecord) -> None:
        """A trial that has ended: told once of each."""
        self.hear(record)
        self._pace.end(record.trial_id)
        self._count(record)

    def _count(self, record: TrialRecord) -> None:
        if counts(record):
            self.ended += 1
            self._ended_at.append(record.images_seen)
        else:
            self._ended_again += 1
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
    def elapsed_s(self) -> float:
        """Since this part of the search began."""
        return self._clock() - self._began

    @property
    def left_s(self) -> float | None:
        """What the search still takes, new seeds and the training on all images among it, at the pace of its trials.

        None where nothing can be told: too few trials have ended, none has reported since this part began, or nothing
        is left but what tells nothing on its way.
        """
        trials, again = self._trials_left(), self._again_left()
        if self.ended < FEWEST_ENDED or self._pace.per_s is None or not (trials or again):
            return None
        at_once = self._pace.most_at_once
        images = makespan(trials, at_once) + makespan(again, at_once) + self._of_the_best * self.after.has_refit
        return images / self._pace.per_s

    def _trials_left(self) -> list[float]:
        """Images that each trial still sees which has not ended, those under way first."""
        under_way = [record for record in self.records if counts(record) and not _has_ended(record)]
        waiting = max(0, self.trials - self.ended - len(under_way))
        ends = [(record, self._expected_end(record)) for record in under_way]
        return [*(self._left_of(record, end) for record, end in ends), *[self._mean_end] * waiting]

    def _again_left(self) -> list[float]:
        """The same of trainings with new seeds, each of which ends where its trial was best."""
        under_way = [record for record in self.records if not counts(record) and record.status == "running"]
        ends = [(record, record.params.get("training.stop_at", self._of_the_best)) for record in under_way]
        waiting = max(0, self.after.trainings - self._ended_again - len(under_way))
        return [*(self._left_of(record, end) for record, end in ends), *[self._of_the_best] * waiting]

    def _left_of(self, record: TrialRecord, end: float) -> float:
        """Images from where a trial is by now, which reports seldom; what is late is not told as done."""
        left = max(0.0, end - record.images_seen)
        seen = self._pace.since(record.trial_id) * (self._pace.per_s or 0.0)
        return max(left - seen, left * LATE)

    def _expected_end(self, record: TrialRecord) -> float:
        """Where trials ended that came further than this one; where none did, it is seen up to its next report."""
        beyond = [images for images in self._ended_at if images > record.images_seen]
        if beyond:
            return fmean(beyond)
        seen = [0, *(report["images_seen"] for report in record.history)]
        return record.images_seen + (seen[-1] - seen[-2] if len(seen) > 1 else 0)

    @property
    def _mean_end(self) -> float:
        return fmean(self._ended_at) if self._ended_at else 0.0

    @property
    def _of_the_best(self) -> float:
        """Images at which the best were best: so far trainings with new seeds and the one on all images go."""
        ended = sorted(filter(_has_ended, self.records), key=lambda record: -record.score)[:BEST]
        return fmean((record.best or {"images_seen": 0})["images_seen"] for record in ended) if ended else 0.0


def counts(record: TrialRecord) -> bool:
    """Whether it is one of the search's trials, and not one of the best trained again."""
    return record.confirms is None


def _has_ended(record: TrialRecord) -> bool:
    return counts(record) and record.status != "running"


def best_of(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The one that would win by its own score, and so kept the limits and did not fail; None before any score."""
    able = [
        record
        for record in records
        if counts(record) and record.status != "failed" and not record.over_limits and math.isfinite(record.score)
    ]
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
