"""What a trial leaves behind when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raylora.config import Experiment
from raylora.errors import TrainingDivergedError
from raylora.execution.trial import ERROR_NAME, TrialJob, run_trial
from raylora.world import World

CONFIG = {"number": 3, "params": {}, "is_baseline": False}


def fail(out: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, world: World = World()) -> str:
    """Run a trial that meets an error; what its folder then says."""

    def raise_it(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("raylora.execution.trial._run", raise_it)
    job = TrialJob(out, Experiment(), threads=1)
    with pytest.raises(type(error)):
        run_trial(CONFIG, job, print, world)
    return (job.folder(3) / ERROR_NAME).read_text()


def test_the_worker_that_failed_first_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = fail(tmp_path, monkeypatch, torch.OutOfMemoryError("CUDA"))
    assert told.startswith("out of GPU memory; lower training.batch_size")
    assert fail(tmp_path, monkeypatch, RuntimeError("closed by peer"), World(1, 2)) == told


def test_a_trial_that_goes_on_forgets_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(tmp_path, monkeypatch, RuntimeError("once"))
    assert fail(tmp_path, monkeypatch, RuntimeError("twice")) == "RuntimeError: twice"


def test_a_full_disk_is_named_with_or_without_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fail(tmp_path, monkeypatch, OSError(28, "full", "/a/b")) == "No space left on device: /a/b"
    assert fail(tmp_path, monkeypatch, OSError(28, "full")) == "No space left on device"


def test_a_trial_that_diverged_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        fail(tmp_path, monkeypatch, TrainingDivergedError("the loss is no number")) == "diverged: the loss is no number"
    )
