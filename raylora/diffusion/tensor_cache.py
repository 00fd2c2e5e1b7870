"""Latents and embeddings on disk, made once and shared by whoever works on the same folder.

An entry's name is a digest of everything that it depends on, so a changed picture, size or encoder is another entry.
Entries are written whole or not at all, and each by content: two that write the same one at once write the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from raylora.dataset.batches import alike
from raylora.dataset.frames import Frame
from raylora.dataset.pixels import load_pixels
from raylora.diffusion.base import BaseModel, Conditioning
from raylora.diffusion.encode import checked_numbers, encode_images, encode_prompts
from raylora.files import write_atomically

Tensors = dict[str, Tensor]
PICTURES_AT_ONCE = 8
"""Read, encoded and written before the next: what a stop in the middle costs, and what lies in memory."""


@dataclass(frozen=True)
class Framed:
    """A picture and how it is cut."""

    path: Path
    digest: str
    """sha256 of the file."""
    frame: Frame
    mirrored: bool = False


class TensorCache:
    """Tensors by a key's digest, one safetensors file each. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None):
        self._folder = folder

    def get_all(self, keys: Sequence[str], make: Callable[[list[int]], list[Tensors]]) -> list[Tensors]:
        """The tensors of every key; `make` is given the places of those that are missing or broken."""
        found = {place: tensors for place, key in enumerate(keys) if (tensors := self._read(key)) is not None}
        missing = [place for place in range(len(keys)) if place not in found]
        if missing:
            for place, tensors in zip(missing, make(missing), strict=True):
                self._write(keys[place], tensors)
                found[place] = tensors
        return [found[place] for place in range(len(keys))]

    def _path(self, key: str) -> Path | None:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors" if self._folder else None

    def _read(self, key: str) -> Tensors | None:
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError):
            return None  # cut short by something outside; it is made again

    def _write(self, key: str, tensors: Tensors) -> None:
        if path := self._path(key):
            write_atomically(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def cached_latents(base: BaseModel, pictures: Sequence[Framed], cache: TensorCache) -> list[Tensor]:
    """Scaled latents of each picture, (4, height / f, width / f) in float32 on the CPU; see `encode_images`.

    A few pictures are read, encoded and written before the next are read.

    Raises:
        ModelError: the VAE makes no numbers of a picture, which is not written then.
    """
    found: dict[int, Tensor] = {}
    for group in alike(picture.frame.size for picture in pictures):
        for first in range(0, len(group), PICTURES_AT_ONCE):
            places = group[first : first + PICTURES_AT_ONCE]
            found |= zip(places, _latents_of(base, [pictures[place] for place in places], cache), strict=True)
    return [found[place] for place in range(len(pictures))]


def _latents_of(base: BaseModel, pictures: Sequence[Framed], cache: TensorCache) -> list[Tensor]:
    """Of pictures of one size."""
    keys = [f"{picture.digest} {picture.frame.size} {picture.mirrored} {base.vae_digest}" for picture in pictures]

    def make(places: list[int]) -> list[Tensors]:
        missing = [pictures[place] for place in places]
        latents = encode_images(base, np.stack([framed_pixels(picture) for picture in missing]))
        return [
            {"latents": checked_numbers(base, latent, str(picture.path))}
            for picture, latent in zip(missing, latents, strict=True)
        ]

    return [tensors["latents"] for tensors in cache.get_all(keys, make)]


def framed_pixels(picture: Framed) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """The picture as it is learned: (height, width, 3)."""
    pixels = load_pixels(picture.path, picture.frame.size)
    return pixels[:, ::-1] if picture.mirrored else pixels


@torch.no_grad()
def cached_conditioning(base: BaseModel, prompts: Sequence[str], cache: TensorCache) -> Conditioning:
    """Conditioning of prompts by text encoders that aren't trained, on the CPU."""
    unique = list(dict.fromkeys(prompts))
    keys = [f"{prompt} {base.text_digest} {base.dtype}" for prompt in unique]

    def make(places: list[int]) -> list[Tensors]:
        made = encode_prompts(base, [unique[place] for place in places])
        rows = [made[[row]] for row in range(len(places))]
        return [{name: value.cpu() for name, value in _named(row).items()} for row in rows]

    found = dict(zip(unique, cache.get_all(keys, make), strict=True))
    pooled = [found[prompt]["pooled"] for prompt in prompts if "pooled" in found[prompt]]
    embeddings = torch.cat([found[prompt]["embeddings"] for prompt in prompts])
    return Conditioning(embeddings, torch.cat(pooled) if pooled else None)


def _named(conditioning: Conditioning) -> Tensors:
    pooled = {} if conditioning.pooled is None else {"pooled": conditioning.pooled}
    return {"embeddings": conditioning.embeddings, **pooled}
