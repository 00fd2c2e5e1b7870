"""Which trials are trained again with new seeds, and who wins by what comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raylora.config import Experiment, TrainingConfig
from raylora.dataset.batches import make_schedule
from raylora.dataset.folder import Picture
from raylora.execution.confirm import best_trials, candidates, confirmations
from raylora.execution.node_cache import Material
from raylora.execution.refit import refit_experiment
from raylora.tracking.recorder import Status, TrialRecord


def trial(number: int, *scores: float, status: Status = "finished") -> TrialRecord:
    """A trial that reported these scores, 100 images apart."""
    history: list[dict[str, Any]] = [
        {"score": score, "images_seen": 100 * place} for place, score in enumerate(scores, 1)
    ]
    params = {"lora.rank": 2 + number}
    return TrialRecord(f"t{number:03d}", number, params, False, "", status=status, history=history)


def again(confirms: str, score: float, status: Status = "finished") -> TrialRecord:
    history = [{"score": score, "images_seen": 100}]
    return TrialRecord("c", 0, {}, False, "", status=status, confirms=confirms, history=history)


TRIALS = [trial(0, 0.5), trial(1, 0.2, 0.9, 0.7), trial(2, 0.8), trial(3, 2.0, status="failed"), trial(4)]


def test_the_best_are_trained_again_where_they_were_best_with_seeds_that_no_trial_had() -> None:
    experiment = Experiment(seed=7).with_params({"search.confirm_trials": 2, "search.confirm_seeds": 2})
    found = confirmations(TRIALS, experiment)
    assert [(config["number"], config["confirms"], config["params"]) for config in found] == [
        (0, "t001", {"lora.rank": 3, "seed": 8, "training.stop_at": 200}),
        (1, "t001", {"lora.rank": 3, "seed": 9, "training.stop_at": 200}),
        (2, "t002", {"lora.rank": 4, "seed": 8, "training.stop_at": 100}),
        (3, "t002", {"lora.rank": 4, "seed": 9, "training.stop_at": 100}),
    ]
    assert confirmations(TRIALS, experiment.with_params({"search.confirm_trials": 0})) == []


def test_a_trial_that_failed_is_no_candidate_unless_all_did() -> None:
    assert [one.trial_id for one in best_trials(TRIALS, 9)] == ["t001", "t002", "t000"]
    assert [one.trial_id for one in best_trials([TRIALS[3], TRIALS[4]], 9)] == ["t003"]
    assert best_trials([TRIALS[4]], 9) == []


def test_the_highest_mean_over_new_seeds_wins_and_is_the_score() -> None:
    first, second = candidates(TRIALS, [again("t001", 0.9), again("t001", 0.5), again("t002", 0.7), again("t002", 0.9)])
    assert first.as_dict() == {
        "trial_id": "t002",
        "score": pytest.approx(0.8),
        "spread": pytest.approx(0.1414, abs=1e-4),
        "new_seed_scores": [0.7, 0.9],
        "failed_seeds": 0,
        "selection_score": 0.8,
        "expected_score": None,
    }
    assert (second.trial.trial_id, second.score) == ("t001", pytest.approx(0.7))


def test_settings_that_fail_with_a_new_seed_come_last() -> None:
    found = candidates(TRIALS, [again("t001", 0.9), again("t001", 9.0, "failed"), again("t002", 0.1)])
    assert [one.trial.trial_id for one in found] == ["t002", "t001"]
    assert found[1].scores == [0.9]
    assert found[1].as_dict()["failed_seeds"] == 1


def test_settings_that_fail_with_every_new_seed_come_after_those_that_fail_with_some() -> None:
    failed = [again("t001", 9.0, "failed"), again("t001", 9.0, "failed")]
    found = candidates(TRIALS, [*failed, again("t002", 0.1), again("t002", 0.1, "failed")])
    assert [one.trial.trial_id for one in found] == ["t002", "t001"]


def test_the_guides_own_settings_are_trained_again_too() -> None:
    trials = [replace(TRIALS[0], is_baseline=True), *TRIALS[1:]]
    experiment = Experiment(seed=2**31 - 1).with_params({"search.confirm_trials": 1, "search.confirm_seeds": 2})
    found = confirmations(trials, experiment)
    assert [(config["confirms"], config["params"]["seed"]) for config in found] == [
        ("t001", 0), ("t001", 1), ("t000", 0), ("t000", 1),
    ]  # fmt: skip
    assert len(confirmations(trials, experiment.with_params({"search.confirm_trials": 3}))) == 6


def test_without_new_seeds_the_best_trial_wins_by_its_own_score() -> None:
    (only,) = candidates(TRIALS, [])
    assert (only.trial.trial_id, only.score, only.spread) == ("t001", 0.9, None)
    assert candidates([TRIALS[4]], []) == []


def test_one_new_seed_tells_no_spread() -> None:
    assert candidates(TRIALS, [again("t001", 0.4)])[0].spread is None


def test_a_training_that_stops_early_keeps_its_schedule() -> None:
    schedule = make_schedule([10] * 8, TrainingConfig(epochs=4, batch_size=2, stop_at=100))
    assert (schedule.images_total, schedule.images_end, schedule.micro_steps) == (320, 100, 160)
    assert make_schedule([10] * 8, TrainingConfig(epochs=1, stop_at=100)).images_end == 80


def pictures(*names: str) -> list[Picture]:
    return [Picture(Path(name), "", 10, "", name) for name in names]


MATERIAL = Material(pictures("d", "a", "e"), pictures("b"), pictures("r"))


def test_the_refit_learns_all_pictures_in_the_folders_order() -> None:
    found = MATERIAL.all_learned
    assert [picture.digest for picture in found.train] == ["a", "b", "d", "e"]
    assert (found.holdout, found.regularization) == ((), MATERIAL.regularization)


@pytest.mark.parametrize(("images", "stop_at"), [(40, 50), (20, 25), (80, None), (81, None)])
def test_the_refit_shows_each_picture_as_often_as_the_trial_did_when_it_was_best(
    images: int, stop_at: int | None
) -> None:
    """Three pictures and one for regularization, ten times in each of two epochs: 80 images; with the fourth 100."""
    experiment = Experiment().with_params({"training.epochs": 2})
    assert refit_experiment(experiment, [MATERIAL], images).training.stop_at == stop_at


def test_the_refit_of_a_trial_by_folds_goes_by_the_schedule_that_they_share() -> None:
    """Folds that learn three pictures and two, ten times in each of two epochs, and a refit of all four."""
    experiment = Experiment().with_params({"training.epochs": 2})
    folds = [Material(pictures("d", "a", "e"), pictures("b")), Material(pictures("b", "e"), pictures("a", "d"))]
    for images, stop_at in ((20, 40), (40, None)):
        assert refit_experiment(experiment, folds, images).training.stop_at == stop_at


def test_what_can_be_expected_goes_before_what_was_lucky() -> None:
    """The second trial had the best score and is expected to be the worst; a stopped one comes last."""
    first, second, third = trial(0, 0.7), trial(1, 0.9), trial(2, 1.5, status="stopped_early")
    first.expected, second.expected = 0.65, 0.5
    assert best_trials([first, second, third], 3) == [first, second, third]
    (only,) = candidates([first, second, third], [])
    assert (only.trial, only.as_dict()["expected_score"]) == (first, 0.65)
