"""Stopping plugged into Ray Tune: trial schedulers that never stop the guide's baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raylora.config import LimitsConfig, SearchConfig
from raylora.execution.results import METRIC, REPORT, TIME_ATTR, failure_in
from raylora.search.limits import over_limits
from raylora.search.stopping import IS_OVER, Rungs, above_median, best_share
from raylora.search.study import SearchStudy
from raylora.tracking.recorder import TrialRecord


class SparingScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray ships no types
    """Stops at rungs, by the best score so far. The baseline's scores count, but it always goes on.

    Reports over a limit are no measure for others: such a trial ends itself, or is the baseline and can't win.

    Args:
        study: which trials are worth going on with is to be asked of it; without one, places at rungs decide alone.
        earlier: records of trials that this search has seen before it was interrupted. Their scores are entered and
            not judged: records don't say in which order they came. A trial that goes on says so by `went_on_at`.
    """

    def __init__(
        self, rungs: Rungs, limits: LimitsConfig, earlier: Sequence[TrialRecord] = (), study: SearchStudy | None = None
    ):
        super().__init__()
        self._rungs, self._limits, self._study = rungs, limits, study
        for record in earlier:
            for report in record.history:
                self._enter(record.number, report)

    def _enter(self, number: int, report: dict[str, Any]) -> None:
        if over_limits(self._limits, report):
            return
        if report.get(IS_OVER):
            self._rungs.ends(number, report[METRIC])
        self._rungs.enter(number, report[TIME_ATTR], report[METRIC])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number, images = trial.config["number"], result[TIME_ATTR]
        if over_limits(self._limits, result) or failure_in(result):
            return str(TrialScheduler.CONTINUE)
        self._enter(number, result)
        goes_on = self._goes_on(number, result, images <= trial.config["went_on_at"])
        return str(TrialScheduler.CONTINUE if goes_on or trial.config["is_baseline"] else TrialScheduler.STOP)

    def _goes_on(self, number: int, result: dict[str, Any], has_gone_on: bool) -> bool:
        """By what it promises for what it costs, where that can be told; else by its place at the rung."""
        by_place = self._rungs.goes_on(number, result[TIME_ATTR], result[METRIC], has_gone_on)
        if self._study is None or has_gone_on:
            return by_place
        self._study.learn(number, *result[REPORT])  # Tune tells the searcher of a report after its scheduler
        is_worth_it = self._study.is_worth_going_on(number)
        return by_place if is_worth_it is None else is_worth_it

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if METRIC in result and not failure_in(result):  # Tune gives a trial's last report here alone
            self._enter(trial.config["number"], result)


def _forecast(config: SearchConfig, earlier: Sequence[TrialRecord], study: SearchStudy | None) -> TrialScheduler:
    rungs = Rungs(config.grace_period, config.reduction_factor, best_share(config.reduction_factor))
    return SparingScheduler(rungs, config.limits, earlier, study)


def _asha(config: SearchConfig, earlier: Sequence[TrialRecord], study: SearchStudy) -> TrialScheduler:
    return _forecast(config, earlier, None)


def _median(config: SearchConfig, earlier: Sequence[TrialRecord], study: SearchStudy) -> TrialScheduler:
    return SparingScheduler(Rungs(config.grace_period, config.reduction_factor, above_median), config.limits, earlier)


def _none(config: SearchConfig, earlier: Sequence[TrialRecord], study: SearchStudy) -> TrialScheduler:
    return FIFOScheduler()


TRIAL_SCHEDULERS: dict[str, Callable[[SearchConfig, Sequence[TrialRecord], SearchStudy], TrialScheduler]] = {
    "forecast": _forecast,
    "asha": _asha,
    "median": _median,
    "none": _none,
}
"""By name: the search's settings, the records of its earlier trials and its study to what Ray Tune asks."""
