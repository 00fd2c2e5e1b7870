"""Pure decisions on when a trial has seen enough. What Ray's trial schedulers decide is in execution/."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

from raylora.dataset.batches import rungs


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


class SuccessiveHalving:
    """Which trials go on from each rung: asynchronous successive halving (ASHA), the kind that stops and never pauses.

    A trial passes a rung if its best score is among the best 1 / reduction_factor of all that have reached the
    rung so far, itself included; where so few have come that this is less than one, it must be the best of them.
    (Li et al. 2020, https://arxiv.org/abs/1810.05934, algorithm 2; with few trials as Optuna's
    `SuccessiveHalvingPruner` does. Ray's `AsyncHyperBandScheduler` compares with a percentile of the others
    instead, which lets nearly all through while a rung is thin.)

    A trial whose own run ends between two rungs counts with its best at all later ones.
    """

    def __init__(self, grace_period: int, reduction_factor: float):
        self._grace_period, self._factor = grace_period, reduction_factor
        self._entered: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._ended: dict[int, float] = {}

    def goes_on(self, trial: int, images: int, best_score: float) -> bool:
        """Enter a trial at the highest rung that it has reached, and judge it there, once."""
        rung = self._rung_below(images)
        entered = self._entered[rung]
        if rung == 0 or trial in entered:
            return True
        entered[trial] = best_score
        scores = sorted((self._ended | entered).values(), reverse=True)
        return best_score >= scores[max(1, int(len(scores) / self._factor)) - 1]

    def ends(self, trial: int, best_score: float) -> None:
        """The trial has come to the end of its own run."""
        self._ended[trial] = best_score

    def _rung_below(self, images: int) -> int:
        """The highest rung reached, 0 before the first."""
        reached = itertools.takewhile(lambda rung: rung <= images, rungs(self._grace_period, self._factor))
        return max(reached, default=0)
