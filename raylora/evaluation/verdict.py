"""What a trial's curves say about it, with the numbers that say so (guide J2, J3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raylora.config import ScoreConfig
from raylora.errors import DIVERGED

USUAL_RATIO = ScoreConfig().ratio_ref
HARM, NOTHING = 0.25, 0.1
"""Shares of a good LoRA's fall of the held-out loss, 1 - ratio_ref: one that ended further above the base model's loss
does harm, one that fell by less has learned next to nothing. Between them lies what a rate that is far too low leaves
behind (1.0001 times the base model's), so that it isn't told to learn more slowly still."""
REAL = 0.05
"""Of a fall below the base model's loss: seeds move it by 1% (docs/measures.md), so a larger difference is real."""
ASTRAY = -0.05
"""Of the similarity gain, which is 0 for the base model's samples: with less, what the losses praise isn't seen."""

Point = Mapping[str, float]
Curve = Sequence[Point]


@dataclass(frozen=True)
class Verdict:
    """underfit, good, overfit, collapsed, diverged, broken or unknown, and why."""

    label: str
    evidence: str


def judge(curve: Curve, failure: str | None = None, best: Curve = (), ratio_ref: float = USUAL_RATIO) -> Verdict:
    """Judge a trial.

    Falls and rises are taken as shares of what there is to gain: full-size models fall to 0.97 times the base model's
    loss, the demo's to 0.37.

    Args:
        curve: its evaluations in order, each with `holdout_loss` and `holdout_loss_ratio`, and with `similarity_gain`
            where samples were measured.
        failure: why it failed, if it did; then that counts, whatever it had reached.
        best: the curve of the search's best trial: one that learned less is underfit. A trial's own curve can't tell:
            it settles wherever the rate falls to nothing, and good ones may fall longest (docs/measures.md).
        ratio_ref: a good LoRA's held-out loss ratio.
    """
    if failure is not None:
        return Verdict("diverged" if failure.startswith(DIVERGED) else "broken", failure.removeprefix(DIVERGED))
    if not curve:
        return Verdict("unknown", "no evaluation was reached")
    if not all(math.isfinite(point["holdout_loss"]) for point in curve):
        return Verdict("diverged", "the held-out loss is no number")
    ratios, usual = [point["holdout_loss_ratio"] for point in curve], 1 - ratio_ref
    ratio, lowest = ratios[-1], min(ratios)
    if ratio > 1 + HARM * usual:
        return Verdict("collapsed", f"the held-out loss is {ratio:.3f} times the base model's")
    if ratio - lowest > REAL * max(1 - lowest, HARM * usual):
        return Verdict(
            "overfit",
            f"the held-out loss fell to {lowest:.3f} times the base model's and ended at {ratio:.3f}, "
            f"{ratio / lowest - 1:.1%} above its lowest",
        )
    return _by_fall(curve[-1], best, ratio_ref)


def _by_fall(last: Point, best: Curve, ratio_ref: float) -> Verdict:
    """Judge a trial whose loss did not rise: how far it fell, by itself and beside the best one."""
    ratio, rival, enough = last["holdout_loss_ratio"], _rival(last, best), NOTHING * (1 - ratio_ref)
    nothing = (
        f"the held-out loss ended at {ratio:.4f} times the base model's, where a good LoRA's ends near {ratio_ref:g} "
        "(evaluation.score.ratio_ref): next to nothing was learned"
    )
    if _fall(last) <= enough and _is_over(last):
        return Verdict("underfit", nothing)
    if _fall(last) <= enough and (rival is None or _fall(rival) <= enough):
        return Verdict("unknown", f"{nothing} yet when it was stopped, and by the best trial neither")
    if evidence := _learned_less(last, rival):
        return Verdict("underfit", evidence)
    ended = f"the held-out loss ended at {ratio:.3f} times the base model's"
    if (gain := last.get("similarity_gain", 0.0)) < ASTRAY:
        return Verdict(
            "unknown", f"{ended}, but its samples are less like the real images than the base model's ({gain:.2f})"
        )
    return Verdict("good", ended)


def _fall(point: Point) -> float:
    return 1 - point["holdout_loss_ratio"]


def _is_over(last: Point) -> bool:
    """Whether a trial came to its own end, and was not stopped."""
    return bool(last.get("is_over", last.get("is_finished", True)))


def _rival(last: Point, best: Curve) -> Point | None:
    """What the best trial had reached: at its end, or, for one that was stopped, when it had seen as many images."""
    if not _is_over(last):
        best = [point for point in best if point["images_seen"] <= last["images_seen"]]
    return best[-1] if best else None


def _learned_less(last: Point, rival: Point | None) -> str | None:
    """Whether held-out and training images' losses both say so, compared with the best trial's."""
    if rival is None or "train_probe_loss" not in last or last["train_probe_loss"] <= rival["train_probe_loss"]:
        return None
    fall, best_fall = _fall(last), _fall(rival)
    if fall > (1 - REAL) * best_fall:
        return None
    more = last["train_probe_loss"] / rival["train_probe_loss"] - 1
    return (
        f"the held-out loss fell by {fall:.1%} below the base model's, the best trial's by {best_fall:.1%}, and "
        f"the training images' own is {more:.1%} above the best trial's: too little was learned"
    )
