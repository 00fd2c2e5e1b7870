"""Trials of several searches in one order, for TPE to learn from."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState, create_trial

from raylora.config import LimitsConfig
from raylora.search.limits import excess

PARAMS_KEY = "params"
"""User attribute of a trial that holds the settings it gave, in the settings' own values."""
COSTS_KEY = "costs"
"""User attribute of a trial that holds what it cost, by `limits.COSTS`."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
"""What TPE learns from: trials that came to an end with a score."""


def by_share(group: Sequence[FrozenTrial], limits: LimitsConfig) -> list[FrozenTrial]:
    """The ended trials of a group, each with the share of the group that it beats as its value, between 0 and 1.

    TPE reads nothing of scores but their order (Bergstra et al. 2011, section 4: a quantile parts good from bad), so
    shares keep all that it needs and let groups stand together whose scores are on different scales. A trial's
    share is its place less a half, over the group's size (Hazen's plotting position): the best of few stands below
    the best of many.

    Args:
        group: trials whose scores are on one scale, in any state.

    Returns:
        New trials for those in `ENDED`, in the group's order, complete, with parameters and nothing else of the old.
    """
    ended = [trial for trial in group if trial.state in ENDED]
    places = {id(trial): place for place, trial in enumerate(sorted(ended, key=lambda one: _standing(one, limits)))}
    return [
        create_trial(
            value=(places[id(trial)] + 0.5) / len(ended), params=trial.params, distributions=trial.distributions
        )
        for trial in ended
    ]


def excess_of(trial: FrozenTrial, limits: LimitsConfig) -> float:
    """How far a trial went over the limits; what it cost is kept, so another search's limits serve too."""
    return excess(limits, trial.user_attrs.get(COSTS_KEY, {}))


def _standing(trial: FrozenTrial, limits: LimitsConfig) -> tuple[float, bool, int, float]:
    """TPE's own order: complete trials by score, below them the stopped ones by how far they came, then by score.

    Those that broke limits come last, by how far they went over.
    """
    over = -excess_of(trial, limits)
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None
        return (over, True, 0, trial.value)
    step, score = max(trial.intermediate_values.items(), default=(0, float("-inf")))
    return (over, False, step, score)
