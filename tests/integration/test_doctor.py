"""`raylora doctor` as a user sees it: a real Ray, a real MLflow, and what is wrong with either."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from tests.bad_world import Run

NOWHERE = "127.0.0.1:1"
CLUSTER = """
from tests.clusters import cluster_of
cluster = cluster_of({"num_cpus": 1, "include_dashboard": True}, {"num_cpus": 1, "num_gpus": 1})
print("at", cluster.address, flush=True)
input()
cluster.shutdown()
"""
"""The second node gives away a GPU that it doesn't have."""
Doctor = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def two_nodes() -> Iterator[str]:
    """A cluster in a process of its own, that asks for no token."""
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    started = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert started.stdout is not None
        address = next((line.split()[1] for line in started.stdout if line.startswith("at ")), None)
        assert address is not None, "Ray's nodes didn't start"
        yield address
    finally:
        started.communicate("\n", timeout=300)


@pytest.fixture
def doctor(tmp_path: Path) -> Iterator[Doctor]:
    """In a process of its own, whose home and folder for temporary files must be empty after it."""
    temporary = Path(tempfile.mkdtemp(dir="/tmp", prefix="d"))  # short: Ray's sockets lie there
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        places = {"HOME": str(tmp_path / "home"), "TMPDIR": str(temporary), "COLUMNS": "200"}
        command = [sys.executable, "-m", "raylora", "doctor", *map(str, arguments)]
        modules = os.pathsep.join(map(os.path.abspath, sys.path))
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path / "work", timeout=600, check=False,
            env=os.environ | places | {"PYTHONPATH": modules} | environment,
        )  # fmt: skip

    yield run
    left = [path for place in (temporary, tmp_path / "work") for path in place.rglob("*")]
    left += list((tmp_path / "home").rglob("auth_token"))
    shutil.rmtree(temporary)
    assert left == []


def rows_by_check(stdout: str) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(stdout):
        assert list(one) == ["check", "node", "level", "found", "mend"]
        assert bool(one["mend"]) or one["level"] in ("good", "not checked"), one
        rows.setdefault(one["check"], []).append(one)
    return rows


def levels(rows: list[dict[str, Any]]) -> list[str]:
    return [one["level"] for one in rows]


def test_this_machine_can_run_the_demo(doctor: Doctor, tmp_path: Path) -> None:
    storage = (tmp_path / "storage").as_uri()
    run = doctor("--dataset", "demo", "--base-model", "demo", "--set", f"search.storage={storage}")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    for check in ("Ray: starts here", "State API: answers", "access: Ray asks for a token", "MLflow: works"):
        assert any(line.startswith("good ") and f" {check}" in line for line in lines), (check, run.stdout)
    assert "base model: demo is on this machine" in run.stdout
    assert "dataset: 40 images" in run.stdout
    assert f"storage: {storage} can be written" in run.stdout
    assert not [line for line in lines if line.startswith("bad ")]


def test_a_ray_of_its_own_listens_to_this_machine_alone(doctor: Doctor, tmp_path: Path) -> None:
    """So that it needs no token."""
    run = doctor("--json", "--out", tmp_path / "out", RAY_AUTH_MODE="disabled")
    rows = rows_by_check(run.stdout)
    [access] = rows["access"]
    assert (access["level"], access["found"]) == ("good", "Ray listens to this machine alone")
    assert levels(rows["dataset"]) == levels(rows["base model"]) == ["not checked"]
    assert levels(rows["hub"]) == ["warning"]
    assert not (tmp_path / "out").exists()


