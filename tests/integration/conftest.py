"""The command line in this process, in a folder of good and bad things."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from raylora import cli
from tests.bad_world import Result, Run, make_world

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
