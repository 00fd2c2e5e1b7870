"""Measures against values worked out by hand, and the decisions made from them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raylora.config import ScoreConfig
from raylora.evaluation.scorecard import (
    NARROWEST_GAIN_SPAN,
    ImageSet,
    Reference,
    is_finite,
    sample_grid,
    score,
    similarity_gain,
)
from raylora.evaluation.similarity import copying, diversity, paired_similarity, prompt_alignment
from raylora.evaluation.verdict import Verdict, judge
from raylora.search.stopping import is_overfitting
from raylora.tracking.recorder import TrialRecord, measures, read_records
from raylora.training.fit import evaluation_points

EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)
BETWEEN = (0.6, 0.8)
"""cos 0.6 to EAST, 0.8 to NORTH."""

REFERENCE = Reference(holdout_loss=0.2, sample_similarity=0.5, ceiling_similarity=0.9)


def vectors(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows)


def curve(
    losses: list[float], similarities: list[float] | None = None, base_loss: float = 1.0
) -> list[dict[str, float]]:
    return [
        {"holdout_loss": loss, "holdout_loss_ratio": loss / base_loss, "sample_similarity": similarity}
        for loss, similarity in zip(losses, similarities or [0.5] * len(losses), strict=True)
    ]


def test_paired_similarity_is_the_mean_cosine_with_ones_own_image() -> None:
    assert paired_similarity(vectors(EAST, BETWEEN), vectors(EAST, NORTH)) == pytest.approx((1 + 0.8) / 2)
    assert paired_similarity(vectors(WEST), vectors(EAST)) == pytest.approx(-1)


def test_paired_similarity_takes_samples_image_by_image() -> None:
    samples = vectors(EAST, BETWEEN, NORTH, WEST)
    assert paired_similarity(samples, vectors(EAST, NORTH)) == pytest.approx((1 + 0.6 + 1 + 0) / 4)


def test_paired_similarity_tells_right_pairs_from_wrong_ones() -> None:
    real = vectors(EAST, NORTH)
    assert paired_similarity(vectors(EAST, NORTH), real) == 1
    assert paired_similarity(vectors(NORTH, EAST), real) == 0


def test_copying_is_nearness_of_samples_less_that_of_held_out_images() -> None:
    value = copying(samples=vectors(EAST, NORTH), holdout=vectors(BETWEEN), train=vectors(EAST, WEST))
    assert value == pytest.approx((1 + 0) / 2 - 0.6)


def test_copying_is_positive_for_copies_and_negative_for_samples_far_off() -> None:
    train, holdout = vectors(EAST), vectors(BETWEEN)
    assert copying(vectors(EAST, EAST), holdout, train) == pytest.approx(0.4)
    assert copying(vectors(WEST), holdout, train) == pytest.approx(-1.6)
    assert copying(holdout, holdout, train) == 0


def test_diversity_is_the_mean_distance_of_two_samples() -> None:
    assert diversity(vectors(EAST, NORTH, BETWEEN)) == pytest.approx(1 - (0 + 0.6 + 0.8) / 3)
    assert diversity(vectors(EAST, EAST, EAST)) == pytest.approx(0)
    assert diversity(vectors(EAST, WEST)) == pytest.approx(2)
    assert diversity(vectors(EAST)) == 0


def test_prompt_alignment_is_the_mean_cosine_with_ones_own_prompt() -> None:
    assert prompt_alignment(vectors(EAST, BETWEEN), vectors(EAST, EAST)) == pytest.approx(0.8)


@pytest.mark.parametrize(("similarity", "gain"), [(0.5, 0.0), (0.9, 1.0), (0.7, 0.5), (0.4, -0.25)])
def test_similarity_gain_is_0_at_the_base_and_1_at_the_ceiling(similarity: float, gain: float) -> None:
    assert similarity_gain(similarity, REFERENCE) == pytest.approx(gain)


@pytest.mark.parametrize("ceiling", [0.5, 0.52, 0.3])
def test_similarity_gain_does_not_blow_up_where_base_and_ceiling_meet(ceiling: float) -> None:
    reference = replace(REFERENCE, ceiling_similarity=ceiling)
    assert similarity_gain(0.51, reference) == pytest.approx(0.01 / NARROWEST_GAIN_SPAN)


def test_the_score_is_its_formula() -> None:
    weights = ScoreConfig(w_loss=2.0, w_sim=0.5, w_copy=0.25, ratio_ref=0.6)
    measured = {"holdout_loss_ratio": 0.8, "similarity_gain": 0.3, "copying": 0.1}
    assert score(measured, weights) == pytest.approx(2.0 * 0.2 / 0.4 + 0.5 * 0.3 - 0.25 * 0.1)


def test_the_score_of_the_base_is_0_and_that_of_a_good_lora_the_sum_of_the_weights() -> None:
    base = {"holdout_loss_ratio": 1.0, "similarity_gain": 0.0, "copying": 0.0}
    good = {"holdout_loss_ratio": 0.97, "similarity_gain": 1.0, "copying": 0.0}
    assert score(base, ScoreConfig()) == 0
    assert score(good, ScoreConfig()) == pytest.approx(1.5)


def test_copies_cost_and_distance_earns_nothing() -> None:
    measured = {"holdout_loss_ratio": 1.0, "similarity_gain": 0.0}
    weights = ScoreConfig(w_copy=0.5)
    assert score({**measured, "copying": 0.2}, weights) == pytest.approx(-0.1)
    assert score({**measured, "copying": -0.2}, weights) == 0
    assert score(measured, weights) == 0


@pytest.mark.parametrize("measure", ["holdout_loss_ratio", "similarity_gain", "copying"])
def test_the_score_is_no_number_where_a_measure_is_none(measure: str) -> None:
    measured = {"holdout_loss_ratio": 0.9, "similarity_gain": 0.1, "copying": 0.1, measure: math.nan}
    assert math.isnan(score(measured, ScoreConfig()))


def test_is_finite() -> None:
    assert is_finite({"a": 1.0, "b": -2.0})
    assert not is_finite({"a": 1.0, "b": math.nan})
    assert not is_finite({"a": math.inf})


def test_sample_grid_puts_rows_of_pictures_on_white() -> None:
    black = np.zeros((3, 8, 6, 3), dtype=np.uint8)
    grid = sample_grid([black, black[:1]], gap_px=2)
    assert grid.shape == (2 * (8 + 2) + 2, 3 * (6 + 2) + 2, 3)
    assert (grid[2:10, 2:8] == 0).all()
    assert (grid[12:20, 2:8] == 0).all()
    assert (grid[11:21, 9:] == 255).all()
    assert (grid == 0).sum() == 4 * 8 * 6 * 3


def test_sample_grid_keeps_the_pictures_apart_and_in_order() -> None:
    shades = np.arange(1, 7, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((4, 4, 3), dtype=np.uint8)
    grid = sample_grid(list(shades))
    assert [[int(grid[2 + 6 * row, 2 + 6 * column, 0]) for column in range(3)] for row in range(2)] == [
        [1, 2, 3],
        [4, 5, 6],
    ]


def test_the_first_images_of_a_set() -> None:
    pixels, latents = list(np.zeros((5, 8, 16, 3), np.uint8)), list(torch.arange(5.0))
    images = ImageSet(pixels, latents, list("abcde"), torch.zeros(5, 2), torch.zeros(5, 6))
    first = images.first(2)
    assert (first.sizes, list(first.latents), list(first.captions)) == ([(16, 8)] * 2, [0.0, 1.0], ["a", "b"])
    assert (len(first.embeddings), len(first.time_ids)) == (2, 2)
    assert len(images.first(99).captions) == 5


def test_a_reference_survives_json() -> None:
    assert Reference(**REFERENCE.as_dict()) == REFERENCE


@pytest.mark.parametrize(
    ("losses", "label"),
    [
        ([], "unknown"),
        ([0.9], "good"),
        ([0.9, 0.8, 0.7], "good"),
        ([0.9, 0.8, 0.79], "good"),
        ([0.9, 0.8, 0.805], "good"),
        ([0.9, 0.8, 0.815], "overfit"),
        ([0.8, 0.9, 0.85], "overfit"),
        ([0.9, 1.2], "collapsed"),
        ([1.3, 1.2], "collapsed"),
        ([0.9, math.nan], "diverged"),
        ([math.nan, 0.9], "diverged"),
        ([0.9, math.inf], "diverged"),
    ],
)
def test_verdicts(losses: list[float], label: str) -> None:
    verdict = judge(curve(losses))
    assert verdict.label == label
    assert verdict.evidence


@pytest.mark.parametrize(
    ("ratios", "label"),
    [
        ([0.99, 0.97], "good"),
        ([0.98, 0.970, 0.971], "good"),
        ([0.98, 0.970, 0.979], "overfit"),
        ([1.0, 1.0001], "underfit"),
        ([1.0, 0.9999, 1.0001], "underfit"),
        ([0.999, 0.998], "underfit"),
        ([0.999, 0.996], "good"),
        ([0.99, 1.004], "overfit"),
        ([1.01, 1.02], "collapsed"),
    ],
)
def test_verdicts_where_full_size_models_losses_lie(ratios: list[float], label: str) -> None:
    """A rate that is far too low ends at the base model's own loss: it must not be told to be lower still."""
    verdict = judge(curve(ratios))
    assert verdict.label == label, verdict.evidence


