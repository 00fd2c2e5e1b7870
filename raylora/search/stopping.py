"""Pure decisions on when a trial has seen enough. What Ray's trial schedulers decide is in execution/."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence


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
