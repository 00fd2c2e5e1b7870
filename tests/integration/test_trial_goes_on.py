"""Trials that are broken off between two rungs, told to leave, or short of memory: nothing is lost, nothing changes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from raylora.diffusion.base import UNET
from raylora.execution import notice
from raylora.execution.attempt import attempt
from raylora.execution.notice import NOTICE_VARIABLE
from raylora.execution.refit import run_refit
from raylora.execution.results import FAILED
from raylora.execution.trial import base_of, run_trial
from raylora.execution.trial_job import TrialJob
from raylora.execution.watchdog import Watch
from raylora.training.checkpoint import read_state
from raylora.training.trainer import Trainer
from tests.integration.conftest import MakeJob
from tests.integration.test_run_trial import Reports

OFTEN = {"training.checkpoint_images": 4, "training.batch_size": 2}
"""Rungs are at 8, 16 and 32 images."""
COSTS = ("train_s", "peak_memory_gib")


def without_costs(reports: Reports) -> Reports:
    return [{key: value for key, value in report.items() if key not in COSTS} for report in reports]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images seen before each optimizer step that any trainer takes."""
    taken: list[int] = []
    step = Trainer._optimizer_step

    def noted(trainer: Trainer) -> Any:
        taken.append(trainer.images_seen)
        return step(trainer)

    monkeypatch.setattr(Trainer, "_optimizer_step", noted)
    return taken


def test_one_broken_off_between_rungs_trains_no_more_than_an_interval_again(
    make_job: MakeJob, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(OFTEN)
    straight = run(job, 0)
    steps.clear()
    step = Trainer._optimizer_step

    def broken(trainer: Trainer) -> Any:
        if trainer.images_seen == 22:  # 20 is kept, and 16 was measured
            raise KeyboardInterrupt
        return step(trainer)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_optimizer_step", broken)
        run(job, 1)
    assert steps == list(range(0, 22, 2))
    steps.clear()
    assert without_costs(run(job, 1)) == without_costs(straight)
    assert steps == list(range(20, 32, 2))


def run(job: TrialJob, number: int) -> Reports:
    reports: Reports = []
    run_trial({"number": number, "params": {}, "is_baseline": False}, job, reports.append)
    return reports


def test_one_whose_machine_is_about_to_go_keeps_its_state_and_waits(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job({"training.batch_size": 2})
    straight, told = run(job, 0), tmp_path / "notice"
    monkeypatch.setenv(NOTICE_VARIABLE, str(told))
    monkeypatch.setattr(notice, "LOOK_EVERY_S", 0.01)
    told.touch()
    notes: list[str] = []
    monkeypatch.setattr("raylora.execution.trial.leave_note", notes.append)
    reports: Reports = []
    trial = Thread(target=lambda: reports.extend(run(job, 1)))
    trial.start()
    state = job.folder(1) / "state.pt"
    deadline = time.monotonic() + 300
    while not (state.exists() and notes) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    seen = read_state(state)["trainer"]["images_seen"] if state.exists() else None
    told.unlink()
    trial.join(timeout=300)
    assert seen == 2
    assert [note.startswith(f"{told} says ") for note in notes] == [True]
    assert without_costs(reports) == without_costs(straight)


@pytest.mark.parametrize("work", [run_trial, run_refit])
def test_its_threads_are_those_of_its_share(work: Any, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job, told = make_job({}), list[int]()

    def tell(threads: int) -> None:
        told.append(threads)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "set_num_threads", tell)
    with pytest.raises(KeyboardInterrupt):
        work({"number": 0, "params": {}, "images": 8, "is_baseline": False}, replace(job, threads=3), print)
    assert told == [3]


def test_no_sign_of_life_is_due_while_a_report_is_heard_or_a_state_kept(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, beat, rest = list[str](), Watch.beat, Watch.rest
    monkeypatch.setattr(Watch, "beat", lambda watch: (told.append("beat"), beat(watch))[-1])
    monkeypatch.setattr(Watch, "rest", lambda watch: (told.append("rest"), rest(watch))[-1])
    job = replace(make_job({}), kept=lambda: told.append("kept"))
    run_trial({"number": 0, "params": {}, "is_baseline": False}, job, lambda _: told.append("report"))
    for word in ("report", "kept"):
        places = [place for place, said in enumerate(told) if said == word]
        assert places and all(told[at - 1 : at + 2] == ["rest", word, "beat"] for at in places)


def hold_no_more_than(most: list[int], job: TrialJob) -> Any:
    """Have the base model run out of memory over `most[0]` images at once; returns the hook to take away."""

    def refuse(module: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        images = named["sample"] if "sample" in named else arguments[0]
        if len(images) > most[0]:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(images)} images")

    return base_of(job.experiment, "cpu").parts[UNET].register_forward_pre_hook(refuse, with_kwargs=True)


def attempted(job: TrialJob, number: int) -> Reports:
    reports: Reports = []

    def work(config: dict[str, Any]) -> None:
        reports.clear()
        run_trial(config, job, reports.append)

    attempt({"number": number, "params": {}, "is_baseline": False}, work, reports.append)
    return reports


def test_half_the_images_at_once_teach_the_same(make_job: MakeJob) -> None:
    job = make_job({"training.batch_size": 4, "evaluation.batch_size": 4, "sampling.guidance_scale": 1.0})
    straight, most = run(job, 0), [2]
    hook = hold_no_more_than(most, job)
    try:
        halved = attempted(job, 1)
        most[0] = 1
        (failed,) = attempted(job, 2)
    finally:
        hook.remove()
    for ours, theirs in zip(halved, straight, strict=True):
        losses, others = ([loss for _, loss in report["train_losses"]] for report in (ours, theirs))
        assert losses == pytest.approx(others, rel=1e-5)
        assert ours["holdout_loss"] == pytest.approx(theirs["holdout_loss"], rel=1e-5)
    assert failed[FAILED].startswith("out of GPU memory; lower training.batch_size")
