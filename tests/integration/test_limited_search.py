"""Whole searches with limits: the command line, Ray, Optuna and MLflow on a tiny model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from raylora.config import Experiment
from raylora.config_files import read_experiment, write_experiment
from raylora.search.ranking import COSTS_KEY, excess_of
from raylora.search.study import read_trials
from tests.conftest import Cli

RATE = "optimizer.unet_lr"


def points(*ranks: int) -> dict[str, Any]:
    """A space whose first points have these ranks."""
    return {
        "first_points": [{RATE: 1e-3 / (1 + place), "lora.rank": rank} for place, rank in enumerate(ranks)],
        "parameters": {RATE: {"low": 1e-5, "high": 1e-2, "log": True}, "lora.rank": {"choices": [2, 4, 8]}},
    }


@pytest.fixture
def folder(tmp_path: Path, tiny_experiment: Experiment) -> Path:
    """An experiment in which a LoRA of rank 4 has 0.046 MB."""
    params = {"lora.alpha": 2, "search.confirm_seeds": 1, "search.confirm_trials": 1, "search.refit": False,
              "search.max_concurrent": 1, "evaluation.score.w_sim": 0, "evaluation.score.w_copy": 0}  # fmt: skip
    tree = tiny_experiment.with_params(params)
    write_experiment(tree, tmp_path / "experiment.yaml")
    content = yaml.safe_load((tmp_path / "experiment.yaml").read_text())
    del content["lora"]["rank"], content["optimizer"]
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_search_keeps_its_limits_and_tells_its_trade_offs(folder: Path, cli: Cli) -> None:
    """The guide's own and one other are too large; two are not."""
    (folder / "space.yaml").write_text(yaml.safe_dump(points(8, 4, 2, 2)))
    done = cli("tune", "experiment.yaml", "--space", "space.yaml", "--trials", 4, "--out", "out", "--json",
               "--set", "search.limits.lora_mb=0.03", "--set", "search.tradeoffs=[score,lora_mb,train_s]",
               timeout_s=600)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: search.limits.lora_mb: the first point's LoRA file is over the limit" in done.stderr
    out, summary = folder / "out", json.loads(done.stdout)
    rows = rows_of(out)
    assert (rows[0]["status"], rows[0]["is_baseline"]) == ("finished", "True")
    assert (rows[1]["status"], rows[1]["stop_reason"]) == ("stopped_early", "limit: lora_mb 0.04557 > 0.03")
    assert (rows[1]["images_seen"], rows[1]["best.score"]) == ("0", "")
    assert summary["best"]["trial_id"] in {"t002", "t003"}
    assert summary["baseline"]["over_limits"] == "lora_mb 0.09114 > 0.03"
    assert {one["trial_id"] for one in summary["confirmed"]} in ({"t000", "t002"}, {"t000", "t003"})
    assert summary["confirmed"][-1]["trial_id"] == "t000"
    front = summary["tradeoffs"]["trials"]
    assert {one["trial_id"] for one in front} <= {"t002", "t003"} and front
    by_id = {row["trial_id"]: row for row in rows}
    for one in front:
        assert [one[name] for name in ("score", "lora_mb", "train_s")] == [
            float(by_id[one["trial_id"]][f"best.{name}"]) for name in ("score", "lora_mb", "train_s")
        ]
    trials = read_trials(out / "study.journal")
    assert [trial.state.name for trial in trials][1] == "PRUNED"
    assert trials[1].user_attrs[COSTS_KEY] == {"lora_mb": pytest.approx(0.045568)}
    limits = read_experiment(out / "experiment.yaml").search.limits
    assert [excess_of(trial, limits) > 0 for trial in trials] == [True, True, False, False]  # what proposals avoid
    runs = MlflowClient(summary["tracking_uri"]).search_runs(["1"])
    logged = {run.info.run_name: run.data.metrics for run in runs}
    assert logged["t002"]["train_s"] == float(by_id["t002"]["last.train_s"])
    assert {"peak_memory_gib", "lora_mb"} <= set(logged["t002"])


def test_a_search_of_which_no_trial_keeps_the_limits_ends_with_one_message(folder: Path, cli: Cli) -> None:
    (folder / "space.yaml").write_text(yaml.safe_dump(points(4, 4)))
    done = cli("tune", "experiment.yaml", "--space", "space.yaml", "--trials", 2, "--out", "out",
               "--set", "search.limits.train_s=1e-6", timeout_s=600)  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    (told,) = (line for line in done.stderr.splitlines() if line.startswith("raylora: failed: "))
    assert "2 of 2 trials broke search.limits; the nearest, t001, has train_s " in told
    assert " > 1e-06. There is nothing to go on with: raise the limit" in told
    guide, other = rows_of(folder / "out")
    assert (guide["status"], guide["images_seen"]) == ("finished", "32")
    assert (other["status"], other["images_seen"]) == ("stopped_early", "8")
