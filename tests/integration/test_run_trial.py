"""Trials without Ray: what they report when they are trained again, and after an interruption."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from raylora.evaluation.scorecard import Evaluator
from raylora.execution import trial
from raylora.execution.alone import train_job
from raylora.execution.checked_job import checked_job
from raylora.execution.listening import REPORT_KEYS
from raylora.execution.outputs import OutFolder
from raylora.execution.plan import make_plan
from raylora.execution.trial import TrialJob, run_trial
from raylora.execution.trial_job import STOP_REASON
from raylora.files import fold_folders
from raylora.search.stopping import IS_OVER
from raylora.training.checkpoint import read_state, write_state
from raylora.training.fit import STATE_NAME
from raylora.training.trainer import Trainer
from tests.integration.conftest import MakeJob
from tests.integration.test_trainer import make_material

Reports = list[dict[str, Any]]


def reports_of(job: TrialJob, params: dict[str, Any], hear: Callable[[Reports], None] = lambda _: None) -> Reports:
    """Of a trial that isn't the baseline; `hear` is called after each."""
    reports: Reports = []

    def report(latest: dict[str, Any]) -> None:
        reports.append(latest)
        hear(reports)

    run_trial({"number": 0, "params": params, "is_baseline": False}, job, report)
    return reports


@pytest.mark.parametrize("folds", [1, 2])
def test_records_keep_what_trials_report_and_nothing_else(make_job: MakeJob, folds: int) -> None:
    """Training, which makes reports, doesn't know who keeps them: the names stand in both rooms."""
    job = make_job({"dataset.folds": folds})
    for report in reports_of(job, {}):
        assert set(report) == {*REPORT_KEYS, STOP_REASON}
    for place in fold_folders(job.folder(0), folds):
        for report in read_state(place / STATE_NAME)["history"]:
            assert set(report) == {*REPORT_KEYS} - {IS_OVER}


def interrupt_after(count: int) -> Callable[[Reports], None]:
    def hear(reports: Reports) -> None:
        if len(reports) == count:
            raise KeyboardInterrupt

    return hear


@pytest.mark.parametrize("batch_size", [2, 3, 5])
def test_a_trial_trained_again_is_measured_once_where_it_was_best(make_job: MakeJob, batch_size: int) -> None:
    """Rungs at 8 and 16 images, that whole steps of some batches go beyond."""
    job = make_job({"training.batch_size": batch_size})
    first, *_ = reports_of(job, {})
    seen = first["images_seen"]
    assert (seen >= 8, seen > 8) == (True, 8 % batch_size > 0)
    (again,) = reports_of(replace(job, is_confirming=True), {"training.stop_at": seen})
    assert (again["images_seen"], again["is_finished"], again[IS_OVER]) == (seen, True, True)
    assert again["score"] == pytest.approx(first["score"], rel=1e-6)
    assert again["train_losses"] == first["train_losses"]