def test_a_trial_that_was_stopped_has_not_learned_nothing_yet() -> None:
    """Beside one that had fallen as little by then."""
    best = trained((100, 0.9995, 0.9995), (400, 0.97, 0.96))
    assert judge(trained((100, 0.9996, 0.9994), is_over=False), best=best).label == "unknown"
    assert judge(trained((50, 0.9996, 0.9994), is_over=False), best=best).label == "unknown"
    assert judge(trained((400, 0.9996, 0.9994), is_over=False), best=best).label == "underfit"
    assert judge(trained((400, 0.9996, 0.9994)), best=best).label == "underfit"


def trained(*points: tuple[int, float, float], is_over: bool = True) -> list[dict[str, float]]:
    """Images, held-out loss and training images' loss of each evaluation, where the base model's loss is 1."""
    found = [
        {"images_seen": images, "holdout_loss": loss, "holdout_loss_ratio": loss, "train_probe_loss": probe}
        for images, loss, probe in points
    ]
    return [*found[:-1], {**found[-1], "is_over": is_over}]


@pytest.mark.parametrize(
    ("curve", "label"),
    [
        (trained((100, 0.6, 0.6), (400, 0.5, 0.49), (1200, 0.495, 0.485)), "underfit"),
        (trained((100, 0.6, 0.6), (400, 0.41, 0.4), (1200, 0.405, 0.39)), "good"),
        (trained((100, 0.6, 0.6), (400, 0.5, 0.29), (1200, 0.495, 0.2)), "good"),
        (trained((100, 0.55, 0.55), is_over=False), "good"),
        (trained((100, 0.7, 0.7), is_over=False), "underfit"),
        (trained((50, 0.9, 0.9), is_over=False), "good"),
        (trained((50, 0.9, 0.9)), "underfit"),
    ],
    ids=["learned less", "as much", "learned its own", "stopped, as far", "stopped, less far", "too early", "short"],
)
def test_underfit_is_told_by_the_best_trial(curve: list[dict[str, float]], label: str) -> None:
    """A stopped trial is compared at as many images; one that ended by itself, with the best one's end."""
    best = trained((100, 0.55, 0.5), (400, 0.45, 0.4), (1200, 0.4, 0.3))
    assert judge(curve, best=best).label == label
    assert judge(best, best=best).label == "good"


