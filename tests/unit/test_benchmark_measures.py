"""The arithmetic of the study of the measures, and what the recorded table holds it to."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from benchmarks.measures.__main__ import in_the_score, targets_of
from benchmarks.measures.effects import GROUPS, effects, regression
from benchmarks.measures.noise import split_noise, spread_by_samples
from benchmarks.measures.table import (
    Training,
    between_and_within,
    early_order,
    late_rises,
    noise_by_image,
    read_trainings,
    spread,
)


def training(number: int, seed: int, *scores: float, length: int = 1200, **params: Any) -> Training:
    """Its points share out its length; losses fall as scores rise."""
    points = [
        {"images_seen": length * (place + 1) // len(scores), "score": score, "holdout_loss": 1 - score / 2}
        | {"holdout_loss_ratio": 1 - score / 2, "similarity_gain": score, "gap": score / 100}
        for place, score in enumerate(scores)
    ]
    return Training("adventurer", number, seed, params, points)


def test_what_means_of_few_seeds_differ_by_is_no_difference_between_configurations() -> None:
    luck = random.Random(0)
    true = [luck.gauss(0, 3) for _ in range(2000)]
    between, within = between_and_within([[value + luck.gauss(0, 4) for _ in range(2)] for value in true])
    assert between == pytest.approx(3, rel=0.05)
    assert within == pytest.approx(4, rel=0.05)
    assert between_and_within([[1.0, -1.0], [-1.0, 1.0]])[0] == 0


def test_trainings_of_unequal_length_are_compared_both_ways() -> None:
    """The short one is ahead at the same number of images and ends in the middle; at a third of its own it is there."""
    steady = {0: 0.1, 1: 0.08, 2: 0.07}
    members = [
        training(number, 0, *[rise * place for place in range(12)], length=600 if number == 1 else 1200)
        for number, rise in steady.items()
    ]
    score = next(row for row in early_order(members) if row["measure"] == "score")
    assert score["a third of its own length"] == pytest.approx(1)
    assert score["400 images"] == pytest.approx(0.5)


def test_a_training_is_looked_at_where_it_was_measured_last() -> None:
    one = training(0, 0, 0.1, 0.2, 0.3)
    assert [one.at(images)["score"] for images in (400, 799, 5000)] == [0.1, 0.1, 0.3]


def test_a_loss_that_rose_again_is_told_with_the_score_at_its_lowest() -> None:
    (row,) = late_rises([training(0, 0, 0.1, 0.5, 0.4), training(1, 0, 0.1, 0.5, 0.6)])
    assert (row["number"], row["score there"], row["score at the end"]) == (0, 0.5, 0.4)


def test_a_regression_finds_each_settings_own_effect_and_its_error() -> None:
    luck = random.Random(1)
    settings = [[luck.choice([0, 1]), luck.gauss(0, 1)] for _ in range(400)]
    found = regression(settings, [5 + 2 * first - 3 * second + luck.gauss(0, 1) for first, second in settings])
    for (effect, error), true in zip(found, (2, -3), strict=True):
        assert effect == pytest.approx(true, abs=3 * error)
    assert found[0][1] == pytest.approx(0.1, rel=0.2)  # a half and a half of 400: 2 / sqrt(400)


def test_noise_is_told_apart_into_loras_images_and_samples() -> None:
    luck = np.random.default_rng(0)
    shape = (300, 2, 10, 8)  # configurations, seeds, images, samples
    cosines = luck.normal(0, 9, (300, 1, 10, 8)) + luck.normal(0, 1, (300, 2, 1, 1))
    cosines += luck.normal(0, 2, (300, 2, 10, 1)) + luck.normal(0, 3, shape)
    parts = split_noise(list(cosines))
    assert parts == pytest.approx({"lora": 1, "image": 4, "sample": 9}, rel=0.25)
    by_samples = {row["samples an image"]: row for row in spread_by_samples(12.0, 4.0, sample=90.0, images=10)}
    assert by_samples[2]["ratio"] == pytest.approx(3)
    assert by_samples[1]["within"] == pytest.approx((16 + 4.5) ** 0.5)


def test_what_all_images_share_of_the_noise() -> None:
    luck = random.Random(2)
    members = []
    for number in range(400):
        for seed in range(2):
            shared = luck.gauss(0, 1)
            one = training(number, seed, 0.5)
            scores = [shared + luck.gauss(0, 10**0.5) for _ in range(10)]
            members.append(Training("adventurer", number, seed, {}, [{**one.end, "image_scores": scores}]))
    row = noise_by_image(members)[0]
    assert row["variance"] == pytest.approx(2, rel=0.15)
    assert row["share"] == pytest.approx(0.5, abs=0.15)


@pytest.fixture(scope="module")
def recorded() -> list[Training]:
    return read_trainings()


def test_the_recorded_table_serves_the_targets(recorded: list[Training]) -> None:
    tables = {"recorded: spread": spread, "recorded: early order": early_order}
    rows = [{"table": name, **row} for name, table in tables.items() for row in table(recorded)]
    found = targets_of(rows)
    assert list(found) == [*(f"{name}_between_over_within" for name in in_the_score()), "early_rank_correlation"]
    assert found["score_between_over_within"]["met"]
    assert found["early_rank_correlation"]["met"]
    assert targets_of([*rows, {"table": "known truths", "score": -2.0}])["known_bad"]["met"] is False


def test_what_cures_say_of_underfit_trials_is_what_the_table_says(recorded: list[Training]) -> None:
    """Each of `evaluation/cures.py` raised the score by over two standard errors, in every group of configurations."""
    named = ("rates doubled", "alpha doubled, rank as it is", "rank doubled, alpha with it", "1,200 images for 600")
    rows = [row for row in effects(recorded) if row["setting"] in named]
    assert len(rows) == len(named) * len(GROUPS)
    assert [row for row in rows if row["score"] < 2 * row["score se"]] == []
