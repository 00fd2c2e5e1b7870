"""Optuna plugged into Ray Tune.

Ray's own `OptunaSearch` tells trials that were stopped early as complete, leaves those that failed running
for ever, and queues the first points again on resume; `search/study.py` does these three rightly.
"""

from __future__ import annotations

import math
from typing import Any

from ray.tune.search import Searcher

from raylora.execution.results import METRIC, MODE, REPORT, TIME_ATTR, failure_in
from raylora.search.limits import costs_of
from raylora.search.stopping import IS_OVER
from raylora.search.study import Outcome, SearchStudy


class StudySearcher(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Hands out `trials` trials in all, those that an earlier search left running first; fewer where all fail."""

    def __init__(self, study: SearchStudy, trials: int):
        super().__init__(metric=METRIC, mode=MODE)
        self._study = study
        self._waiting = study.orphans()
        self._left = trials - study.asked
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._study.is_hopeless:
            return str(Searcher.FINISHED)
        if self._waiting:
            number, params = self._waiting.pop(0)
        elif self._left > 0:
            self._left -= 1
            number, params = self._study.ask()
        else:
            return str(Searcher.FINISHED)
        self._numbers[trial_id] = number
        is_baseline = self._study.has_baseline and number == 0
        went_on_at = self._study.went_on_at(number)  # Tune hands it to the trial scheduler
        return {"number": number, "params": params, "is_baseline": is_baseline, "went_on_at": went_on_at}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._report(self._numbers[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        result = result or {}
        outcome = _outcome(result, error or failure_in(result) is not None)
        if outcome is not Outcome.FAILED:  # Tune gives the report that ends a trial here alone
            self._report(number, result)
        self._study.tell(number, outcome, result.get(METRIC), costs_of(result))

    def _report(self, number: int, result: dict[str, Any]) -> None:
        if result[TIME_ATTR]:  # a trial that isn't trained, for its size, was not measured either; nor is a failure
            self._study.report(number, result[TIME_ATTR], result[METRIC])
            self._study.learn(number, *result[REPORT])

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its parts to restore them; this one's state is the study's journal."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do: the study's journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do: the study's journal is the state."""


def _outcome(result: dict[str, Any], error: bool) -> Outcome:
    is_measured = bool(result.get(TIME_ATTR, True))
    if error or (is_measured and not math.isfinite(result.get(METRIC, math.nan))):
        return Outcome.FAILED
    return Outcome.FINISHED if result.get(IS_OVER) else Outcome.STOPPED_EARLY
