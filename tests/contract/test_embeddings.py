"""Cached embeddings of real pictures: made once, and made anew when picture, size or encoder is another."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from raylora.bundled import DEMO_ENCODER
from raylora.config import DatasetConfig
from raylora.dataset.folder import Picture, read_folder
from raylora.dataset.pixels import Pixels
from raylora.diffusion.base import BaseModel
from raylora.diffusion.tensor_cache import TensorCache, cached_latents, framed_pixels
from raylora.evaluation.encoders import ImageEncoder, cached_embeddings, load_encoder
from raylora.execution.node_cache import framed, image_set
from tests.tiny import make_pictures

SMALL = DatasetConfig(resolution=(64, 64))
LARGE = DatasetConfig(resolution=(128, 128))


class Counting:
    """An encoder that counts the pictures that it is given."""

    def __init__(self, encoder: ImageEncoder):
        self._encoder, self.seen = encoder, 0
        self.identity = encoder.identity

    def images(self, pixels: Sequence[Pixels]) -> Tensor:
        self.seen += len(pixels)
        return self._encoder.images(pixels)

    def texts(self, prompts: Sequence[str]) -> Tensor | None:
        return self._encoder.texts(prompts)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    return read_folder(make_pictures(tmp_path / "pictures"))


@pytest.fixture
def cache(tmp_path: Path) -> TensorCache:
    return TensorCache(tmp_path / "entries")


def embed(
    encoder: ImageEncoder, pictures: Sequence[Picture], cache: TensorCache, config: DatasetConfig = SMALL
) -> tuple[Tensor, int]:
    """The pictures' vectors, and how many of them were made for it."""
    counting = Counting(encoder)
    cuts = framed(pictures, config)
    return cached_embeddings(counting, cuts, cache), counting.seen


def test_embeddings_are_made_once_and_are_the_encoders_own(pictures: list[Picture], cache: TensorCache) -> None:
    encoder = load_encoder("demo")
    first, made = embed(encoder, pictures, cache)
    again, made_again = embed(encoder, pictures[::-1], cache)
    assert (made, made_again) == (len(pictures), 0)
    assert torch.equal(first, again.flip(0))
    assert torch.equal(first, encoder.images([framed_pixels(cut) for cut in framed(pictures, SMALL)]))


def test_a_changed_picture_is_embedded_anew(pictures: list[Picture], cache: TensorCache) -> None:
    encoder = load_encoder("demo")
    before, _ = embed(encoder, pictures, cache)
    Image.new("RGB", (64, 64), "red").save(pictures[0].path)
    after, made = embed(encoder, read_folder(pictures[0].path.parent), cache)
    assert made == 1
    assert [bool(torch.equal(a, b)) for a, b in zip(before, after, strict=True)] == [False] + [True] * 9


def test_another_size_is_embedded_anew(pictures: list[Picture], cache: TensorCache) -> None:
    encoder = load_encoder("demo")
    embed(encoder, pictures, cache)
    assert embed(encoder, pictures, cache, LARGE)[1] == len(pictures)


def test_another_encoder_embeds_anew(pictures: list[Picture], cache: TensorCache, other_folder: Path) -> None:
    before, _ = embed(load_encoder("demo"), pictures, cache)
    assert embed(load_encoder(str(other_folder)), pictures, cache)[1] == 0  # a copy: the same encoder
    weights = load_file(other_folder / "model.safetensors")
    weights["visual_projection.weight"] = weights["visual_projection.weight"].flip(0) * 2
    save_file(weights, other_folder / "model.safetensors", {"format": "pt"})
    after, made = embed(load_encoder(str(other_folder)), pictures, cache)
    assert made == len(pictures)
    assert not torch.allclose(before, after)


@pytest.fixture
def other_folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_ENCODER, tmp_path / "other"))


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_an_encoder_that_differs_by_its_settings_alone_is_another(other_folder: Path, file: str) -> None:
    before = load_encoder(str(other_folder)).identity
    settings = json.loads((other_folder / file).read_text())
    settings |= {"vision_config": {**settings["vision_config"], "hidden_act": "gelu"}} if file == "config.json" else {}
    settings |= {"image_mean": [0.4, 0.5, 0.5]} if file != "config.json" else {}
    (other_folder / file).write_text(json.dumps(settings))
    assert load_encoder(str(other_folder)).identity != before


def test_an_own_encoder_is_known_by_its_class_version_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    source = """
import torch
class Faces:
    def __init__(self, device): ...
    def images(self, pixels): return torch.eye(2)[:1].repeat(len(pixels), 1)
class Others(Faces): ...
def renew(): Faces.version = "2"
"""
    module = tmp_path / "known_faces.py"

    def identity(name: str) -> str:
        return load_encoder(f"known_faces:{name}").identity

    module.write_text(source)
    found = [identity("Faces"), identity("Others")]
    assert identity("Faces") == found[0]
    sys.modules["known_faces"].renew()
    found.append(identity("Faces"))
    module.write_text(source + "# another\n")
    monkeypatch.delitem(sys.modules, "known_faces")
    found.append(identity("Faces"))
    assert len(set(found)) == 4


def test_the_measures_pictures_come_from_the_cache_beside_their_latents(
    tiny_base: BaseModel, pictures: list[Picture], tmp_path: Path
) -> None:
    cache, encoder = TensorCache(tmp_path / "entries"), Counting(load_encoder("demo"))
    first = image_set(tiny_base, encoder, pictures, SMALL, cache)
    entries = sorted((tmp_path / "entries").iterdir())
    again = image_set(tiny_base, encoder, pictures, SMALL, cache)
    assert encoder.seen == len(pictures)
    assert torch.equal(first.embeddings, again.embeddings)
    assert len(entries) == 2 * len(pictures)
    assert sorted((tmp_path / "entries").iterdir()) == entries
    assert torch.equal(cached_latents(tiny_base, framed(pictures, SMALL), cache)[0], first.latents[0])
