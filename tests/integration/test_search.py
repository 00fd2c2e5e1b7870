"""A whole small search on real Ray, real Optuna and real MLflow, through the command line."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
import torch
import yaml
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.ports import free_port
from tests.preparing import run_in
from tests.tiny import make_base, make_pictures

TRIALS, FEWER = 6, 4
SPACE = {
    "first_points": [{"optimizer.unet_lr": rate, "lora.rank": 4, "lora.alpha": 2} for rate in (1e-3, 2e-3, 1e-6, 2e-6)],
    "parameters": {
        "optimizer.unet_lr": {"low": 1e-6, "high": 1e-2, "log": True},
        "lora.rank": {"choices": [2, 4]},
        "lora.alpha": {"ratio_of": "lora.rank", "choices": [0.5, 1.0]},
    },
}


@dataclass(frozen=True)
class World:
    """A folder with a tiny base model, pictures, an experiment file and a search space."""

    folder: Path

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "raylora", *map(str, arguments)]

    def raylora(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, capture_output=True, text=True, timeout=1200, check=False
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("search")
    make_base(folder / "base")
    make_pictures(folder / "pictures" / "3_sks portrait", 12)
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
    experiment: dict[str, Any] = {
        "dataset": {"path": "pictures", "resolution": 64, "trigger": "sks"},
        "model": {"base_model": "base"},
        "training": {"epochs": 4, "batch_size": 2},
        "evaluation": {"encoder": "demo", "timesteps": [200, 800], "score": {"w_sim": 0, "w_copy": 0}},
        "sampling": {"seeds": [0], "steps": 2},
        "search": {
            "trials": TRIALS,
            "grace_period": 16,
            "startup_trials": 2,
            "confirm_trials": 2,
            "confirm_seeds": 2,
        },
    }
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    return World(folder)


@pytest.fixture(scope="module")
def out(world: World) -> Path:
    """The output of one finished search."""
    done = world.raylora(
        "tune", "experiment.yaml", "--space", "space.yaml", "--out", "out", "--register", "tiny-lora", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["total"] == TRIALS
    assert "Traceback" not in done.stderr
    (world.folder / "told.txt").write_text(done.stderr)
    return world.folder / "out"


@pytest.fixture(scope="module")
def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_summary_names_the_winner_and_its_score_in_the_search(out: Path, summary: dict[str, Any]) -> None:
    rows = rows_of(out)
    (best,) = (row for row in rows if row["trial_id"] == summary["best"]["trial_id"])
    assert summary["best"]["selection_score"] == pytest.approx(float(best["score"]))
    assert summary["best"]["params"]["lora.rank"] == int(best["lora.rank"])
    assert summary["images_seen"] == sum(int(row["images_seen"]) for row in rows)
    counts = summary["trials"]
    assert counts["finished"] + counts["stopped_early"] + counts["failed"] == counts["total"] == len(rows) == TRIALS


def test_the_best_two_were_trained_again_with_new_seeds(out: Path, summary: dict[str, Any]) -> None:
    """Where each was best, on its own schedule; the higher mean wins, and is the score."""
    rows = sorted(  # those that came to their end before any that was stopped: only they say what they promised
        rows_of(out), key=lambda row: (row["status"] == "finished", float(row["score"] or "-inf")), reverse=True
    )
    again = [json.loads(path.read_text()) for path in sorted(out.glob("confirmations/*/trial.json"))]
    chosen = dict.fromkeys([rows[0]["trial_id"], rows[1]["trial_id"], "t000"])
    assert [record["confirms"] for record in again] == [trial_id for trial_id in chosen for _ in range(2)]
    assert [record["params"]["seed"] for record in again] == [1, 2] * len(chosen)
    ends = {row["trial_id"]: int(row["best.holdout_loss"] and row["images_seen"]) for row in rows}
    for record in again:
        (only,) = record["history"]
        assert only["images_seen"] == record["params"]["training.stop_at"] <= ends[record["confirms"]]
    confirmed = summary["confirmed"]
    for candidate in confirmed:
        scores = [record["history"][0]["score"] for record in again if record["confirms"] == candidate["trial_id"]]
        assert len(set(scores)) == 2
        assert candidate["new_seed_scores"] == scores
        assert candidate["score"] == pytest.approx(sum(scores) / 2)
    assert [one["score"] for one in confirmed] == sorted((one["score"] for one in confirmed), reverse=True)
    assert summary["refit"]
    assert summary["best"]["trial_id"] == confirmed[0]["trial_id"]
    assert summary["best"]["score"] == confirmed[0]["score"]


def test_the_lora_was_trained_on_all_images_and_its_settings_give_it_again(world: World, out: Path) -> None:
    done = world.raylora("train", out / "best" / "experiment.yaml", "--out", "once_more")
    assert done.returncode == 0, done.stderr
    again, ours = (load_file(folder / "best" / "lora.safetensors") for folder in (world.folder / "once_more", out))
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[key], ours[key]) for key in ours)
    with safe_open(out / "best" / "lora.safetensors", "pt") as file:
        assert file.metadata()["ss_num_train_images"] == "36"  # 12 images x 3 repeats


def test_summary_says_that_few_trials_cannot_tell_what_mattered(summary: dict[str, Any]) -> None:
    found = {one["setting"]: (one["share"], one["verdict"]) for one in summary["importance"]}
    names = ("optimizer.unet_lr", "lora.rank", "lora.alpha / lora.rank")
    assert found == dict.fromkeys(names, (None, "can't tell"))


def test_baseline_is_the_first_point_and_ran_to_its_end(out: Path, summary: dict[str, Any]) -> None:
    baseline = rows_of(out)[0]
    assert (baseline["trial_id"], baseline["is_baseline"], baseline["status"]) == ("t000", "True", "finished")
    assert summary["baseline"]["params"] == {"optimizer.unet_lr": 1e-3, "lora.rank": 4, "lora.alpha": 2}
    assert int(baseline["images_seen"]) == 8 * 3 * 4


def test_weak_trials_were_stopped_early(out: Path) -> None:
    """Rates of 1e-6 and 2e-6 teach nothing within the budget; both come after better ones."""
    assert [row["status"] for row in rows_of(out)[2:4]] == ["stopped_early", "stopped_early"]
    stopped = [row for row in rows_of(out) if row["status"] == "stopped_early"]
    assert stopped
    assert all(row["stop_reason"] and int(row["images_seen"]) < 96 for row in stopped)


def test_study_says_what_became_of_each_trial(out: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(out / "study.journal")))
    study = optuna.load_study(study_name="raylora", storage=storage)
    expected = {"finished": TrialState.COMPLETE, "stopped_early": TrialState.PRUNED, "failed": TrialState.FAIL}
    for row, trial in zip(rows_of(out), study.trials, strict=True):
        assert trial.state == expected[row["status"]]
        assert max(trial.intermediate_values) == int(row["images_seen"])


def test_split_holds_out_a_third_of_twelve(out: Path) -> None:
    split = json.loads((out / "split.json").read_text())
    assert (len(split["holdout"]), split["train_images"]) == (4, 8)


def test_mlflow_has_a_parent_and_a_child_for_each_trial(out: Path, summary: dict[str, Any]) -> None:
    client = MlflowClient(summary["tracking_uri"])
    parent = client.get_run(summary["parent_run_id"])
    assert parent.info.status == "FINISHED"
    assert {"dataset.digest", "version.ray", "version.raylora"} <= set(parent.data.tags)
    assert parent.data.metrics["best.score"] == pytest.approx(summary["best"]["score"])
    query = f"tags.`mlflow.parentRunId` = '{summary['parent_run_id']}'"
    children = client.search_runs([parent.info.experiment_id], filter_string=query)
    rows = {row["trial_id"]: row for row in rows_of(out)}
    tags = {run.info.run_name: run.data.tags for run in children}
    confirming = {name: tags[name]["raylora.confirms"] for name in tags if name.startswith("c")}
    assert confirming.keys() == {path.name for path in out.glob("confirmations/*")}
    assert set(confirming.values()) == {candidate["trial_id"] for candidate in summary["confirmed"]}
    assert {run.info.run_name for run in children} == {*rows, *confirming}
    for run in children:
        if run.info.run_name in confirming:
            continue
        row = rows[run.info.run_name]
        history = client.get_metric_history(run.info.run_id, "holdout_loss")
        assert max(metric.step for metric in history) == int(row["images_seen"])
        assert float(run.data.params["optimizer.unet_lr"]) == pytest.approx(float(row["optimizer.unet_lr"]))
        assert run.data.tags["raylora.status"] == row["status"]
        assert [file for file in client.list_artifacts(run.info.run_id, "images") if file.path.endswith(".png")]
        assert len(client.get_metric_history(run.info.run_id, "train_loss_step")) == int(row["images_seen"]) // 2


def test_best_files(out: Path, summary: dict[str, Any]) -> None:
    tensors = load_file(summary["best"]["lora_kohya"])
    alphas = {float(value) for key, value in tensors.items() if key.endswith(".alpha")}
    assert alphas == {summary["best"]["params"]["lora.alpha"]}
    assert Path(summary["best"]["lora_diffusers"]).is_file()
    assert summary["best"]["strength_scores"]["1"] == pytest.approx(summary["best"]["selection_score"], abs=1e-4)
    assert summary["best"]["strength"] in {float(at) for at in summary["best"]["strength_scores"]}
    assert (out / "best" / "samples" / "strengths.png").is_file()
    with Image.open(out / "best" / "samples" / "grid.png") as grid:
        assert grid.size == (2 + 4 * 66, 2 + 4 * 66)
    assert json.loads((out / "state.json").read_text())["state"] == "finished"


def test_the_report_tells_the_winner_and_shows_it(out: Path, summary: dict[str, Any]) -> None:
    page = (out / "report.html").read_text()
    assert f"{summary['best']['trial_id']} is the best of {TRIALS} trials" in page or "guide’s own settings won" in page
    assert page.count("data:image/webp") >= 4 * 4 + 5 + TRIALS  # compared, strengths, and each trial's first step
    assert "sks portrait, red hair, number" in page  # a caption of a held-out image
    assert "Training on all images" in page and "stopped early: " in page


def test_mlflow_alone_loads_the_champion_and_generates(summary: dict[str, Any]) -> None:
    assert summary["registered"] == {"name": "tiny-lora", "version": "1", "alias": "champion"}
    mlflow.set_tracking_uri(summary["tracking_uri"])
    mlflow.set_registry_uri(summary["tracking_uri"])
    model = mlflow.pyfunc.load_model("models:/tiny-lora@champion")
    answer = model.predict({"prompt": ["sks portrait"]}, params={"num_inference_steps": 2})
    with Image.open(io.BytesIO(answer["image"].iloc[0] if hasattr(answer, "iloc") else answer[0])) as picture:
        assert picture.size == (64, 64)


def test_while_it_ran_it_said_where_to_look_and_what_was_in_use(out: Path, summary: dict[str, Any]) -> None:
    told = (out.parent / "told.txt").read_text()
    (experiment,) = MlflowClient(summary["tracking_uri"]).search_experiments(filter_string="name = 'raylora'")
    page = f"/#/experiments/{experiment.experiment_id}/runs/{summary['parent_run_id']}"
    assert re.search(rf"^MLflow +http://127.0.0.1:5000{page} once this runs: mlflow ui ", told, re.MULTILINE)
    ends = [line for line in told.splitlines() if f" of {TRIALS}, " in line]
    assert len(ends) == TRIALS
    assert all(re.search(r"; \d+ of \d+ CPU cores$", line) for line in ends)
    left = " left, with new seeds and the training on all images; "
    assert any(left in line for line in ends[1:-1])
    assert left not in ends[0] and left in ends[-1]  # new seeds follow


def test_the_study_opens_in_optuna_dashboard(out: Path) -> None:
    told = (out.parent / "told.txt").read_text()
    (command,) = re.findall(r"^Study +(.+)$", told, re.MULTILINE)
    program, journal = shlex.split(command)
    port = free_port()
    dashboard = [str(Path(sys.executable).with_name(program)), journal, "--port", str(port)]
    with subprocess.Popen(dashboard, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            studies = ask(f"http://127.0.0.1:{port}/api/studies", process)
            assert [study["study_name"] for study in studies["study_summaries"]] == ["raylora"]
            (found,) = studies["study_summaries"]
            details = ask(f"http://127.0.0.1:{port}/api/studies/{found['study_id']}", process)
            assert len(details["trials"]) == TRIALS
        finally:
            process.terminate()


def ask(url: str, process: subprocess.Popen[str]) -> Any:
    """What a server that is just starting answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
                return json.loads(answer.read())
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} doesn't answer")


