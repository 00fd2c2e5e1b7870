"""Which strength is recommended, from scores of single images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean
from types import SimpleNamespace

import numpy as np
import pytest

from raylora.evaluation.scorecard import Evaluation, Reference
from raylora.evaluation.strength import CHANCE, STRENGTHS, recommend, sweep_strengths

REFERENCE = Reference(holdout_loss=1.0, sample_similarity=0.0, ceiling_similarity=1.0)
HARD = [0.1, 0.9, 0.4, 0.7, 0.2, 0.6]
"""Images differ far more among each other than by strength."""


class Measured:
    """An evaluator whose images gain by strength, and whose samples copy as much as is said for each strength."""

    def __init__(self, copying: dict[float, float]):
        self._copying, self._strength = copying, 1.0
        self.adapter = SimpleNamespace(at_strength=self._at, base=None)

    @contextmanager
    def _at(self, strength: float) -> Iterator[None]:
        self._strength = strength
        yield

    def measure(self, base: object, reference: Reference) -> Evaluation:
        image_scores = [own + self._strength + 0.01 * place for place, own in enumerate(HARD)]
        return Evaluation({"score": mean(image_scores) - self._copying[self._strength]}, image_scores, [])


def scores(leads: dict[float, list[float]]) -> dict[float, list[float]]:
    """Scores at every strength: at 1 the images' own, elsewhere with a lead over it."""
    return {
        strength: [own + lead for own, lead in zip(HARD, leads.get(strength, [-0.3] * len(HARD)), strict=True)]
        for strength in STRENGTHS
    } | {1.0: HARD}


def test_a_small_lead_on_every_image_counts() -> None:
    assert recommend(scores({0.8: [0.02, 0.03, 0.02, 0.03, 0.02, 0.03]})) == 0.8


def test_a_larger_lead_that_may_be_chance_does_not() -> None:
    assert recommend(scores({0.8: [0.5, -0.3, 0.4, -0.2, 0.3, -0.1]})) == 1.0


def test_the_best_of_several_sure_leads_is_taken() -> None:
    assert recommend(scores({0.6: [0.02] * 5 + [0.03], 0.8: [0.05] * 5 + [0.06], 1.2: [0.01] * 6})) == 0.8


def test_where_no_strength_is_better_another_is_seldom_named() -> None:
    random = np.random.default_rng(0)
    named = [
        recommend({strength: random.normal(size=4).tolist() for strength in STRENGTHS}) != 1.0 for _ in range(2000)
    ]
    assert np.mean(named) <= CHANCE


def test_copying_counts_against_a_strength() -> None:
    evaluator = Measured({0.4: 0.0, 0.6: 0.0, 0.8: 0.0, 1.0: 0.0, 1.2: 0.0})
    assert sweep_strengths(evaluator.adapter, evaluator, REFERENCE).recommended == 1.2  # type: ignore[arg-type]
    evaluator = Measured({0.4: 0.0, 0.6: 0.0, 0.8: 0.0, 1.0: 0.0, 1.2: 0.9})
    assert sweep_strengths(evaluator.adapter, evaluator, REFERENCE).recommended == 1.0  # type: ignore[arg-type]


@pytest.mark.parametrize("images", [0, 1])
def test_nothing_beats_1_by_too_few_images_or_by_nothing(images: int) -> None:
    assert recommend(dict.fromkeys(STRENGTHS, HARD[: images + 1])) == 1.0
    assert recommend({0.8: [0.9], 1.0: [0.1]}) == 1.0
