"""Stopping plugged into Ray Tune: Ray's own trial schedulers, which never stop the guide's baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from raylora.config import SearchConfig
from raylora.execution.searcher import TIME_ATTR

BEYOND = 1 << 40
"""Above any number of images: reaching `max_t` would stop a trial, so it is never reached."""


class SparingAsha(AsyncHyperBandScheduler):  # type: ignore[misc]  # Ray ships no types
    """ASHA (Li et al. 2020, https://arxiv.org/abs/1810.05934) on the best score so far.

    The baseline's scores count at its rungs, but it always goes on. A trial whose own run ends between two
    rungs is entered with its best at all later ones, so that longer trials have it to beat.
    """

    def __init__(self, grace_period: int, reduction_factor: float):
        super().__init__(
            time_attr=TIME_ATTR, grace_period=grace_period, reduction_factor=reduction_factor, max_t=BEYOND
        )
        self._first_rung, self._factor = float(grace_period), reduction_factor

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action = super().on_trial_result(tune_controller, trial, result)
        return str(TrialScheduler.CONTINUE) if is_baseline(trial.config) else str(action)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if result.get("is_finished"):
            for rung in self._rungs_beyond(result[TIME_ATTR]):
                super().on_trial_result(tune_controller, trial, {**result, TIME_ATTR: rung})
        super().on_trial_complete(tune_controller, trial, result)

    def _rungs_beyond(self, images: float) -> Iterator[float]:
        rung = self._first_rung
        while rung < BEYOND:
            if rung > images:
                yield rung
            rung *= self._factor


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


def _asha(config: SearchConfig) -> TrialScheduler:
    return SparingAsha(config.grace_period, config.reduction_factor)


def _median(config: SearchConfig) -> TrialScheduler:
    return SparingMedian(time_attr=TIME_ATTR, grace_period=config.grace_period)


def _none(config: SearchConfig) -> TrialScheduler:
    return FIFOScheduler()


TRIAL_SCHEDULERS: dict[str, Callable[[SearchConfig], TrialScheduler]] = {
    "asha": _asha,
    "median": _median,
    "none": _none,
}
