"""Optuna plugged into Ray Tune.

Ray's own `OptunaSearch` tells trials that were stopped early as complete, leaves those that failed running
for ever, and queues the first points again on resume; `search/study.py` does these three rightly.
"""

from __future__ import annotations

import math
from typing import Any

from raylora.execution.handing_out import ListSearcher
from raylora.execution.results import METRIC, REPORT, TIME_ATTR, failure_in
from raylora.search.limits import costs_of
from raylora.search.stopping import IS_OVER
from raylora.search.study import Outcome, SearchStudy


class StudySearcher(ListSearcher):
    """Hands out `trials` trials in all, those that an earlier search left running first; fewer where all fail."""

    def __init__(self, study: SearchStudy, trials: int):
        self._study, self._left = study, trials - study.asked
        super().__init__([self._config(number, params) for number, params in study.orphans()])

    def _next(self) -> dict[str, Any] | None:
        if self._study.is_hopeless:
            return None
        config = super()._next()
        if config is None and self._left > 0:
            self._left -= 1
            config = self._config(*self._study.ask())
        # how far it was let go: Tune hands it to the trial scheduler
        return config and {**config, "went_on_at": self._study.went_on_at(config["number"])}

    def _config(self, number: int, params: dict[str, Any]) -> dict[str, Any]:
        return {"number": number, "params": params, "is_baseline": self._study.has_baseline and number == 0}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._report(self._under_way[trial_id]["number"], result)

    def _ended(self, number: int, result: dict[str, Any], error: bool) -> None:
        outcome = _outcome(result, error or failure_in(result) is not None)
        if outcome is not Outcome.FAILED:  # Tune gives the report that ends a trial here alone
            self._report(number, result)
        self._study.tell(number, outcome, result.get(METRIC), costs_of(result))

    def _report(self, number: int, result: dict[str, Any]) -> None:
        if result[TIME_ATTR]:  # a trial that isn't trained, for its size, was not measured either; nor is a failure
            self._study.report(number, result[TIME_ATTR], result[METRIC])
            self._study.learn(number, *result[REPORT])


def _outcome(result: dict[str, Any], error: bool) -> Outcome:
    is_measured = bool(result.get(TIME_ATTR, True))
    if error or (is_measured and not math.isfinite(result.get(METRIC, math.nan))):
        return Outcome.FAILED
    return Outcome.FINISHED if result.get(IS_OVER) else Outcome.STOPPED_EARLY
