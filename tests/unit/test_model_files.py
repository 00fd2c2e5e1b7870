"""Model folders are looked at before anything of them is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from raylora.diffusion.model_files import check_header, check_parts, check_sizes, check_tokenizer, check_weights
from raylora.errors import ModelError

NAME = "model.safetensors"
GOOD = {
    "_class_name": "StableDiffusionPipeline",
    "requires_safety_checker": True,
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": [None, None],
}
WANTED = {"unet": "UNet2DConditionModel"}


def test_parts_of_the_libraries_are_fine() -> None:
    check_parts("mine", GOOD, WANTED)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("unet", ["evil", "Evil"]),
        ("unet", ["subprocess", "Popen"]),
        ("unet", [None, None]),
        ("unet", 5),
        ("unet", ["diffusers", "FluxTransformer2DModel"]),
        ("scheduler", ["evil", "Evil"]),
        ("tokenizer", ["builtins", "open"]),
        ("more", ["evil", "Evil"]),
        ("more", ["diffusers", "a.b"]),
        ("more", ["diffusers"]),
    ],
)
def test_parts_of_other_code_are_refused(name: str, entry: Any) -> None:
    with pytest.raises(ModelError, match=f"mine: its model_index.json has .* for '?{name}"):
        check_parts("mine", {**GOOD, name: entry}, WANTED)


def test_whole_weights_are_fine(tmp_path: Path) -> None:
    save_file({"a": np.zeros(2)}, tmp_path / NAME)
    check_weights(tmp_path, NAME)


def test_weights_in_several_files_are_fine(tmp_path: Path) -> None:
    save_file({"a": np.zeros(2)}, tmp_path / "part-1.safetensors")
    (tmp_path / f"{NAME}.index.json").write_text(json.dumps({"weight_map": {"a": "part-1.safetensors"}}))
    check_weights(tmp_path, NAME)


@pytest.mark.parametrize("name", ["../there.safetensors", "/etc/passwd", "..", "", "a\\b", "gone.safetensors"])
def test_weights_lie_beside_their_index(tmp_path: Path, name: str) -> None:
    (tmp_path / "part").mkdir()
    save_file({"a": np.zeros(2)}, tmp_path / "there.safetensors")
    (tmp_path / "part" / f"{NAME}.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match=r"no file beside it|no ordinary file"):
        check_weights(tmp_path / "part", NAME)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 5}', "[" * 100_000])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{NAME}.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"is no index of weights|names no files"):
        check_weights(tmp_path, NAME)


def test_weights_under_another_name_are_told(tmp_path: Path) -> None:
    """A loader would take a pickle beside them, or nothing."""
    save_file({"a": np.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(ModelError, match=r"holds no model\.safetensors, but other\.safetensors"):
        check_weights(tmp_path, NAME)


@pytest.mark.parametrize("content", [b"", b"x" * 100, struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"{}x"])
def test_a_file_that_is_not_whole(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ModelError, match=r"cut off or no \.safetensors file"):
        check_header(tmp_path / NAME)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json or vocab\.json"):
        check_tokenizer(tmp_path)
    (tmp_path / "vocab.json").touch()
    check_tokenizer(tmp_path)


def test_shapes_beyond_any_model_are_refused_before_they_are_made() -> None:
    check_sizes("mine", {"num_hidden_layers": 32, "vocab_size": 49408, "block_out_channels": [320, 640, 1280]})
    for config in ({"num_hidden_layers": 10**6}, {"block_out_channels": [10**9]}, {"down_block_types": ["x"] * 10**5}):
        with pytest.raises(ModelError, match="its configuration has"):
            check_sizes("mine", config)
