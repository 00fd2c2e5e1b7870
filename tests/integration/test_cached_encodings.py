"""What is kept of encodings between runs: made once, and again when anything changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raylora.config import ModelConfig
from raylora.dataset.frames import Frame
from raylora.diffusion.base import BaseModel, Conditioning
from raylora.diffusion.encode import encode_prompts
from raylora.diffusion.families import load_base
from raylora.diffusion.tensor_cache import Framed, TensorCache, cached_conditioning, cached_latents
from tests.tiny import make_pictures


def framed(folder: Path, digest: str = "a" * 64, size: tuple[int, int] = (64, 64)) -> Framed:
    return Framed(next(folder.glob("*.png")), digest, Frame((64, 64), size))


def test_latents_are_made_once_and_again_when_anything_changes(tiny_base: BaseModel, tmp_path: Path) -> None:
    pictures, cache = make_pictures(tmp_path / "pictures", 1), TensorCache(tmp_path / "cache")

    def entries() -> list[Path]:
        return sorted((tmp_path / "cache").iterdir())

    first = cached_latents(tiny_base, [framed(pictures)], cache)[0]
    (entry,) = entries()
    save_file({"latents": (first + 1).contiguous()}, entry)  # what is there is used
    assert torch.equal(cached_latents(tiny_base, [framed(pictures)], cache)[0], first + 1)
    entry.write_bytes(entry.read_bytes()[:-7])  # what is broken is made anew
    assert torch.equal(cached_latents(tiny_base, [framed(pictures)], cache)[0], first)
    assert torch.equal(load_file(entry)["latents"], first)
    cached_latents(tiny_base, [framed(pictures, digest="b" * 64)], cache)
    cached_latents(tiny_base, [framed(pictures, size=(128, 64))], cache)
    assert len(entries()) == 3
    with torch.no_grad():
        next(tiny_base.vae.parameters()).mul_(1.5)
    other = load_base(tiny_base.reference)
    other.vae.load_state_dict(tiny_base.vae.state_dict())
    assert not torch.equal(cached_latents(other, [framed(pictures)], cache)[0], first)
    assert len(entries()) == 4
    scaled, redrawn = load_base(tiny_base.reference), load_base(tiny_base.reference)
    scaled.vae.register_to_config(scaling_factor=0.5)
    assert not torch.equal(cached_latents(scaled, [framed(pictures)], cache)[0], first)
    assert len(entries()) == 5
    with torch.no_grad():  # no latents come from the decoder
        next(redrawn.vae.decoder.parameters()).mul_(1.5)
    assert torch.equal(cached_latents(redrawn, [framed(pictures)], cache)[0], first)
    assert len(entries()) == 5


def test_embeddings_are_kept_by_prompt_and_encoder(
    tiny_base: BaseModel, tiny_base_folder: Path, tmp_path: Path
) -> None:
    cache, prompts = TensorCache(tmp_path), ["sks", "red hair"]
    with torch.no_grad():
        expected = encode_prompts(tiny_base, prompts).embeddings
    assert torch.allclose(cached_conditioning(tiny_base, prompts, cache).embeddings, expected, atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 2
    skipping = load_base(str(tiny_base_folder), model=ModelConfig(clip_skip=2))
    assert not torch.allclose(cached_conditioning(skipping, prompts, cache).embeddings, expected, atol=1e-3)
    assert len(list(tmp_path.iterdir())) == 4


def test_embeddings_are_written_as_they_are_made(tiny_base: BaseModel, tmp_path: Path) -> None:
    """Text encoders that stop in the middle of many prompts leave what they had done."""
    asked: list[int] = []

    def encode(base: BaseModel, prompts: Sequence[str]) -> Conditioning:
        asked.append(len(prompts))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return tiny_base.family.encode(base, prompts)

    stopping = replace(tiny_base, family=replace(tiny_base.family, encode=encode))
    prompts = [f"sks, number {number}" for number in range(70)]
    with pytest.raises(KeyboardInterrupt):
        cached_conditioning(stopping, prompts, TensorCache(tmp_path))
    assert (asked, len(list(tmp_path.iterdir()))) == ([32, 32], 32)
    found = cached_conditioning(stopping, prompts, TensorCache(tmp_path)).embeddings
    assert asked == [32, 32, 32, 6]
    with torch.no_grad():
        assert torch.allclose(found, encode_prompts(tiny_base, prompts).embeddings, atol=1e-6)


def test_where_nothing_is_kept_no_weights_are_hashed(tiny_base: BaseModel) -> None:
    cached_conditioning(tiny_base, ["sks"], TensorCache(None))
    assert "text_digest" not in vars(tiny_base)
