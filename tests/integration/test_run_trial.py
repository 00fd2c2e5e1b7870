"""Trials without Ray: what they report when they are trained again, and after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raylora.execution import trial
from raylora.execution.alone import train_job
from raylora.execution.outputs import OutFolder
from raylora.execution.prepare import prepare
from raylora.execution.trial import TrialJob, run_trial
from raylora.search.stopping import IS_OVER
from raylora.training.checkpoint import read_state
from raylora.training.fit import STATE_NAME
from tests.integration.conftest import MakeJob

Reports = list[dict[str, Any]]


def reports_of(job: TrialJob, params: dict[str, Any], hear: Callable[[Reports], None] = lambda _: None) -> Reports:
    """Of a trial that isn't the baseline; `hear` is called after each."""
    reports: Reports = []

    def report(latest: dict[str, Any]) -> None:
        reports.append(latest)
        hear(reports)

    run_trial({"number": 0, "params": params, "is_baseline": False}, job, report)
    return reports


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
    train_job(prepare(job.experiment, None, None, lambda _: None), out, True, lambda _: None)
    history = read_state(out.trials / "train" / STATE_NAME)["history"]
    for name in ("images_seen", "train_losses", "holdout_loss", "train_probe_loss", "score"):
        assert [report[name] for report in history] == [report[name] for report in reports]