def test_a_cluster_is_looked_at_node_by_node(
    two_nodes: str, doctor: Doctor, empty_store: Path, pictures_folder: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    MlflowClient(uri).create_experiment("raylora", artifact_location=(tmp_path / "mlartifacts").as_uri())
    shared = tmp_path / "shared"
    shared.mkdir()
    run = doctor(
        "--address", two_nodes, "--dataset", pictures_folder, "--base-model", tiny_base_folder, "--json",
        "--set", "evaluation.encoder=demo", "--out", shared / "out", "--tracking-uri", uri, RAY_AUTH_MODE="disabled",
    )  # fmt: skip
    rows = rows_by_check(run.stdout)
    assert (run.returncode, run.stderr) == (1, "")
    for check in ("processor", "memory", "output folder", "optimizers", "clock", "bitsandbytes"):
        assert len(rows[check]) == len({one["node"] for one in rows[check]}) == 2, check
    for check in (
        "output folder",
        "clock",
        "shared folder",
        "versions",
        "dataset",
        "base model",
        "MLflow",
        "State API",
    ):
        assert set(levels(rows[check])) == {"good"}, rows[check]
    assert "2 nodes" in rows["Ray"][0]["found"]
    assert sorted(levels(rows["GPU"])) == ["bad", "good"]
    assert "Ray gives 1 GPU" in next(one["found"] for one in rows["GPU"] if one["level"] == "bad")
    [access] = rows["access"]
    assert access["level"] == "warning"
    assert "its main port" in access["found"] and "Ray asks for no token" in access["found"]
    assert "RAY_AUTH_MODE=token" in access["mend"]
    assert list(shared.iterdir()) == []
    assert_nothing_is_left(uri, tmp_path)


def assert_nothing_is_left(uri: str, folder: Path) -> None:
    client = MlflowClient(uri)
    names = [experiment.name for experiment in client.search_experiments(view_type=ViewType.ALL)]
    assert sorted(names) == ["Default", "raylora"]
    known = [str(client.get_experiment_by_name(name).experiment_id) for name in names]
    assert client.search_runs(known, run_view_type=ViewType.ACTIVE_ONLY) == []
    assert [path for path in folder.rglob("*") if path.name.startswith(("raylora-doctor", "mlartifacts"))] == []


def test_each_thing_that_is_wrong_is_told_and_stops_no_other(doctor: Doctor, bad_world: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = doctor(
        bad_world / "good.yaml", "--json", "--address", NOWHERE, "--dataset", bad_world / "unreadable",
        "--base-model", "nobody/nothing", "--tracking-uri", "http://127.0.0.1:9",
        "--out", tmp_path / "file" / "out", "--set", f"search.storage={(tmp_path / 'file').as_uri()}",
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (1, "")
    rows = rows_by_check(run.stdout)
    for check, found in {
        "Ray": f"--address {NOWHERE}: no Ray cluster answers there",
        "dataset": "picture_03.png: can't be read as an image",
        "base model": "nobody/nothing: there is no such path here",
        "MLflow": "http://127.0.0.1:9: MLflow can't be reached",
        "output folder": "can't be written",
        "storage": "search.storage",
    }.items():
        assert levels(rows[check]) == ["bad"], rows[check]
        assert found in rows[check][0]["found"]
    assert levels(rows["clock"]) == levels(rows["shared folder"]) == ["not checked"]
    assert levels(rows["processor"]) == levels(rows["encoder"]) == ["good"]


@pytest.mark.parametrize(
    ("line", "fragments"),
    [
        ("doctor missing.yaml", ["missing.yaml"]),
        ("doctor broken.yaml", ["broken.yaml"]),
        ("doctor misspelt.yaml", ["lora.rnak", "lora.rank"]),
        ("doctor --set lora.rank=many", ["--set", "lora.rank"]),
        ("doctor --address ray://head:10001", ["ray://head:10001", "auto"]),
        ("doctor --tracking-uri http://me:secret@127.0.0.1:9", ["--tracking-uri", "http://***@127.0.0.1:9"]),
        ("doctor --address 'somewhere else'", ["somewhere else", "HOST:PORT"]),
    ],
)
def test_wrong_input_is_told_before_anything_is_looked_at(line: str, fragments: list[str], run: Run) -> None:
    result = run(line)
    assert result.status == 2
    assert result.stdout == ""
    for fragment in fragments:
        assert fragment in result.stderr
