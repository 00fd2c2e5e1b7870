"""What a trial's curves say about it, with the numbers that say so (guide J2, J3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raylora.errors import DIVERGED

COLLAPSED_RATIO = 1.0
"""A held-out loss above the base model's own: the LoRA does harm."""
RISE = 0.01
"""The held-out loss moves by under 1% between seeds, so a larger rise above its lowest is real."""
SHORT = 0.05
"""A fall of the held-out loss below the base model's that is by over 5% smaller than the best trial's; seeds: 1%."""

Curve = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Verdict:
    """underfit, good, overfit, collapsed, diverged, broken or unknown, and why."""

    label: str
    evidence: str


def judge(curve: Curve, failure: str | None = None, best: Curve = ()) -> Verdict:
    """Judge a trial.

    Args:
        curve: its evaluations in order, each with `holdout_loss` and `holdout_loss_ratio`.
        failure: why it failed, if it did; then that counts, whatever it had reached.
        best: the curve of the search's best trial: one that learned less is underfit. A trial's own curve can't tell:
            it settles wherever the rate falls to nothing, and good ones may fall longest (docs/measures.md).
    """
    if failure is not None:
        return Verdict("diverged" if failure.startswith(DIVERGED) else "broken", failure.removeprefix(DIVERGED))
    if not curve:
        return Verdict("unknown", "no evaluation was reached")
    losses = [point["holdout_loss"] for point in curve]
    ratio = curve[-1]["holdout_loss_ratio"]
    if not all(math.isfinite(loss) for loss in losses):
        return Verdict("diverged", "the held-out loss is no number")
    if ratio > COLLAPSED_RATIO:
        return Verdict("collapsed", f"the held-out loss is {ratio:.2f} times the base model's")
    rise = losses[-1] / min(losses) - 1
    if rise > RISE:
        return Verdict("overfit", f"the held-out loss ended {rise:.1%} above its lowest")
    if evidence := _learned_less(curve[-1], best):
        return Verdict("underfit", evidence)
    return Verdict("good", f"the held-out loss ended at {ratio:.2f} times the base model's")


def _learned_less(last: Mapping[str, float], best: Curve) -> str | None:
    """Whether held-out and training images' losses both say so, compared with the best trial's end.

    A trial that was stopped is compared with the best one when that had seen as many images.
    """
    if not last.get("is_over"):
        best = [point for point in best if point["images_seen"] <= last["images_seen"]]
    if not best or "train_probe_loss" not in last or last["train_probe_loss"] <= best[-1]["train_probe_loss"]:
        return None
    fall, best_fall = 1 - last["holdout_loss_ratio"], 1 - best[-1]["holdout_loss_ratio"]
    if fall > (1 - SHORT) * best_fall:
        return None
    more = last["train_probe_loss"] / best[-1]["train_probe_loss"] - 1
    return (
        f"the held-out loss fell by {fall:.1%} below the base model's, the best trial's by {best_fall:.1%}, and "
        f"the training images' own is {more:.1%} above the best trial's: too little was learned"
    )
