"""A search over three machines, with MLflow on PostgreSQL and S3 on three more: all real, all on this one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from raylora.tracking.recorder import read_records
from tests.hosts.ground import FakeGround, Ground, best_ground
from tests.hosts.programs import Program, wait_until
from tests.hosts.ray_cluster import RayHosts
from tests.tiny import make_base, make_pictures

TRIALS = 5
LIMIT_S = 300
NAME = "three-hosts"
SETTINGS: dict[str, Any] = {
    "dataset": {"path": "pictures", "resolution": 64},
    "model": {"base_model": "base"},
    "training": {"epochs": 6, "batch_size": 2},
    "evaluation": {"encoder": "demo", "timesteps": [200, 800], "score": {"w_sim": 0, "w_copy": 0}},
    "sampling": {"seeds": [0], "steps": 2},
    "search": {
        "trials": TRIALS,
        "grace_period": 8,
        "max_concurrent": 2,
        "confirm_trials": 0,
        "refit": False,
        "trial_scheduler": "none",
    },
}
SPACE = {"parameters": {"optimizer.unet_lr": {"low": 1e-5, "high": 1e-2, "log": True}}}


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground | FakeGround]:
    with best_ground(workers=2) as made:
        yield made


@pytest.fixture
def client(ground: Ground | FakeGround, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("NO_PROXY", "*")
    return MlflowClient(ground.services.mlflow.uri, ground.services.mlflow.uri)


def make_search(folder: Path) -> list[str]:
    """A tiny model, a few pictures, a space of one setting; the words that make a search of them."""
    make_base(folder / "base")
    make_pictures(folder / "pictures" / "2_sks", 12)
    settings = SETTINGS | {
        "dataset": SETTINGS["dataset"] | {"path": str(folder / "pictures")},
        "model": {"base_model": str(folder / "base")},
    }
    (folder / "experiment.yaml").write_text(yaml.safe_dump(settings))
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return ["tune", str(folder / "experiment.yaml"), "--space", str(folder / "space.yaml")]


def lose_a_machine(ray: RayHosts, out: Path, driver: Program) -> None:
    """Cut the power of one that has done a trial, amid its next, of which there is a report; switch it on again."""
    amid_their_next: list[str] = []

    def is_one_amid_its_next() -> bool:
        assert driver.status is None, driver.tail()
        records = read_records(out / "trials")
        statuses = {name: {one.status for one in records if one.node == worker.address}
                    for name, worker in ray.workers.items()}  # fmt: skip
        amid_their_next[:] = [name for name, here in statuses.items() if "running" in here and len(here) > 1]
        return bool(amid_their_next)

    wait_until(is_one_amid_its_next, "a machine's second trial", LIMIT_S)
    (name, *_) = amid_their_next
    ray.kill_node(name)
    ray.restart_node(name)
    ray.wait()


def test_a_search_runs_on_all_machines_and_is_whole_in_mlflow(
    ground: Ground | FakeGround, client: MlflowClient, tmp_path: Path
) -> None:
    out, services = tmp_path / "out", ground.services
    where = ["--address", ground.ray.address, "--tracking-uri", services.mlflow.uri, "--register", NAME]
    driver = ground.ray.drive(*make_search(tmp_path), "--out", out, *where)
    if isinstance(ground, Ground):
        lose_a_machine(ground.ray, out, driver)
    assert driver.wait(LIMIT_S) == 0, driver.tail()

    records = read_records(out / "trials")
    wanted = {f"t{number:03d}": record for number, record in zip(range(TRIALS), records, strict=True)}
    nodes = {record.node for record in records}
    assert len(nodes) == 2
    assert ground.ray.head.address not in nodes  # it has no CPU to give

    study = optuna.load_study(
        study_name="raylora", storage=JournalStorage(JournalFileBackend(str(out / "study.journal")))
    )
    assert [trial.number for trial in study.trials] == list(range(TRIALS))
    assert all(trial.state.is_finished() for trial in study.trials)

    summary = json.loads((out / "summary.json").read_text())
    assert summary["lost_workers"]["causes"] == ({"node": 1} if isinstance(ground, Ground) else {})
    parent = client.get_run(summary["parent_run_id"])
    assert parent.info.status == "FINISHED"
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{summary['parent_run_id']}'"
    )
    assert sorted(run.info.run_name for run in children) == sorted(wanted)
    objects = services.s3.keys()
    for run in children:
        record = wanted[run.info.run_name]
        assert run.data.tags["raylora.node"] == record.node
        heard = [point.step for point in client.get_metric_history(run.info.run_id, "holdout_loss")]
        assert heard == [report["images_seen"] for report in record.history]
        assert any(f"/{run.info.run_id}/artifacts/images/samples+step+" in key for key in objects)
    assert any(f"/{parent.info.run_id}/artifacts/best/lora.safetensors" in key for key in objects)

    version = client.get_model_version(NAME, summary["registered"]["version"])
    assert version.status == "READY"
    assert any(version.source.removeprefix("models:/") in key and "safetensors" in key for key in objects)
