"""The winner's settings trained on all images: how far, on from where it was broken off, and when it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from raylora.config_files import read_experiment
from raylora.errors import RayloraError
from raylora.execution import notice, tuner
from raylora.execution import refit as refit_room
from raylora.execution.cluster import Share
from raylora.execution.notice import NOTICE_VARIABLE
from raylora.execution.outputs import OutFolder
from raylora.execution.refit import run_refit
from raylora.execution.trial_job import HALVED, TrialJob
from raylora.execution.watchdog import Watch
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


def test_its_process_is_watched(job: TrialJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a trial's is: each step is a sign of life, and none is due while states are brought to a storage."""
    told, beat, rest = list[str](), Watch.beat, Watch.rest
    monkeypatch.setattr(Watch, "beat", lambda watch: (told.append("beat"), beat(watch))[-1])
    monkeypatch.setattr(Watch, "rest", lambda watch: (told.append("rest"), rest(watch))[-1])
    of_trial, of_all = totals(job)
    refit(replace(job, kept=lambda: told.append("kept")), of_trial)
    assert told.count("beat") >= of_all / job.experiment.training.batch_size
    assert told.count("kept") == EPOCHS
    for place in (place for place, word in enumerate(told) if word == "kept"):
        assert told[place - 1 : place + 2] == ["rest", "kept", "beat"]


def test_notice_has_it_say_so_and_wait_which_is_no_hanging(
    job: TrialJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, notes, beats, beat = tmp_path / "notice", list[str](), list[bool](), Watch.beat
    monkeypatch.setenv(NOTICE_VARIABLE, str(file))
    monkeypatch.setattr(notice, "LOOK_EVERY_S", 0.01)
    file.touch()

    def leave(note: str) -> None:
        notes.append(note)
        Timer(0.5, file.unlink).start()

    at_last = Timer(120, lambda: file.unlink(missing_ok=True))
    at_last.start()
    monkeypatch.setattr(refit_room, "leave_note", leave)
    monkeypatch.setattr(Watch, "beat", lambda watch: (beats.append(bool(notes) and file.exists()), beat(watch))[-1])
    refit(job, totals(job)[0])
    at_last.cancel()
    assert [note.startswith(f"{file} says ") for note in notes] == [True]
    assert sum(beats) > 2


def test_from_its_second_start_on_it_has_half_the_images_at_once(
    job: TrialJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel kills for memory says nothing; a trial that went on so wins with its whole batch's settings."""
    seen: list[bool] = []
    monkeypatch.setattr(refit_room, "run_refit_here", lambda config, *_: seen.append(config.get(HALVED, False)))

    def start_twice(work: Callable[[], None], what: str, starts_workers: bool, again: Callable[[], None]) -> None:
        work()
        again()

    search: Any = SimpleNamespace(
        say=print, share=Share(1, 0.0, 1, 1), trial_job=lambda: job, run_in_cluster=start_twice
    )
    winner = TrialRecord("t000", 0, {}, True, "", history=[{"score": 1.0, "images_seen": 8}])
    assert tuner._refit(search, winner)
    assert tuner._refit(search, replace(winner, losses=["memory"]))
    assert seen == [False, True, True, True]


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