@pytest.mark.parametrize("losses", [[], [0.9, 0.8, 0.79]])
def test_a_trial_that_failed_is_diverged_or_broken_whatever_it_had_reached(losses: list[float]) -> None:
    assert judge(curve(losses), "out of GPU memory") == Verdict("broken", "out of GPU memory")
    assert judge(curve(losses), "diverged: the loss is no number") == Verdict("diverged", "the loss is no number")


def test_a_verdict_gives_its_numbers() -> None:
    assert "10.0%" in judge(curve([0.5, 0.55])).evidence
    assert "1.250 times" in judge(curve([0.25], base_loss=0.2)).evidence


@pytest.mark.parametrize(
    ("losses", "similarities", "patience", "stops"),
    [
        ([0.5, 0.6, 0.7], [0.5, 0.5, 0.4], 2, True),
        ([0.5, 0.6, 0.7], [0.5, 0.5, 0.6], 2, False),
        ([0.5, 0.6, 0.7], [0.5, 0.6, 0.5], 2, False),
        ([0.5, 0.6, 0.6], [0.5, 0.5, 0.4], 2, False),
        ([0.5, 0.7, 0.6], [0.5, 0.4, 0.4], 2, False),
        ([0.6, 0.7], [0.5, 0.4], 2, False),
        ([0.6, 0.7], [0.5, 0.4], 1, True),
        ([0.9, 0.5, 0.6, 0.7], [0.6, 0.3, 0.4, 0.5], 2, True),
        ([0.9, 0.5, 0.6, 0.7], [0.6, 0.3, 0.4, 0.5], 3, False),
        ([], [], 1, False),
    ],
)
def test_overfitting(losses: list[float], similarities: list[float], patience: int, stops: bool) -> None:
    assert is_overfitting(curve(losses, similarities), patience) is stops


