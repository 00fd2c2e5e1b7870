"""Optuna plugged into Ray Tune.

Ray's own `OptunaSearch` tells trials that were stopped early as complete, leaves those that failed running
for ever, and queues the first points again on resume; `search/study.py` does these three rightly.
"""

from __future__ import annotations

import math
from collections.abc import Set
from typing import Any

from ray.tune.search import Searcher

from raylora.execution.results import METRIC, MODE, REPORT, TIME_ATTR, failure_in
from raylora.search.limits import costs_of
from raylora.search.stopping import IS_OVER
from raylora.search.study import Outcome, SearchStudy


class StudySearcher(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Hands out `trials` trials in all, those that an earlier search left running first; fewer where all fail.

    Args:
        given_up: numbers of trials that failed for good; see `rounds.ListSearcher`.
    """

    def __init__(self, study: SearchStudy, trials: int, given_up: Set[int]):
        super().__init__(metric=METRIC, mode=MODE)
        self._study, self._given_up = study, given_up
        self._waiting = study.orphans()
        self._left = trials - study.asked
        self._under_way: dict[str, tuple[int, dict[str, Any]]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._study.is_hopeless:
            return str(Searcher.FINISHED)
        if self._waiting:
            number, params = self._waiting.pop(0)
        elif self._left > 0:
            self._left -= 1
            number, params = self._study.ask()
        else:
            return None if self._under_way else str(Searcher.FINISHED)
        self._under_way[trial_id] = (number, params)
        is_baseline = self._study.has_baseline and number == 0
        went_on_at = self._study.went_on_at(number)  # Tune hands it to the trial scheduler
        return {"number": number, "params": params, "is_baseline": is_baseline, "went_on_at": went_on_at}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._report(self._under_way[trial_id][0], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id not in self._under_way:
            return
        number, params = self._under_way.pop(trial_id)
        if error and number not in self._given_up:
            self._waiting.insert(0, (number, params))
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
