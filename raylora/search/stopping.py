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
        self._verdicts: defaultdict[int, dict[int, bool]] = defaultdict(dict)
        self._ended: dict[int, float] = {}

    def enter(self, trial: int, images: int, best_score: float) -> int:
        """Write a trial's score down at the highest rung that it has reached; one that stands there already stays.

        Returns:
            The rung, in images; 0 before the first.
        """
        reached = itertools.takewhile(lambda rung: rung <= images, rungs(self._grace_period, self._factor))
        rung = max(reached, default=0)
        self._entered[rung].setdefault(trial, best_score)
        return rung

    def goes_on(self, trial: int, images: int, best_score: float, has_gone_on: bool = False) -> bool:
        """Enter a trial at the highest rung that it has reached, and judge it there, once.

        Args:
            trial: its number.
            images: how many it has seen.
            best_score: its best so far.
            has_gone_on: it was judged before this object was there, and went on; it is not judged again.

        Returns:
            Whether it goes on: the same however often it is asked. Before the first rung every trial does.
        """
        rung = self.enter(trial, images, best_score)
        verdicts, entered = self._verdicts[rung], self._entered[rung]
        if trial not in verdicts:
            scores = list((self._ended | entered).values())
            verdicts[trial] = not rung or has_gone_on or self._passes(entered[trial], scores)
        return verdicts[trial]

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
