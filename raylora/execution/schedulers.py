"""Stopping plugged into Ray Tune: trial schedulers that never stop the guide's baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, MedianStoppingRule, TrialScheduler

from raylora.config import SearchConfig
from raylora.execution.searcher import METRIC, TIME_ATTR
from raylora.search.stopping import SuccessiveHalving
from raylora.tracking.recorder import TrialRecord


class SparingAsha(FIFOScheduler):  # type: ignore[misc]  # Ray ships no types
    """Successive halving on the best score so far. The baseline's scores count, but it always goes on.

    Args:
        earlier: records of trials that this search has seen before it was interrupted.
    """

    def __init__(self, rule: SuccessiveHalving, earlier: Sequence[TrialRecord] = ()):
        super().__init__()
        self._rule = rule
        for record in earlier:
            for report in record.history:
                self._hear(record.number, report)

    def _hear(self, number: int, report: dict[str, Any]) -> bool:
        if report["is_finished"]:
            self._rule.ends(number, report[METRIC])
        return self._rule.goes_on(number, report[TIME_ATTR], report[METRIC])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self._hear(trial.config["number"], result)
        return str(TrialScheduler.CONTINUE if goes_on or is_baseline(trial.config) else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if METRIC in result:  # Tune gives a trial's last report here alone
            self._hear(trial.config["number"], result)


class SparingMedian(MedianStoppingRule):  # type: ignore[misc]  # Ray ships no types
    """Stops a trial below the median of the others' running averages (Golovin et al. 2017, Vizier)."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if is_baseline(trial.config):
            super().on_trial_complete(tune_controller, trial, result)  # counts it without judging it
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))


def is_baseline(config: dict[str, Any]) -> bool:
    """The first trial of a search is the guide's own configuration."""
    return bool(config.get("number") == 0)


def _asha(config: SearchConfig, earlier: Sequence[TrialRecord]) -> TrialScheduler:
    return SparingAsha(SuccessiveHalving(config.grace_period, config.reduction_factor), earlier)


def _median(config: SearchConfig, earlier: Sequence[TrialRecord]) -> TrialScheduler:
    return SparingMedian(time_attr=TIME_ATTR, grace_period=config.grace_period)


def _none(config: SearchConfig, earlier: Sequence[TrialRecord]) -> TrialScheduler:
    return FIFOScheduler()


TRIAL_SCHEDULERS: dict[str, Callable[[SearchConfig, Sequence[TrialRecord]], TrialScheduler]] = {
    "asha": _asha,
    "median": _median,
    "none": _none,
}
"""By name: the search's settings and the records of its earlier trials to what Ray Tune asks."""