def test_a_folder_with_a_finished_search_is_refused_and_its_answer_named(world: World, out: Path) -> None:
    done = run_in(world.folder, f"tune experiment.yaml --space space.yaml --out {out}")
    assert done.status == 2
    assert str(out / "summary.json") in done.stderr
    done = run_in(world.folder, f"resume {out}")
    assert done.status == 2
    assert "finished" in done.stderr


def break_off(world: World, out: Path, number: signal.Signals, states: tuple[str, int], *arguments: object) -> str:
    """Start a command, send it a signal once there are so many of these files, and return what it said."""
    pattern, count = states
    with subprocess.Popen(
        world.command(*arguments), cwd=world.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and len(list(out.glob(pattern))) < count:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130, stderr
    return stderr


def histories(out: Path) -> dict[str, list[Any]]:
    """What each trial of either round has reported."""
    return {path.parent.name: json.loads(path.read_text())["history"] for path in out.glob("*/*/trial.json")}


def test_interrupted_search_goes_on_with_nothing_lost_or_doubled(world: World) -> None:
    """Twice: by Ctrl-C amid the trials, and amid the new seeds by what a cluster's manager sends."""
    out = world.folder / "interrupted"
    command = ["tune", "experiment.yaml", "--space", "space.yaml", "--out", out, "--set", "training.epochs=8"]
    command += ["--set", "search.refit=false", "--set", "search.confirm_seeds=1", "--trials", FEWER]
    before: dict[str, list[Any]] = {}
    for arguments, number, states in (
        (command, signal.SIGINT, ("trials/*/state.pt", 2)),
        (["resume", out], signal.SIGTERM, ("confirmations/*/state.pt", 1)),
    ):
        stderr = break_off(world, out, number, states, *arguments)
        assert f"raylora resume {out}" in stderr
        assert json.loads((out / "state.json").read_text())["state"] == "interrupted"
        assert "Interrupted: " in (out / "report.html").read_text()
        assert not (out / "summary.json").exists()
        before |= histories(out)

    done = world.raylora("resume", out)
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert len(rows) == FEWER
    assert rows[0]["status"] == "finished"
    after = histories(out)
    again = len(list(out.glob("confirmations/*")))
    assert again in (2, 3) and len(after) == FEWER + again
    for name, history in before.items():
        assert after[name][: len(history)] == history
    summary = json.loads((out / "summary.json").read_text())
    assert not summary["refit"]
    with safe_open(out / "best" / "lora.safetensors", "pt") as file:  # the trial's own
        assert file.metadata()["ss_num_train_images"] == "24"
    runs = MlflowClient(summary["tracking_uri"]).search_runs(["1"])
    assert len(runs) == FEWER + 1 + again


def test_a_trial_on_two_workers_gives_the_losses_of_one(world: World, out: Path) -> None:
    """The same configuration through Ray Train's TorchTrainer with two gloo workers, and in the Tune trial.

    So is the refit: two workers and one, by `raylora train`, give the same LoRA.
    """
    two, alone = world.folder / "workers_2", world.folder / "alone"
    done = world.raylora("tune", "experiment.yaml", "--space", "space.yaml", "--trials", 1, "--out", two,
                         "--gpus-per-trial", 2, "--set", "search.confirm_trials=0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = world.raylora("train", two / "best" / "experiment.yaml", "--out", alone)
    assert done.returncode == 0, done.stderr
    records = [json.loads((folder / "trials" / "t000" / "trial.json").read_text()) for folder in (two, out)]
    assert [record["status"] for record in records] == ["finished"] * 2
    together, single = (
        [loss for report in record["history"] for _, loss in report["train_losses"]] for record in records
    )
    assert together == pytest.approx(single, abs=1e-5)
    ours, theirs = (load_file(folder / "best" / "lora.safetensors") for folder in (two, alone))
    assert all(torch.allclose(ours[key], value, atol=1e-3) for key, value in theirs.items())
