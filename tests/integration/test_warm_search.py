"""A search judged by the user's own encoder, and one that learns from it: the command line and Ray on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from raylora.config import Experiment
from raylora.search.study import COMPARES_KEY, EARLIER_NAME, SOURCE_KEY, read_trials
from raylora.tracking.recorder import read_records
from tests.conftest import Cli

RATE = "optimizer.unet_lr"
ENCODER = """
import os
from pathlib import Path

import numpy as np
import torch


class Colours:
    def __init__(self, device):
        Path(__file__).with_name(f"encoder {os.getpid()}").touch()

    def images(self, pixels):
        means = torch.tensor(np.array([picture.mean((0, 1)) for picture in pixels]) + 1.0)
        return torch.nn.functional.normalize(means.float(), dim=-1)
"""


def space(low: float, high: float) -> dict[str, Any]:
    return {"first_points": [{RATE: low}], "parameters": {RATE: {"low": low, "high": high, "log": True}}}


def reports_in(out: Path) -> list[dict[str, Any]]:
    return [report for record in read_records(out / "trials") for report in record.history]


@pytest.fixture
def folder(tmp_path: Path, tiny_experiment: Experiment) -> Path:
    settings = {
        "search.confirm_trials": 0,
        "search.refit": False,
        "search.max_concurrent": 1,
        "evaluation.encoder": "own_measures:Colours",
    }
    tree = tiny_experiment.with_params(settings).model_dump(mode="json", exclude_none=True)
    del tree["optimizer"]  # it is searched
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "own_measures.py").write_text(ENCODER)
    return tmp_path


def test_a_search_learns_from_one_with_other_bounds(folder: Path, cli: Cli) -> None:
    """Both judge by an own encoder, which the trials' processes find too."""

    def search(out: str, low: float, high: float, trials: int, *more: object) -> dict[str, Any]:
        (folder / "space.yaml").write_text(yaml.safe_dump(space(low, high)))
        what = ("experiment.yaml", "--space", "space.yaml", "--trials", trials, "--out", out)
        done = cli("tune", *what, "--json", *more, timeout_s=1200)
        assert done.returncode == 0, done.stderr
        told.append(done.stderr)
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    told: list[str] = []
    first = search("first", 1e-4, 1e-2, 2)
    assert len(list(folder.glob("encoder *"))) > 1
    assert first["best"]["trial_id"] in {"t000", "t001"}
    assert all("prompt_alignment" not in report for report in reports_in(folder / "first"))  # it has no `texts`
    second = search("second", 5e-5, 2e-3, 2, "--warm-start", "first")
    taken = read_trials(folder / "second" / "study.journal", EARLIER_NAME)
    own = read_trials(folder / "second" / "study.journal")
    assert f"Warm start  {len(taken)} of 2 trials of {folder / 'first'}" in told[1]
    assert {trial.user_attrs[SOURCE_KEY] for trial in taken} == {str(folder / "first")}
    assert all(trial.user_attrs[COMPARES_KEY] for trial in taken)
    assert all(5e-5 <= value <= 2e-3 for trial in [*taken, *own] for value in trial.params.values())
    assert second["best"]["trial_id"] in {"t000", "t001"}
