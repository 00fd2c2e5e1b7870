"""Which strength is recommended, from scores of single images."""

from __future__ import annotations

import pytest

from raylora.evaluation.strength import STRENGTHS, recommend

HARD = [0.1, 0.9, 0.4, 0.7, 0.2, 0.6]
"""Images differ far more among each other than by strength."""


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


@pytest.mark.parametrize("images", [0, 1])
def test_nothing_beats_1_by_too_few_images_or_by_nothing(images: int) -> None:
    assert recommend(dict.fromkeys(STRENGTHS, HARD[: images + 1])) == 1.0
    assert recommend({0.8: [0.9], 1.0: [0.1]}) == 1.0