def test_one_that_was_broken_off_before_it_was_measured_goes_on(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(make_job({"training.batch_size": 5}), is_confirming=True)
    settings = {"training.stop_at": 20}  # the rung at 16 is passed by at 20, its end

    def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("raylora.evaluation.scorecard.Evaluator.measure", break_off)
        with pytest.raises(KeyboardInterrupt):
            reports_of(job, settings)
    (report,) = reports_of(job, settings)
    assert (report["images_seen"], report["is_finished"]) == (20, True)
    assert len(report["train_losses"]) == 4


def test_a_trial_that_overfitted_when_it_was_broken_off_trains_no_further(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job({})
    monkeypatch.setattr(trial, "is_overfitting", lambda curve, _: len(curve) > 1)
    with pytest.raises(KeyboardInterrupt):
        reports_of(job, {}, interrupt_after(2))
    first, last = reports_of(job, {})
    assert (first[IS_OVER], first["stop_reason"]) == (False, None)
    assert (last[IS_OVER], last["stop_reason"], last["is_finished"]) == (True, "overfit", False)


def test_training_alone_gives_a_trials_losses(make_job: MakeJob, tmp_path: Path) -> None:
    """The same configuration and split, by `raylora train --holdout`: one loop, so the same numbers."""
    job, out = make_job({"dataset.shuffle_caption": True, "lora.dropout": 0.1}), OutFolder(tmp_path / "alone")
    reports = reports_of(job, {})
    train_job(checked_job(job.experiment, None, None, lambda _: None), out, True, lambda _: None)
    history = read_state(out.trials / "train" / STATE_NAME)["history"]
    for name in ("images_seen", "train_losses", "holdout_loss", "train_probe_loss", "score"):
        assert [report[name] for report in history] == [report[name] for report in reports]


def run_as_guide(job: TrialJob) -> Reports:
    reports: Reports = []
    run_trial({"number": 0, "params": {}, "is_baseline": True}, job, reports.append)
    return reports


def test_reports_tell_what_was_spent_and_how_large_the_file_is(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measuring is left out, and what a trial had spent before a kill stays spent."""
    measure = Evaluator.measure

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.5)
        return measure(*arguments)

    step = Trainer._optimizer_step

    def slow_step(trainer: Trainer) -> Any:
        time.sleep(0.05)
        return step(trainer)

    monkeypatch.setattr(Evaluator, "measure", slowly)
    monkeypatch.setattr(Trainer, "_optimizer_step", slow_step)
    job = make_job({"training.save_precision": "fp32"})
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        reports_of(job, {}, interrupt_after(2))
    wall_s = time.monotonic() - began
    state = read_state(job.folder(0) / "state.pt")
    state["trainer"]["meter"]["peak_bytes"] = 2**40
    write_state(job.folder(0) / "state.pt", state)
    first, second, last = reports_of(job, {})
    assert 4 * 0.05 < first["train_s"] < second["train_s"] - 4 * 0.05 < wall_s - 2 * 0.5 - 4 * 0.05
    assert last["train_s"] > second["train_s"] + 8 * 0.05
    assert last["peak_memory_gib"] == 1024
    weights = load_file(job.folder(0) / "best.safetensors")
    assert first["lora_mb"] == sum(weight.numel() for weight in weights.values()) * 4 / 1e6
    assert first["lora_mb"] == make_plan(job.experiment, None, [make_material(job.experiment)]).lora_bytes / 1e6
    weights_gib = sum(weight.nbytes for weight in weights.values()) / 2**30
    assert weights_gib < 0.1 < first["peak_memory_gib"] <= second["peak_memory_gib"] < 32


@pytest.mark.parametrize("limit", ["train_s", "peak_memory_gib"])
def test_a_trial_over_a_limit_is_stopped_at_its_rung_and_the_guides_own_is_not(make_job: MakeJob, limit: str) -> None:
    job = make_job({f"search.limits.{limit}": 1e-6})
    (report,) = reports_of(job, {})
    assert report["stop_reason"] == f"limit: {limit} {report[limit]:.4g} > 1e-06"
    assert (report["images_seen"], report[IS_OVER]) == (8, False)
    (again,) = reports_of(job, {})  # resumed, it trains no further
    assert again == report
    (alone,) = reports_of(replace(job, is_confirming=True), {"training.stop_at": 8})
    assert alone["stop_reason"] is None
    shutil.rmtree(job.folder(0))
    guides = run_as_guide(job)
    assert [guide["images_seen"] for guide in guides] == [8, 16, 32]
    assert (guides[-1]["stop_reason"], guides[-1][IS_OVER]) == (None, True)


def test_one_that_goes_over_with_its_last_image_has_broken_the_limit(make_job: MakeJob) -> None:
    (report,) = reports_of(make_job({"search.limits.train_s": 1e-6}), {"training.max_images": 6})
    assert (report["is_finished"], report[IS_OVER]) == (True, False)
    assert report["stop_reason"].startswith("limit: train_s ")


def test_a_trial_whose_file_would_be_too_large_is_not_trained(make_job: MakeJob) -> None:
    job = make_job({"search.limits.lora_mb": 0.05})
    fits, *_ = reports_of(job, {})
    assert fits["images_seen"] == 8 and fits["lora_mb"] < 0.05
    shutil.rmtree(job.folder(0))
    (untrained,) = reports_of(job, {"lora.rank": 8, "lora.alpha": 8})
    assert untrained["lora_mb"] == pytest.approx(2 * fits["lora_mb"])
    assert untrained["stop_reason"] == f"limit: lora_mb {untrained['lora_mb']:.4g} > 0.05"
    assert (untrained["images_seen"], untrained["best_score"], untrained[IS_OVER]) == (0, float("-inf"), False)
    assert list(job.folder(0).iterdir()) == []