@pytest.mark.parametrize(
    ("images_total", "grace_period", "reduction_factor", "points"),
    [
        (1500, 200, 2, [200, 400, 800, 1500]),
        (800, 200, 2, [200, 400, 800]),
        (801, 200, 2, [200, 400, 800, 801]),
        (150, 200, 2, [150]),
        (200, 200, 2, [200]),
        (2000, 200, 3, [200, 600, 1800, 2000]),
        (1200, 150, 2, [150, 300, 600, 1200]),
        (400, 100, 1.5, [100, 150, 225, 338, 400]),
    ],
)
def test_evaluation_points(images_total: int, grace_period: int, reduction_factor: float, points: list[int]) -> None:
    assert evaluation_points(images_total, grace_period, reduction_factor) == points


def test_rungs_are_the_same_for_shorter_and_longer_trials() -> None:
    assert evaluation_points(3000, 200, 2)[:3] == evaluation_points(1500, 200, 2)[:3]


@pytest.mark.parametrize(("images_total", "grace_period", "reduction_factor"), [(10, 1, 1.2), (10, 3, 1.79)])
def test_no_point_comes_twice(images_total: int, grace_period: int, reduction_factor: float) -> None:
    points = evaluation_points(images_total, grace_period, reduction_factor)
    assert points == sorted(set(points))


def report(images_seen: int, score: float, **more: Any) -> dict[str, Any]:
    return {"score": score, "images_seen": images_seen, "is_finished": images_seen >= 400, "train_losses": [], **more}


def record(folder: Path, number: int = 3, **more: Any) -> TrialRecord:
    return TrialRecord(f"t{number:03d}", number, {"lora.rank": 8}, False, str(folder / f"t{number:03d}"), **more)


def test_a_trials_best_is_not_its_last() -> None:
    trial = record(Path(), history=[report(100, 0.2), report(200, 0.7), report(400, 0.5)])
    assert trial.best == report(200, 0.7)
    assert trial.last == report(400, 0.5)
    assert (trial.score, trial.images_seen) == (0.7, 400)


def test_a_trial_before_its_first_report() -> None:
    trial = record(Path())
    assert (trial.best, trial.last, trial.score, trial.images_seen) == (None, None, -math.inf, 0)


def test_records_are_read_by_number(tmp_path: Path) -> None:
    records = [record(tmp_path, number, history=[report(100, 0.1 * number)]) for number in (2, 10, 1)]
    records[0].status, records[0].stop_reason = "stopped_early", "asha at 100 images"
    for trial in records:
        trial.write()
    assert read_records(tmp_path) == sorted(records, key=lambda trial: trial.number)
    assert read_records(tmp_path / "nothing") == []


def test_a_record_written_again_replaces_the_old(tmp_path: Path) -> None:
    trial = record(tmp_path)
    trial.write()
    trial.history.append(report(100, 0.5))
    trial.status = "finished"
    trial.write()
    assert read_records(tmp_path) == [trial]
    assert [path.name for path in (tmp_path / "t003").iterdir()] == ["trial.json"]


def test_what_is_logged_of_a_report() -> None:
    assert measures(report(400, 0.5, holdout_loss=0.25)) == {"score": 0.5, "holdout_loss": 0.25}
