"""The command line in this process, in a folder of good and bad things."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow import MlflowClient

from raylora import cli
from raylora.config import Experiment
from raylora.dataset.split import split_folds
from raylora.diffusion.families import load_base
from raylora.evaluation.encoders import load_encoder
from raylora.execution.node_cache import Material, make_shared, write_shared
from raylora.execution.outputs import OutFolder
from raylora.execution.prepare import read_pictures
from raylora.execution.share import Share
from raylora.execution.trial import TrialJob
from raylora.execution.underway import Search
from raylora.files import fold_folders
from raylora.tracking.mlflow_runs import MlflowTracker
from raylora.tracking.recorder import Listeners
from raylora.tracking.sender import MlflowSender
from tests.bad_world import Result, Run, make_world
from tests.integration.test_trainer import make_material

MakeJob = Callable[[Mapping[str, Any]], TrialJob]

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def bad_world(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), tiny_base_folder)


@pytest.fixture
def run(bad_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process, in the world's folder; the word `out` stands for a new folder."""
    monkeypatch.chdir(bad_world)
    monkeypatch.setenv("COLUMNS", "200")

    def call(line: str) -> Result:
        arguments = [str(tmp_path / "out") if word == "out" else word for word in shlex.split(line)]
        monkeypatch.setattr(sys, "argv", ["raylora", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return Result(int(ended.value.code or 0), COLOURS.sub("", told.out), COLOURS.sub("", told.err))

    return call


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make a database; tests copy this one."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


def make_folds(experiment: Experiment) -> list[Material]:
    splits = split_folds(read_pictures(experiment, lambda _: None), experiment.dataset.folds)
    return [Material(split.train, split.holdout) for split in splits]


@pytest.fixture
def make_job(tiny_experiment: Experiment, tmp_path: Path) -> MakeJob:
    """A search's folder with what its trials share, ready for them."""

    def make(params: Mapping[str, Any]) -> TrialJob:
        experiment, out = tiny_experiment.with_params(params), OutFolder(tmp_path / "out")
        out.root.mkdir()
        assert experiment.model.base_model is not None
        base, encoder = load_base(experiment.model.base_model), load_encoder("demo")
        materials = make_folds(experiment) if experiment.dataset.folds > 1 else [make_material(experiment)]
        for place, material in zip(fold_folders(out.cache, len(materials)), materials, strict=True):
            write_shared(place, make_shared(base, encoder, material, experiment, out.cache))
        return TrialJob(out.root, experiment, threads=1)

    return make


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path)}"


@pytest.fixture
def tracker(uri: str) -> MlflowTracker:
    tracker = MlflowTracker(uri, "raylora")
    tracker.start("search", {}, {})
    return tracker


@pytest.fixture
def search(tiny_experiment: Experiment, tmp_path: Path, empty_store: Path) -> Iterator[Search]:
    """One whose trials are still to be made up."""
    out = OutFolder(tmp_path / "out")
    out.root.mkdir()
    out.space.write_text("")
    job = cast(Any, SimpleNamespace(experiment=tiny_experiment))
    uri = f"sqlite:///{shutil.copy(empty_store, out.root)}"
    with MlflowSender(uri, "raylora", [out.trials], print) as tracker:
        tracker.start("out", {}, {})
        out.write_state("running", tracking_uri=tracker.uri, parent_run_id=tracker.parent_run_id)
        yield Search(job, out, tracker, Listeners([]), print, Share(1, 0.0, 1, 1))
