"""The winner's settings trained on all images: how far, on from where it was broken off, and when it fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from raylora.config_files import read_experiment
from raylora.errors import RayloraError
from raylora.execution import tuner
from raylora.execution.cluster import Share
from raylora.execution.outputs import OutFolder
from raylora.execution.refit import run_refit
from raylora.execution.trial import TrialJob
from raylora.tracking.recorder import TrialRecord
from raylora.training import fit
from tests.integration.conftest import MakeJob
from tests.integration.test_trainer import make_material

EPOCHS = 4


@pytest.fixture
def job(make_job: MakeJob) -> TrialJob:
    return make_job({"training.epochs": EPOCHS, "training.max_images": None})


def refit(job: TrialJob, images: int) -> list[dict[str, Any]]:
    reports: list[dict[str, Any]] = []
    run_refit({"number": 0, "params": {"lora.rank": 2}, "images": images}, job, reports.append)
    return reports


def totals(job: TrialJob) -> tuple[int, int]:
    """Images of a trial's whole schedule, and of the same settings on all images."""
    material = make_material(job.experiment)
    everything = type(material)([*material.train, *material.holdout], (), material.regularization)
    return material.schedule(job.experiment).images_total, everything.schedule(job.experiment).images_total


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_it_goes_as_far_as_the_trial_was_when_it_was_best(job: TrialJob, share: float) -> None:
    of_trial, of_all = totals(job)
    assert of_all > of_trial
    (report,) = refit(job, round(of_trial * share))
    written = read_experiment(OutFolder(job.out).best / "experiment.yaml")
    assert report["images_seen"] == round(of_all * share)
    assert written.training.stop_at == (None if share == 1 else round(of_all * share))
    assert written.lora.rank == 2


def test_it_goes_on_from_its_last_epoch(job: TrialJob, monkeypatch: pytest.MonkeyPatch) -> None:
    best, write_state, written = OutFolder(job.out).best / "lora.safetensors", fit.write_state, []

    def count(path: Path, state: dict[str, Any]) -> None:
        write_state(path, state)
        written.append(state["images_seen"])
        if len(written) == 2 and not best.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(fit, "write_state", count)
    of_trial, of_all = totals(job)
    with pytest.raises(KeyboardInterrupt):
        refit(job, of_trial)
    refit(job, of_trial)
    assert written == [of_all * epoch // EPOCHS for epoch in range(1, EPOCHS + 1)]
    broken = load_file(best)
    (OutFolder(job.out).refit / fit.STATE_NAME).unlink()
    refit(job, of_trial)
    whole = load_file(best)
    assert all(torch.equal(broken[key], whole[key]) for key in whole)


def test_one_that_fails_leaves_the_trials_lora_to_be_handed_over(job: TrialJob) -> None:
    told: list[str] = []

    def fail(*_: object, **__: object) -> None:
        raise RayloraError("out of GPU memory")

    search: Any = SimpleNamespace(
        say=told.append, share=Share(1, 0.0, 1, 1), trial_job=lambda: job, run_in_cluster=fail
    )
    winner = TrialRecord("t000", 0, {}, True, "", history=[{"score": 1.0, "images_seen": 8}])
    assert tuner._refit(search, winner) is False
    assert told[-1] == (
        "warning: training on all images failed (out of GPU memory); best/ holds the LoRA of the winner's trial"
    )
