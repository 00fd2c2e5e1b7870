"""Pictures to latents and vectors: a few at a time, kept as they are made, and only if they are numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raylora.config import DatasetConfig, Experiment
from raylora.dataset.folder import Picture, read_folder
from raylora.dataset.pixels import Pixels
from raylora.diffusion import encode
from raylora.diffusion.base import BaseModel
from raylora.diffusion.encode import decode_latents, encode_images, vae_batch
from raylora.diffusion.tensor_cache import PICTURES_AT_ONCE, TensorCache, cached_latents
from raylora.errors import ModelError
from raylora.evaluation import encoders
from raylora.evaluation.encoders import cached_embeddings, load_encoder
from raylora.execution.node_cache import framed, make_shared
from tests.integration.test_trainer import make_material
from tests.tiny import make_pictures

SMALL = DatasetConfig(resolution=(64, 64))
COUNT = 2 * PICTURES_AT_ONCE + 3


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    return read_folder(make_pictures(tmp_path / "pictures", COUNT))


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    return tmp_path / "entries"


def batches_of(module: torch.nn.Module) -> list[int]:
    """How many pictures the module is given by each call, from now on."""
    seen: list[int] = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    return seen


def fails_from_call(number: int) -> Callable[..., None]:
    calls: list[Any] = []

    def hook(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) >= number:
            raise KeyboardInterrupt

    return hook


def test_a_kill_while_pictures_are_encoded_keeps_what_was_made(
    tiny_base: BaseModel, pictures: list[Picture], entries: Path
) -> None:
    cuts, cache = framed(pictures, SMALL), TensorCache(entries)
    hook = tiny_base.vae.encoder.register_forward_pre_hook(fails_from_call(3))
    with pytest.raises(KeyboardInterrupt):
        cached_latents(tiny_base, cuts, cache)
    hook.remove()
    assert len(list(entries.iterdir())) == 2 * PICTURES_AT_ONCE
    batches = batches_of(tiny_base.vae.encoder)
    again = cached_latents(tiny_base, cuts, cache)
    assert batches == [3]
    for mine, alone in zip(again, cached_latents(tiny_base, cuts[::-1], TensorCache(None))[::-1], strict=True):
        assert torch.allclose(mine, alone, atol=1e-5)


def test_pictures_of_several_sizes_keep_their_places(tiny_base: BaseModel, pictures: list[Picture]) -> None:
    small, wide = framed(pictures, SMALL), framed(pictures, DatasetConfig(resolution=(128, 64)))
    mixed = [cut for pair in zip(small, wide, strict=True) for cut in pair]
    found = cached_latents(tiny_base, mixed, TensorCache(None))
    assert [tuple(latent.shape) for latent in found] == [(4, 8, 8), (4, 8, 16)] * COUNT
    assert torch.allclose(found[6], cached_latents(tiny_base, [small[3]], TensorCache(None))[0], atol=1e-5)


def test_a_kill_while_pictures_are_embedded_keeps_what_was_made(
    pictures: list[Picture], entries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "PICTURES_AT_ONCE", 4)
    encoder = load_encoder("demo")
    stop = fails_from_call(3)

    class Stopping:
        identity = encoder.identity

        def images(self, pixels: Sequence[Pixels]) -> Tensor:
            stop()
            return encoder.images(pixels)

        def texts(self, prompts: Sequence[str]) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        cached_embeddings(Stopping(), framed(pictures, SMALL), TensorCache(entries))
    assert len(list(entries.iterdir())) == 8


def test_only_pictures_that_are_shown_stay_in_memory(
    tiny_base: BaseModel, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    material = make_material(tiny_experiment)
    shared = make_shared(tiny_base, load_encoder("demo"), material, tiny_experiment, tmp_path)
    assert not shared.train.pixels
    assert [pixels.shape for pixels in shared.holdout.pixels] == [(64, 64, 3)] * len(material.holdout)
    assert len(shared.train.latents) == len(shared.train.embeddings) == len(material.train)


def test_a_vae_is_given_no_more_than_fits(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [vae_batch(side, side, 8) for side in (64, 512, 576, 768, 1024, 2048)]
    assert found == [8, 8, 6, 3, 2, 1]
    monkeypatch.setattr(encode, "VAE_PX", 2 * 64 * 128)
    converted: list[int] = []
    to_tensor = encode.to_tensor
    monkeypatch.setattr(encode, "to_tensor", lambda pixels: converted.append(len(pixels)) or to_tensor(pixels))
    encoded, decoded = batches_of(tiny_base.vae.encoder), batches_of(tiny_base.vae.decoder)
    latents = encode_images(tiny_base, np.zeros((5, 64, 128, 3), dtype=np.uint8))
    assert decode_latents(tiny_base, latents).shape == (5, 64, 128, 3)
    assert encoded == decoded == converted == [2, 2, 1]


def test_a_picture_that_the_vae_makes_no_numbers_of_is_named_and_not_kept(
    tiny_base: BaseModel, pictures: list[Picture], entries: Path
) -> None:
    def overflow(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        output[1].fill_(float("nan"))

    tiny_base.vae.encoder.register_forward_hook(overflow)
    with pytest.raises(ModelError, match=r"picture_01\.png: the VAE of .* overflows in torch\.float32.* whole\?"):
        cached_latents(tiny_base, framed(pictures, SMALL), TensorCache(entries))
    assert not entries.exists()


def test_the_mend_of_a_vae_that_overflows_in_fp16_is_named(tiny_base: BaseModel) -> None:
    tiny_base.vae.half()
    with torch.no_grad():
        tiny_base.vae.decoder.conv_out.weight.fill_(6e4)
    with pytest.raises(ModelError, match=r"float16 and makes no numbers; use training\.mixed_precision=bf16 or no"):
        decode_latents(tiny_base, torch.ones(1, 4, 8, 8))
