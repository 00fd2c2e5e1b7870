"""Which of a search's trials are weighed against each other, for the answer as for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raylora.config_search import GROWS_WITH_TRAINING
from raylora.tracking.recorder import TrialRecord, measures


def weighed(trials: Sequence[TrialRecord], named: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
    """The measures, each trial's at its best, of those that may be on the front: measured, and within all limits.

    Where a cost counts that grows with training, finished ones alone: one that was cut off would be cheap for that.

    Args:
        named: `search.tradeoffs`.
    """
    fit = ("finished",) if set(named) & set(GROWS_WITH_TRAINING) else ("finished", "stopped_early")
    able = [trial for trial in trials if trial.best and trial.status in fit and not trial.over_limits]
    return {trial.trial_id: measures(trial.best or {}) for trial in able}
