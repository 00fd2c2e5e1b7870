"""Cures for verdicts; verdicts on trainings of known quality, recorded by `python -m benchmarks.measures`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raylora.config import Experiment
from raylora.evaluation.cures import cures, in_words
from raylora.evaluation.verdict import Verdict, judge
from raylora.execution.outputs import verdict_on
from raylora.tracking.recorder import TrialRecord

CASES = Path(__file__).parents[2] / "benchmarks" / "results" / "measures" / "2026-11-24-epyc-2-cores.json"
CURVE = [{"images_seen": images, "holdout_loss": loss} for images, loss in ((100, 0.5), (400, 0.4), (1200, 0.45))]
KNOWN = {
    "rate 1e-4": "underfit",
    "rate 3e-4": "underfit",
    "a third as long": "underfit",
    "lion": "underfit",
    "rate 2e-3": "good",
    "rate 4e-3": "good",
    "rate 8e-3": "good",
    "4 pictures only": "overfit",
    "another style": "overfit",
    "collapse": "collapsed",
}


def experiment(**params: Any) -> Experiment:
    usual = {"optimizer.unet_lr": 1e-3, "optimizer.text_encoder_lr": 5e-4, "lora.rank": 8, "lora.alpha": 4}
    return Experiment().with_params({**usual, "training.epochs": 10, **params})


def cured(label: str, **params: Any) -> list[dict[str, Any]]:
    return cures(Verdict(label, ""), experiment(**params), CURVE)


def test_an_underfit_trial_is_to_learn_faster_or_with_more_weights_or_longer() -> None:
    faster, stronger, wider, longer = cured("underfit")
    assert faster == {"optimizer.unet_lr": 2e-3, "optimizer.text_encoder_lr": 1e-3}
    assert stronger == {"lora.alpha": 8}
    assert wider == {"lora.rank": 16, "lora.alpha": 8}
    assert longer == {"training.epochs": 20}


def test_alpha_rises_to_the_rank_at_most() -> None:
    assert {"lora.alpha": 8} in cured("underfit", **{"lora.alpha": 6})
    assert [*map(list, cured("underfit", **{"lora.alpha": 8}))][1] == ["lora.rank", "lora.alpha"]


def test_cures_are_of_settings_that_act() -> None:
    assert cured("underfit", **{"model.train_text_encoder": False})[0] == {"optimizer.unet_lr": 2e-3}
    prodigy = {"optimizer.name": "prodigy", "optimizer.unet_lr": 1.0, "optimizer.text_encoder_lr": 1.0}
    assert [[*cure] for cure in cured("underfit", **prodigy)] == [["lora.rank", "lora.alpha"], ["training.epochs"]]
    capped = cured("underfit", **{"training.max_images": 1200})[-1]
    assert capped == {"training.max_images": 2400, "training.epochs": 20}


def test_an_overfit_trial_is_to_stop_where_its_held_out_loss_was_lowest() -> None:
    assert cured("overfit") == [{"training.stop_at": 400}]


@pytest.mark.parametrize("label", ["collapsed", "diverged"])
def test_what_came_apart_is_to_learn_more_slowly(label: str) -> None:
    assert cured(label) == [{"optimizer.unet_lr": 2.5e-4, "optimizer.text_encoder_lr": 1.25e-4}]


@pytest.mark.parametrize("label", ["good", "unknown", "broken"])
def test_nothing_else_is_cured(label: str) -> None:
    assert cured(label) == []


def test_cures_are_settings_that_an_experiment_takes() -> None:
    for label in ("underfit", "overfit", "collapsed"):
        for settings in cured(label):
            experiment(**settings)


def test_cures_in_words() -> None:
    assert in_words([{"a.b": 0.00025, "c": 2}, {"d": 1}]) == "a.b=0.00025 c=2, or d=1"
    assert in_words([]) == ""


def test_a_trial_is_judged_beside_the_best_that_keeps_the_limits() -> None:
    def trial(number: int, loss: float, **more: Any) -> TrialRecord:
        report = {"images_seen": 100, "holdout_loss": loss, "holdout_loss_ratio": loss, "train_probe_loss": loss,
                  "score": 1 - loss, "is_over": True}  # fmt: skip
        params = {"optimizer.unet_lr": 1e-3, "optimizer.text_encoder_lr": 1e-3}
        return TrialRecord(f"t{number}", number, params, False, "", "finished", history=[report], **more)

    poor, good = trial(0, 0.8), trial(1, 0.4)
    assert verdict_on(poor, experiment(), [poor, good])["verdict"] == "underfit"
    assert verdict_on(poor, experiment(), [poor, good])["cure"].startswith("optimizer.unet_lr=0.002 ")
    too_large = trial(2, 0.4, over_limits={"lora_mb": 9.0})
    assert verdict_on(poor, experiment(), [poor, too_large]) == {
        "verdict": "good", "evidence": "the held-out loss ended at 0.800 times the base model's", "cure": ""
    }  # fmt: skip


def test_cures_that_the_configuration_refuses_are_left_out() -> None:
    widest = cured("underfit", **{"lora.rank": 1024, "lora.alpha": 1024})
    assert [*widest[0], *widest[1]] == ["optimizer.unet_lr", "optimizer.text_encoder_lr", "training.epochs"]
    assert len(widest) == 2
    slow = {"lr_scheduler.name": "polynomial", "optimizer.unet_lr": 2e-7}
    assert cured("collapsed", **slow) == []


def test_a_longer_training_is_not_stopped_where_it_was_before() -> None:
    longer = cured("underfit", **{"training.stop_at": 300})[-1]
    assert longer == {"training.stop_at": 600, "training.epochs": 20}
    capped = cured("underfit", **{"training.stop_at": 300, "training.max_images": 1200})[-1]
    assert capped == {"training.max_images": 2400, "training.stop_at": 600, "training.epochs": 20}


def test_a_wider_lora_keeps_alpha_at_rank_or_below() -> None:
    assert cured("underfit", **{"lora.rank": 8, "lora.alpha": 32})[1] == {"lora.rank": 16, "lora.alpha": 16}


def test_a_lone_training_is_judged_by_what_its_models_can_gain() -> None:
    def lone(ratio: float, **params: Any) -> str:
        report = {"images_seen": 100, "holdout_loss": ratio, "holdout_loss_ratio": ratio, "score": 0.0,
                  "is_finished": True}  # fmt: skip
        record = TrialRecord("train", 0, {}, True, "", "finished", history=[report])
        return verdict_on(record, experiment(**params), [record])["verdict"]

    assert lone(0.98) == "good"
    assert lone(0.98, **{"evaluation.score.ratio_ref": 0.37}) == "underfit"


@pytest.mark.parametrize(("gain", "label"), [(0.4, "good"), (-0.01, "good"), (-0.15, "unknown")])
def test_no_training_is_good_whose_samples_went_astray(gain: float, label: str) -> None:
    """Whatever its losses say, which are less than half of the base model's here."""
    last = {"images_seen": 400, "holdout_loss": 0.14, "holdout_loss_ratio": 0.44, "similarity_gain": gain}
    verdict = judge([last], ratio_ref=0.37)
    assert verdict.label == label
    assert (f"less like the real images than the base model's ({gain})" in verdict.evidence) == (label == "unknown")


def recorded() -> list[Any]:
    rows = [row for row in json.loads(CASES.read_text())["rows"] if row["table"] == "verdicts"]
    return [pytest.param(row, rows, id=f"{row['style']}, {row['case']}, {row['seed']}") for row in rows]


@pytest.mark.parametrize("ratio_ref", [0.37, 0.97])
@pytest.mark.parametrize(("row", "rows"), recorded())
def test_verdicts_on_trainings_of_known_quality(
    row: dict[str, Any], rows: list[dict[str, Any]], ratio_ref: float
) -> None:
    rivals = [one["curve"] for one in rows if (one["style"], one["seed"]) == (row["style"], row["seed"])]
    best = max(rivals, key=lambda curve: curve[-1]["score"])
    verdict = judge(row["curve"], best=best, ratio_ref=ratio_ref)
    assert verdict.label == KNOWN.get(row["case"], verdict.label), verdict.evidence
