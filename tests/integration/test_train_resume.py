"""A training that was interrupted goes on with `raylora resume`, and ends as one that was left alone."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from raylora.config import Experiment
from raylora.config_files import write_experiment
from raylora.errors import DatasetError, OutputError
from raylora.execution import notice
from raylora.execution.alone import resume_training, train_job
from raylora.execution.checked_job import checked_job
from raylora.execution.job import Job
from raylora.execution.notice import NOTICE_VARIABLE
from raylora.execution.outputs import OutFolder
from raylora.report.reading import read_work


def quiet(_: str) -> None:
    pass


class Interruption:
    """Ctrl-C at the first word about trained images that has the given beginning."""

    def __init__(self, beginning: str) -> None:
        self.beginning = beginning

    def __call__(self, told: str) -> None:
        if told.startswith(self.beginning):
            raise KeyboardInterrupt


@pytest.fixture
def experiment(tiny_experiment: Experiment) -> Experiment:
    return tiny_experiment.with_params({"training.save_every_epochs": 1, "lora.dropout": 0.1})


def job_of(experiment: Experiment, holdout: bool) -> Job:
    return checked_job(experiment, None, None, quiet, holdout)


def summary_of(out: OutFolder) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(out.summary.read_text())
    return summary


def without_costs(row: dict[str, Any]) -> dict[str, Any]:
    """Seconds and memory are never the same twice."""
    return {name: value for name, value in row.items() if not name.endswith(("train_s", "peak_memory_gib"))}


def table_of(out: OutFolder) -> list[dict[str, Any]]:
    with (out.root / "trials.csv").open(newline="") as file:
        return [without_costs(row) for row in csv.DictReader(file)]


@pytest.mark.parametrize("holdout", [False, True], ids=["on all images", "with images held out"])
def test_it_ends_as_if_nothing_had_been(experiment: Experiment, holdout: bool, tmp_path: Path) -> None:
    whole, broken = OutFolder(tmp_path / "whole"), OutFolder(tmp_path / "broken")
    job = job_of(experiment, holdout)
    train_job(job, whole, holdout, quiet)
    first = "8 images" if holdout else f"{job.plan.trial.images_per_epoch} of"
    with pytest.raises(KeyboardInterrupt):
        train_job(job, broken, holdout, Interruption(first))
    assert json.loads(broken.state_file.read_text())["state"] == "interrupted"
    if holdout:  # what it had come to is told by its page
        assert read_work(broken).trials[0].images_seen == 8
    said: list[str] = []
    resume_training(broken, said.append)
    assert said and not any(line.startswith(first) for line in said)  # it went on, and did not begin anew
    ours, theirs = (load_file(out.best / "lora.safetensors") for out in (broken, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() | theirs.keys())
    grids = [(out.best / "samples" / "grid.png").read_bytes() for out in (broken, whole)]
    assert grids[0] == grids[1]
    names = [sorted(path.name for path in (out.root / "epochs").iterdir()) for out in (broken, whole)]
    assert names[0] == names[1]
    ours, theirs = (table_of(out) for out in (broken, whole))
    assert ours == theirs
    ours, theirs = (without_costs(summary_of(out)["best"]["metrics"]) for out in (broken, whole))
    assert ours == theirs


@pytest.mark.parametrize("holdout", [False, True], ids=["on all images", "with images held out"])
def test_it_stops_where_its_machine_is_about_to_go(
    experiment: Experiment, holdout: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is kept then, and it goes on where the machine stays after all."""
    file, out, told = tmp_path / "notice", OutFolder(tmp_path / "out"), list[str]()
    monkeypatch.setenv(NOTICE_VARIABLE, str(file))
    monkeypatch.setattr(notice, "LOOK_EVERY_S", 0.0)
    file.touch()

    def say(line: str) -> None:
        told.append(line)
        if line.startswith(str(file)):
            assert (out.trials / "train" / "state.pt").is_file()
            file.unlink()

    train_job(job_of(experiment, holdout), out, holdout, say)
    assert [line for line in told if line.startswith(f"{file} says that the machine ")]
    assert json.loads(out.state_file.read_text())["state"] == "finished"


def test_a_finished_one_does_not_go_on(experiment: Experiment, tmp_path: Path) -> None:
    out = OutFolder(tmp_path / "out")
    train_job(job_of(experiment, holdout=False), out, False, quiet)
    with pytest.raises(OutputError, match=r"finished.*summary\.json"):
        resume_training(out, quiet)


def test_a_new_one_beside_it_is_told_how_to_go_on(experiment: Experiment, tmp_path: Path) -> None:
    out = OutFolder(tmp_path / "out")
    out.root.mkdir()
    write_experiment(experiment, out.experiment)
    out.write_state("interrupted", holds_out=False, wall_s=1.0)
    with pytest.raises(OutputError, match="raylora resume"):
        out.check_free(1)


@pytest.mark.parametrize("change", ["a caption", "a picture less"])
def test_changed_pictures_are_told(experiment: Experiment, change: str, tmp_path: Path) -> None:
    """Steps, rates and order would no longer be those that it began with."""
    pictures = Path(shutil.copytree(str(experiment.dataset.path), tmp_path / "pictures"))
    experiment, out = experiment.with_params({"dataset.path": str(pictures)}), OutFolder(tmp_path / "out")
    job = job_of(experiment, holdout=False)
    with pytest.raises(KeyboardInterrupt):
        train_job(job, out, False, Interruption(f"{job.plan.trial.images_per_epoch} of"))
    picture = job.pictures[0].path
    before = picture.read_bytes(), picture.with_suffix(".txt").read_bytes()
    if change == "a caption":
        picture.with_suffix(".txt").write_text("something else")
    else:
        picture.unlink()
    with pytest.raises(DatasetError, match=r"have changed since .*put them back"):
        resume_training(out, quiet)
    picture.write_bytes(before[0])
    picture.with_suffix(".txt").write_bytes(before[1])
    resume_training(out, quiet)
    assert (out.best / "lora.safetensors").is_file()
