"""The command line in this process, in a folder of good and bad things."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from raylora import cli
from raylora.config import Experiment
from raylora.dataset.split import split_folds
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import load_base
from raylora.evaluation.encoders import load_encoder
from raylora.execution.job import read_pictures
from raylora.execution.node_cache import Material, make_shared, write_shared
from raylora.execution.outputs import OutFolder
from raylora.execution.trial import TrialJob
from raylora.files import fold_folders
from raylora.tracking.mlflow_runs import MlflowTracker
from tests.bad_world import Result, Run, make_world
from tests.caption_models import make_blip, make_tagger
from tests.integration.test_trainer import make_material
from tests.preparing import Prepare, command_line

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


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prepare:
    """The command line in this process, in the test's own folder."""
    return command_line(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make a database; tests copy this one."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="module")
def base(tiny_base_folder: Path) -> BaseModel:
    return load_base(str(tiny_base_folder))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    """One registry for all tests of a file: each promotes under a name of its own."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('registry'))}"


@pytest.fixture(scope="module")
def client(store: str) -> MlflowClient:
    return MlflowClient(store, store)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`models/blip` and `models/tagger`."""
    place = tmp_path_factory.mktemp("models")
    make_blip(place / "blip")
    make_tagger(place / "tagger")
    return place


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tagger(tmp_path_factory.mktemp("models") / "tagger")


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
