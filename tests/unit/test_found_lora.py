"""A LoRA on disk: its name, its settings and what its metadata say, wherever it lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from raylora.execution.found_lora import FoundLora, experiment_beside, found_lora
from tests.lora_models import kohya_file

SDXL_KEY = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj"


def found(path: Path) -> FoundLora:
    with found_lora(str(path), None, {}) as lora:
        return lora


def put(path: Path, **metadata: str) -> Path:
    """A LoRA of one layer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kohya_file(path)
    save_file(load_file(path), path, metadata)
    return path


def settings(path: Path, base: str = "demo") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"model: {{base_model: {base}}}\n")
    return path


def told(lora: FoundLora) -> dict[str, Any]:
    return {path: value for layer in lora.layers for path, value in layer.flat.items()}


@pytest.mark.parametrize("name", ["my lora v1", "fox", "_x"])
def test_a_file_is_called_as_it_is(name: str, tmp_path: Path) -> None:
    assert found(put(tmp_path / f"{name}.safetensors")).name == name


def test_a_link_has_the_name_and_the_settings_of_its_place(tmp_path: Path) -> None:
    """The hub's cache is made of links to files that are called by their digests."""
    blob = put(tmp_path / "blobs" / ("f" * 64))
    link = tmp_path / "snapshots" / "abc" / "fox.safetensors"
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    beside = settings(link.parent / "experiment.yaml")
    lora = found(link)
    assert (lora.name, lora.experiment_file, lora.file) == ("fox", beside, blob)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A search's output folder, with files of epochs, of its trials too."""
    root = tmp_path / "run 7"
    for place in (
        "best/lora",
        "epochs/epoch_002",
        "trials/t003/epochs/epoch_001",
        "trials/t004/fold_1/epochs/epoch_001",
    ):
        put(root / f"{place}.safetensors")
    settings(root / "best" / "experiment.yaml")
    settings(root / "experiment.yaml", "whole")
    (root / "summary.json").write_text(json.dumps({"best": {"strength": 0.6}}))
    return root


def test_a_link_to_an_answer_has_its_settings_and_strength(out: Path, tmp_path: Path) -> None:
    link = tmp_path / "loras" / "fox.safetensors"
    link.parent.mkdir()
    link.symlink_to(out / "best" / "lora.safetensors")
    lora = found(link)
    assert (lora.name, lora.strength, lora.experiment_file) == ("fox", 0.6, out / "best" / "experiment.yaml")


@pytest.mark.parametrize("way", ["run 7", "now", "run 7/best/../best/lora.safetensors"])
def test_an_output_folder_is_called_as_its_report_says(way: str, out: Path, tmp_path: Path) -> None:
    (tmp_path / "now").symlink_to(out)
    lora = found(tmp_path / way)
    assert (lora.name, lora.strength, lora.experiment_file) == ("run_7", 0.6, out / "best" / "experiment.yaml")


@pytest.mark.parametrize(
    ("place", "name", "source"),
    [
        ("epochs/epoch_002", "run_7_epoch_002", "best/experiment.yaml"),
        ("trials/t003/epochs/epoch_001", "run_7_t003_epoch_001", "experiment.yaml"),
        ("trials/t004/fold_1/epochs/epoch_001", "run_7_t004_fold_1_epoch_001", "experiment.yaml"),
    ],
)
def test_files_of_epochs_are_used_as_their_output_folder_says(place: str, name: str, source: str, out: Path) -> None:
    lora = found(out / f"{place}.safetensors")
    assert (lora.name, lora.experiment_file, lora.strength) == (name, out / source, 1.0)
    assert experiment_beside(out / f"{place}.safetensors") == out / source


def test_epochs_of_a_training_that_goes_on_have_its_settings(out: Path) -> None:
    (out / "best" / "experiment.yaml").unlink()
    assert found(out / "epochs" / "epoch_002.safetensors").experiment_file == out / "experiment.yaml"


def test_epochs_of_a_search_in_a_folder_called_trials_have_its_own_settings(tmp_path: Path) -> None:
    root = tmp_path / "trials" / "cat"
    put(root / "epochs" / "epoch_002.safetensors")
    (root / "state.json").write_text("{}")
    settings(root / "best" / "experiment.yaml")
    settings(tmp_path / "experiment.yaml", "of something else")
    assert experiment_beside(root / "epochs" / "epoch_002.safetensors") == root / "best" / "experiment.yaml"


def test_another_folder_of_that_name_is_none_of_raylora(tmp_path: Path) -> None:
    file = put(tmp_path / "a" / "b" / "epochs" / "mine 1.safetensors")
    settings(tmp_path / "experiment.yaml")
    assert (found(file).name, found(file).experiment_file) == ("mine 1", None)


def test_metadata_that_can_be_are_taken(tmp_path: Path) -> None:
    hints = {"modelspec.trigger_phrase": "sks man", "modelspec.resolution": "512x768", "ss_clip_skip": "2"}
    assert told(found(put(tmp_path / "a.safetensors", **hints))) == {
        "model.family": "sd15", "dataset.trigger": "sks man", "dataset.resolution": [512, 768], "model.clip_skip": 2,
    }  # fmt: skip


@pytest.mark.parametrize("size", ["00x64", "64x9999", "500x512", "wide", "4160x512"])
@pytest.mark.parametrize("trigger", ["sks\nman", "a\x1bb", " "])
def test_metadata_that_cannot_be_are_left_out(size: str, trigger: str, tmp_path: Path) -> None:
    hints = {"modelspec.trigger_phrase": trigger, "modelspec.resolution": size, "ss_clip_skip": "None"}
    assert told(found(put(tmp_path / "a.safetensors", **hints))) == {"model.family": "sd15"}


def test_an_sdxl_file_that_says_nothing_is_used_at_its_familys_size(tmp_path: Path) -> None:
    tensors = {f"{SDXL_KEY}.lora_down.weight": torch.zeros(2, 1280), f"{SDXL_KEY}.lora_up.weight": torch.zeros(1280, 2)}
    save_file(tensors, tmp_path / "x.safetensors", {"ss_clip_skip": "1"})
    assert told(found(tmp_path / "x.safetensors")) == {"model.family": "sdxl", "dataset.resolution": [1024, 1024]}
