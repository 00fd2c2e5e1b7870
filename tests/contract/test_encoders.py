"""One contract for every kind of image encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

from raylora.bundled import DEMO_ENCODER
from raylora.dataset.pixels import Pixels
from raylora.errors import ModelError
from raylora.evaluation.encoders import IMAGE_ENCODERS, load_encoder

SIZE_PX = 32


def write_preprocessor(folder: Path, kind: str) -> None:
    settings = {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"shortest_edge": SIZE_PX},
        "do_center_crop": True,
        "crop_size": {"height": SIZE_PX, "width": SIZE_PX},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": True,
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def make_clip(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_ENCODER)
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tiny, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**tiny, "image_size": SIZE_PX, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_preprocessor(folder, "CLIPImageProcessor")


def make_dinov2(folder: Path) -> None:
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE_PX, patch_size=8, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(folder)
    write_preprocessor(folder, "BitImageProcessor")


ENCODER_MAKERS: dict[str, Callable[[Path], None]] = {"clip": make_clip, "dinov2": make_dinov2}


def test_every_kind_is_tried() -> None:
    assert set(ENCODER_MAKERS) == set(IMAGE_ENCODERS)


@pytest.fixture(scope="module")
def encoder_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real, tiny, untrained model of each kind, as its library saves it."""
    torch.manual_seed(0)
    folders = {}
    for kind, make in ENCODER_MAKERS.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        make(folders[kind])
    return folders


def pictures(count: int, width: int = SIZE_PX, height: int = SIZE_PX) -> Pixels:
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_every_encoder_gives_unit_vectors(kind: str, encoder_folders: dict[str, Path]) -> None:
    vectors = load_encoder(str(encoder_folders[kind])).images(pictures(3))
    assert vectors.shape == (3, 24)
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    assert vectors.norm(dim=-1).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_every_encoder_tells_pictures_apart_and_always_alike(kind: str, encoder_folders: dict[str, Path]) -> None:
    first, again = (load_encoder(str(encoder_folders[kind])) for _ in range(2))
    vectors = first.images(pictures(3))
    assert torch.equal(vectors, first.images(pictures(3)))
    assert torch.equal(vectors, again.images(pictures(3)))
    cosines = vectors @ vectors.T
    assert float((cosines - torch.eye(3) * 2).max()) < 0.9999


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_every_encoder_takes_pictures_of_any_size_and_each_by_itself(
    kind: str, encoder_folders: dict[str, Path]
) -> None:
    encoder = load_encoder(str(encoder_folders[kind]))
    batch = pictures(2, width=96, height=64)
    together = encoder.images(batch)
    assert torch.allclose(together[1], encoder.images(batch[1:])[0], atol=1e-5)


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_every_encoder_knows_texts_or_says_that_it_does_not(kind: str, encoder_folders: dict[str, Path]) -> None:
    vectors = load_encoder(str(encoder_folders[kind])).texts(["red hair", "blue eyes, " * 30])
    if kind == "clip":
        assert vectors is not None
        assert vectors.shape == (2, 24)
        assert vectors.norm(dim=-1).tolist() == pytest.approx([1, 1])
        assert not torch.allclose(vectors[0], vectors[1])
    else:
        assert vectors is None


def test_the_demos_encoder_knows_a_picture_from_noise_and_its_caption() -> None:
    encoder = load_encoder("demo")
    assert encoder.images(pictures(2)).shape[0] == 2
    assert encoder.texts(["red hair"]) is not None


def test_an_encoder_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a bert model; known kinds are clip, dinov2"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
@pytest.mark.parametrize("missing", ["model.safetensors", "preprocessor_config.json", "config.json"])
def test_an_encoder_that_lacks_a_file_is_refused(
    tmp_path: Path, encoder_folders: dict[str, Path], kind: str, missing: str
) -> None:
    for file in encoder_folders[kind].iterdir():
        if file.name != missing:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=f"evaluation.encoder {tmp_path}"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("reference", ["no/such/folder", "./nothing", ""])
def test_an_encoder_that_is_nowhere_is_refused(reference: str) -> None:
    with pytest.raises(ModelError, match=r"evaluation\.encoder"):
        load_encoder(reference)
