"""Pure decisions on when a trial has seen enough. What Ray's trial schedulers decide is in execution/."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from raylora.dataset.batches import rungs

IS_OVER = "is_over"
"""In a report: the trial has come to its own end, by its last image or because it overfits; its best counts."""


def is_overfitting(curve: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether the held-out loss rose at each of the last `patience` evaluations while similarity set no new best.

    Args:
        curve: evaluations in order, each with `holdout_loss` and `sample_similarity`.
    """
    if len(curve) <= patience:
        return False
    before, recent = curve[:-patience], curve[-patience:]
    losses = [point["holdout_loss"] for point in curve[-patience - 1 :]]
    rising = all(later > earlier for earlier, later in itertools.pairwise(losses))
    best_before = max(point["sample_similarity"] for point in before)
    return rising and max(point["sample_similarity"] for point in recent) <= best_before


Passes = Callable[[float, Sequence[float]], bool]
"""Whether a score passes a rung, given all the scores there, itself included."""


class Rungs:
    """The best scores of trials at each rung that they reached, and a rule on who goes on from there.

    Trials are judged as they come and never paused. One whose own run ends between two rungs counts with its best
    at all later ones.
    """

    def __init__(self, grace_period: int, reduction_factor: float, passes: Passes):
        self._grace_period, self._factor, self._passes = grace_period, reduction_factor, passes
        self._entered: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._ended: dict[int, float] = {}

    def goes_on(self, trial: int, images: int, best_score: float) -> bool:
        """Enter a trial at the highest rung that it has reached, and judge it there, once."""
        reached = itertools.takewhile(lambda rung: rung <= images, rungs(self._grace_period, self._factor))
        entered = self._entered[max(reached, default=0)]
        if images < self._grace_period or trial in entered:
            return True
        entered[trial] = best_score
        return self._passes(best_score, list((self._ended | entered).values()))

    def ends(self, trial: int, best_score: float) -> None:
        """The trial has come to the end of its own run."""
        self._ended[trial] = best_score


def best_share(reduction_factor: float) -> Passes:
    """Among the best 1 / reduction_factor of all; where that is less than one, the best.

    Asynchronous successive halving (ASHA; Li et al. 2020, https://arxiv.org/abs/1810.05934, algorithm 2; with few
    trials as Optuna's `SuccessiveHalvingPruner`). Ray's `AsyncHyperBandScheduler` compares with a percentile of the
    others instead, which lets nearly all through while a rung is thin.
    """

    def passes(score: float, scores: Sequence[float]) -> bool:
        return score >= sorted(scores, reverse=True)[max(1, int(len(scores) / reduction_factor)) - 1]

    return passes


def above_median(score: float, scores: Sequence[float]) -> bool:
    """Not below the median of all (Golovin et al. 2017, Vizier, section 3.2.2, with best scores for averages)."""
    return score >= statistics.median(scores)
