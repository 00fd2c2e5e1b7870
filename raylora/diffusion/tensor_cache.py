"""Latents and embeddings on disk, made once and shared by whoever works on the same folder.

An entry's name is a digest of everything that it depends on, so a changed picture, size or encoder is another entry.
Entries are written whole or not at all, and each by content: two that write the same one at once write the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from raylora.diffusion.base import BaseModel, Conditioning, join
from raylora.diffusion.encode import checked_numbers, encode_images, encode_prompts
from raylora.files import write_atomically

Tensors = dict[str, Tensor]
PICTURES_AT_ONCE = 8
"""Read, encoded and written before the next: what a stop in the middle costs, and what lies in memory."""

PROMPTS_TOGETHER = 32
"""Embedded in one go, and then written."""


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

    @property
    def keeps(self) -> bool:
        """Whether there is a folder; without one a key need not tell what an entry depends on."""
        return self._folder is not None

    def get_all(self, keys: Sequence[str], make: Callable[[list[int]], Iterable[Tensors]]) -> list[Tensors]:
        """The tensors of every key; `make` is given the places of those that are missing or broken.

        What it yields is written at once, before it makes more.
        """
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
    vae = base.latents_digest if cache.keeps else ""
    keys = [f"{picture.digest} {picture.frame.size} {picture.mirrored} {vae}" for picture in pictures]

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
    """Conditioning of prompts, best all different, by text encoders that aren't trained, on the CPU."""
    encoders = f"{base.text_digest} {base.dtype}" if cache.keeps else ""
    keys = [f"{prompt} {encoders}" for prompt in prompts]

    def make(places: list[int]) -> Iterator[Tensors]:
        for first in range(0, len(places), PROMPTS_TOGETHER):
            chunk = [prompts[place] for place in places[first : first + PROMPTS_TOGETHER]]
            made = {name: value.cpu() for name, value in _named(encode_prompts(base, chunk)).items()}
            for row in range(len(chunk)):
                yield {name: value[[row]] for name, value in made.items()}

    return join(Conditioning(**tensors) for tensors in cache.get_all(keys, make))


def _named(conditioning: Conditioning) -> Tensors:
    pooled = {} if conditioning.pooled is None else {"pooled": conditioning.pooled}
    return {"embeddings": conditioning.embeddings, **pooled}
