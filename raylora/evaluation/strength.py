"""At which strength a LoRA is best used: programs that load one multiply its change by a number that users guess."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.special import stdtrit

from raylora.dataset.pixels import Pixels
from raylora.diffusion.adapters import Adapter
from raylora.evaluation.scorecard import Evaluation, Evaluator, Reference

STRENGTHS = (0.4, 0.6, 0.8, 1.0, 1.2)
AS_TRAINED = 1.0
CHANCE = 0.05
"""How often another strength than 1 may be named where none is better."""


@dataclass(frozen=True)
class StrengthSweep:
    """What a LoRA reaches at each strength."""

    recommended: float
    scores: dict[float, float]
    samples: dict[float, Sequence[Pixels]]
    """images x seeds pictures each, image by image."""


def sweep_strengths(adapter: Adapter, evaluator: Evaluator, reference: Reference) -> StrengthSweep:
    """Measure an active adapter at `STRENGTHS`."""
    found: dict[float, Evaluation] = {}
    for strength in STRENGTHS:
        with adapter.at_strength(strength):
            found[strength] = evaluator.measure(adapter.base, reference)
    return StrengthSweep(
        recommended=recommend({strength: _whole_scores(evaluation) for strength, evaluation in found.items()}),
        scores={strength: evaluation.metrics["score"] for strength, evaluation in found.items()},
        samples={strength: evaluation.samples for strength, evaluation in found.items()},
    )


def _whole_scores(evaluation: Evaluation) -> list[float]:
    """Of each held-out image, less what copying costs them all: their mean is the score."""
    copying = mean(evaluation.image_scores) - evaluation.metrics["score"]
    return [score - copying for score in evaluation.image_scores]


def recommend(image_scores: Mapping[float, Sequence[float]]) -> float:
    """The strength with the best mean score, or 1 where its lead over 1 may be chance.

    The same held-out images, timesteps, noises and seeds are measured at every strength, so differences are taken image
    by image: what makes an image easy or hard drops out of them. A paired t-test, one-sided; its level is shared among
    the strengths that were tried (Bonferroni), since the best of them is looked at.

    Args:
        image_scores: by strength, the score of each held-out image, in one order; 1.0 is among the strengths.
    """
    best = max(image_scores, key=lambda strength: mean(image_scores[strength]))
    leads = [ours - as_trained for ours, as_trained in zip(image_scores[best], image_scores[AS_TRAINED], strict=True)]
    if len(leads) < 2:
        return AS_TRAINED
    needed = stdtrit(len(leads) - 1, 1 - CHANCE / (len(image_scores) - 1))  # of Student's t
    return best if mean(leads) > needed * stdev(leads) / math.sqrt(len(leads)) else AS_TRAINED
