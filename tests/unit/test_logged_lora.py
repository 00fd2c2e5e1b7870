"""Whether MLflow alone serves a LoRA as it was trained, by what its model's files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities import LoggedModelStatus
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from raylora.tracking.claims import Claim, Fold
from raylora.tracking.entry import ENTRY_FOLDER, ENTRY_NAME, Entry
from raylora.tracking.logged_lora import AS_TRAINED, LoggedLora, look_at

FLAVOUR = {"adapter_weights": "weights", "base_model": "some/base"}


def write_model(folder: Path, metadata: Any = None, prediction: str | None = None, **flavour: str) -> Path:
    """A model's files; `prediction` is what its LoRA was trained to predict."""
    content = {"flavors": {"diffusers": {**FLAVOUR, **flavour}}, **({"metadata": metadata} if metadata else {})}
    (folder / "MLmodel").write_text(yaml.safe_dump(content))
    (folder / "weights").mkdir()
    (folder / "weights" / "pytorch_lora_weights.safetensors").write_bytes(b"")
    judged_by = {"model.prediction_type": prediction, "sampling.steps": 2}
    entry = Entry({"raylora.score": "1"}, "text", Claim(1.0, 2, judged_by, [Fold({"a": "b"}, frozenset())]))
    entry.write(folder / ENTRY_FOLDER / ENTRY_NAME)
    return folder


def looked_at(folder: Path, status: LoggedModelStatus | None = LoggedModelStatus.READY) -> LoggedLora:
    return look_at(get_artifact_repository(folder.as_uri()), status)


def folder_that_predicts(folder: Path, kind: str) -> str:
    (folder / "scheduler").mkdir(parents=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": kind}))
    return str(folder)


@pytest.mark.parametrize("status", [LoggedModelStatus.READY, None])
def test_a_whole_one_tells_its_base_model_and_its_entry(tmp_path: Path, status: LoggedModelStatus | None) -> None:
    told = looked_at(write_model(tmp_path, {AS_TRAINED: True}), status)
    assert (told.fault, told.base_model) == (None, "some/base")
    assert told.entry is not None and told.entry.claim is not None and told.entry.tags == {"raylora.score": "1"}


@pytest.mark.parametrize("status", [LoggedModelStatus.PENDING, LoggedModelStatus.FAILED])
def test_one_whose_upload_did_not_end_is_none(tmp_path: Path, status: LoggedModelStatus) -> None:
    assert f"(MLflow calls it {status})" in str(looked_at(write_model(tmp_path), status).fault)


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("MLmodel", "its MLmodel isn't there"),
        ("weights/pytorch_lora_weights.safetensors", "its weights/pytorch_lora_weights.safetensors isn't there"),
    ],
)
def test_files_that_are_lost_are_named(tmp_path: Path, lost: str, told: str) -> None:
    (write_model(tmp_path) / lost).unlink()
    assert looked_at(tmp_path).fault == told


def test_what_raylora_did_not_log_has_no_entry_and_is_served_if_it_is_a_lora(tmp_path: Path) -> None:
    (write_model(tmp_path) / ENTRY_FOLDER / ENTRY_NAME).unlink()
    assert looked_at(tmp_path) == LoggedLora("some/base")
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}")
    assert "is no LoRA" in str(looked_at(tmp_path).fault)


def test_an_entry_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (write_model(tmp_path) / ENTRY_FOLDER / ENTRY_NAME).write_text("{")
    assert "its files can't be read" in str(looked_at(tmp_path).fault)


def test_mlflow_loads_no_single_file(tmp_path: Path) -> None:
    told = looked_at(write_model(tmp_path, base_model="/models/sd.safetensors"))
    assert told.fault == "its base model is one file, which MLflow doesn't load"


@pytest.mark.parametrize(
    ("metadata", "prediction", "folder", "is_served"),
    [
        ({AS_TRAINED: False}, "v_prediction", "epsilon", False),
        ({AS_TRAINED: True}, "v_prediction", "v_prediction", True),
        (None, "v_prediction", "epsilon", False),
        (None, "v_prediction", "v_prediction", True),
        (None, "v_prediction", None, False),  # it isn't here: nobody knows
        (None, None, "epsilon", True),
        ({AS_TRAINED: "yes"}, "v_prediction", "epsilon", False),
    ],
)
def test_a_base_model_that_is_told_what_it_predicts_must_say_so_itself(
    metadata: Any, prediction: str | None, folder: str | None, is_served: bool, tmp_path: Path
) -> None:
    place = tmp_path / "base"
    base = folder_that_predicts(place, folder) if folder else str(place)
    (tmp_path / "model").mkdir()
    told = looked_at(write_model(tmp_path / "model", metadata, prediction, base_model=base))
    assert (told.fault is None) == is_served
    assert is_served or "without its model.prediction_type, v_prediction" in str(told.fault)
