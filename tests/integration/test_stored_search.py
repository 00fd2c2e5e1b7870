"""A whole search of two nodes that share no disk: pictures and trials on S3, killed, and gone on with elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from ray.cluster_utils import Cluster

from tests.s3 import BUCKET, S3, s3_server
from tests.tiny import make_base, make_pictures

URI, PHOTOS = f"s3://{BUCKET}/search", f"s3://{BUCKET}/pictures"
TRIALS = 2


@dataclass
class Nodes:
    """A cluster whose nodes have folders for temporary files of their own."""

    folder: Path
    environment: dict[str, str]
    cluster: Cluster = field(default_factory=Cluster)
    places: dict[str, Path] = field(default_factory=dict)

    def add(self, name: str) -> Any:
        self.places[name] = self.folder / name
        self.places[name].mkdir()
        return self.cluster.add_node(num_cpus=1, env_vars={**self.environment, "TMPDIR": str(self.places[name])})


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as s3:
        yield s3


@pytest.fixture(scope="module")
def nodes(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path_factory.mktemp("nodes"), s3.environment)
    try:
        yield nodes
    finally:
        nodes.cluster.shutdown()


@pytest.fixture(scope="module")
def world(s3: S3, nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver's folder."""
    world = tmp_path_factory.mktemp("driver")
    make_base(world / "base")
    make_pictures(world / "pictures" / "2_sks portrait", 12)
    for file in (world / "pictures").rglob("*.*"):
        s3.put(f"pictures/{file.relative_to(world / 'pictures')}", file.read_bytes())
    shutil.rmtree(world / "pictures")
    experiment: dict[str, Any] = {
        "dataset": {"path": PHOTOS, "resolution": 64, "random_flip": True},
        "model": {"base_model": "base"},
        "training": {"epochs": 6, "batch_size": 2, "checkpoint_images": 8},
        "evaluation": {"encoder": "demo", "timesteps": [200, 800]},
        "sampling": {"seeds": [0], "steps": 2},
        "search": {
            "trials": TRIALS,
            "grace_period": 16,
            "confirm_trials": 0,
            "trial_scheduler": "none",
            "storage": URI,
        },
    }
    space = {"parameters": {"optimizer.unet_lr": {"low": 1e-4, "high": 1e-2, "log": True}}}
    (world / "experiment.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    (world / "space.yaml").write_text(yaml.safe_dump(space))
    return world


def raylora(world: Path, s3: S3, *arguments: object) -> subprocess.Popen[str]:
    """A driver on a machine of its own."""
    (world / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "raylora", *map(str, arguments)],
        cwd=world, env=os.environ | s3.environment | {"TMPDIR": str(world / "tmp")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def started(world: Path, s3: S3, nodes: Nodes) -> list[str]:
    return ["tune", "experiment.yaml", "--space", "space.yaml", "--address", nodes.cluster.address]


def until_under_way(s3: S3, process: subprocess.Popen[str], place: Path) -> str:
    """Wait for a trial of a node to have a state on the storage; which one that is."""
    deadline = time.monotonic() + 300
    while True:
        here = {path.parent.name for path in place.glob("raylora-*/searches/*/*/trials/*/state.pt")}
        kept = {key.split("/")[2] for key in s3.keys("search/trials/") if key.endswith("/state.pt")}
        if both := sorted(here & kept):
            return both[0]
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_search_is_killed_and_goes_on_with_another_node(world: Path, s3: S3, nodes: Nodes) -> None:
    nodes.add("one")
    lost = nodes.add("two")
    out = world / "out"
    process = raylora(world, s3, *started(world, s3, nodes), "--out", out)
    under_way = until_under_way(s3, process, nodes.places["two"])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    nodes.cluster.remove_node(lost)
    nodes.add("three")
    assert json.loads((out / "trials" / under_way / "trial.json").read_text())["status"] == "running"
    begun = len(s3.asked)

    process = raylora(world, s3, "resume", out, "--json")
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    summary = json.loads(stdout)
    assert summary["trials"] == {"finished": TRIALS, "stopped_early": 0, "failed": 0, "total": TRIALS}
    brought = {asked.split("/")[-2] for asked in s3.asked[begun:] if asked.startswith("GET") and is_of_trial(asked)}
    assert under_way in brought, "it went on from its state"
    check_places(out, s3, nodes)
    check_mlflow(summary)


def is_of_trial(asked: str) -> bool:
    """Whether a trial's state was asked for."""
    return "/search/trials/" in asked and asked.endswith("/state.pt")


def check_places(out: Path, s3: S3, nodes: Nodes) -> None:
    """What is made on nodes is on the storage, and of it users have the answer and the samples."""
    assert {"lora.safetensors", "pytorch_lora_weights.safetensors", "grid.png", "strengths.png"} <= files_in(
        out / "best"
    )
    assert not (out / "cache").exists()
    assert not {"state.pt", "best.safetensors"} & files_in(out / "trials")
    kept = {key.removeprefix("search/") for key in s3.keys("search/")}
    assert {f"trials/t{number:03d}/state.pt" for number in range(TRIALS)} <= kept
    assert {"cache/images.json", "refit/state.pt", "best/lora.safetensors", "raylora.json"} <= kept
    whole = "/cache/images.safetensors"
    assert 1 <= sum(asked.startswith("GET") and asked.endswith(whole) for asked in s3.asked) <= len(nodes.places)
    left = {name for name, place in nodes.places.items() if "images.json" in files_in(place)}
    assert left <= {"two"}, "a node that is still there cleans up"


def check_mlflow(summary: dict[str, Any]) -> None:
    client = MlflowClient(summary["tracking_uri"])
    runs = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{summary['parent_run_id']}'")
    assert sorted(run.info.run_name for run in runs) == [f"t{number:03d}" for number in range(TRIALS)]
    for run in runs:
        pictures = [
            file.path for file in client.list_artifacts(run.info.run_id, "images") if file.path.endswith(".png")
        ]
        reports = client.get_metric_history(run.info.run_id, "score")
        assert len(pictures) == len(reports) == 4  # at 16, 32, 64 and 96 images


def test_a_folder_with_a_search_is_refused(world: Path, s3: S3, nodes: Nodes) -> None:
    process = raylora(world, s3, *started(world, s3, nodes), "--out", "again", "--dry-run")
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 2
    assert f"error: search.storage {URI}: holds another search, out; give another folder" in stderr


def test_every_node_needs_credentials_of_its_own(world: Path, s3: S3, nodes: Nodes) -> None:
    nodes.environment = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    nodes.add("four")
    other = ["--out", "other", "--set", f"search.storage=s3://{BUCKET}/other"]
    process = raylora(world, s3, *started(world, s3, nodes), *other)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 2, stderr
    assert "nothing answers at 127.0.0.1:1 (AWS_ENDPOINT_URL)" in stderr
    assert "every node needs credentials and endpoint of its own" in stderr
    assert not (world / "other").exists()
    assert s3.keys("other/") == set()
