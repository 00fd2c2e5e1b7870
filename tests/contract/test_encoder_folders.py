"""Encoders' folders that lack something: told before anything is loaded, each with its mend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model, ViTConfig

from raylora.bundled import DEMO_ENCODER
from raylora.errors import ModelError
from raylora.evaluation.encoders import check_encoder, check_encoder_on_hub, load_encoder

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole encoder, to be spoilt."""
    return Path(shutil.copytree(DEMO_ENCODER, tmp_path / "encoder"))


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def cut_off(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])


def index_without_shards(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))


def empty_index(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text("{}")


def of_another_kind(folder: Path) -> None:
    ViTConfig().save_pretrained(folder)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (remove(CONFIG), "has no config.json; download the model again, or give a hub id"),
    "half a configuration": (write(CONFIG, '{"model_type": "clip"'), "its config.json can't be read as JSON"),
    "a list": (write(CONFIG, "[1]"), "its config.json can't be read as JSON"),
    "no kind": (write(CONFIG, "{}"), "its config.json names no model_type"),
    "an unknown kind": (of_another_kind, "is a vit model; known kinds are clip, siglip"),
    "no weights": (remove(WEIGHTS), "has no model.safetensors; download the model again"),
    "empty weights": (write(WEIGHTS, ""), "its model.safetensors is cut off or damaged (0 bytes"),
    "cut off": (cut_off, "its model.safetensors is cut off or damaged"),
    "another name": (
        rename(WEIGHTS, "weights.safetensors"),
        "has no model.safetensors but weights.safetensors; rename",
    ),
    "pickled": (rename(WEIGHTS, "pytorch_model.bin"), "pickled weights alone, which can run any code"),
    "no shards": (index_without_shards, "has no model-00001-of-00002.safetensors, which its model.safetensors.index"),
    "an empty index": (empty_index, "its model.safetensors.index.json names no files"),
    "no preprocessing": (remove("preprocessor_config.json"), "has no preprocessor_config.json"),
    "no tokenizer": (remove("tokenizer.json"), "has no tokenizer.json or vocab.json"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_part_that_is_missing_is_named_before_anything_is_loaded(fault: str, folder: Path) -> None:
    spoil, message = SPOILT[fault]
    spoil(folder)
    with pytest.raises(ModelError) as told:
        check_encoder(str(folder))
    assert str(told.value).startswith(f"evaluation.encoder {folder}: ")
    assert message in str(told.value)


def test_a_file_is_not_told_to_be_missing(folder: Path) -> None:
    with pytest.raises(ModelError, match="is a file; give the folder that holds it"):
        check_encoder(str(folder / WEIGHTS))


def test_a_whole_encoder_is_taken(folder: Path) -> None:
    check_encoder_on_hub(str(folder))


def put_dinos_weights(folder: Path) -> None:
    tiny = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    Dinov2Model(Dinov2Config(**tiny)).save_pretrained(folder / "dino")
    shutil.move(folder / "dino" / WEIGHTS, folder / WEIGHTS)


def drop(folder: Path, name: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors[name]
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def widen(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "projection_dim": 2 * config["projection_dim"]}))


@pytest.mark.parametrize("look", [check_encoder_on_hub, load_encoder], ids=["before the start", "while it is loaded"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (put_dinos_weights, "of the 142 tensors that its config.json asks for are missing in its weights"),
        (lambda folder: drop(folder, "visual_projection.weight"), "1 of the 142 .* such as visual_projection.weight"),
        (widen, "2 of the 142 tensors .* have other shapes in its weights, such as text_projection.weight"),
    ],
    ids=["another architecture", "one tensor less", "another width"],
)
def test_weights_that_would_be_drawn_at_random_are_refused(
    spoil: Callable[[Path], None], message: str, look: Callable[[str], object], folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=f"evaluation.encoder {folder}: .*{message}"):
        look(str(folder))


def test_weights_that_no_embedding_depends_on_may_be_missing(folder: Path) -> None:
    drop(folder, "logit_scale")
    assert torch.isfinite(load_encoder(str(folder)).texts(["red hair"])).all()
