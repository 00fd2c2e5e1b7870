"""An image encoder that the user brings, as for faces: `evaluation.encoder: package.module:Class`."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raylora.dataset.pixels import Pixels
from raylora.errors import ModelError, first_line
from raylora.own_code import load_named

LENGTH_TOLERANCE = 1e-3
PROBE_SIZES_PX = ((64, 64), (96, 64))


class OwnEncoder:
    """A user's object behind `ImageEncoder`'s contract: its answers are looked at, whatever it is."""

    def __init__(self, own: Any, reference: str):
        self._own, self._reference = own, reference

    @property
    def identity(self) -> str:
        """The class, its `version` if it has one, and a digest of its module's source."""
        return f"{self._reference} {getattr(self._own, 'version', '')} {_source_digest(type(self._own))}"

    @torch.no_grad()
    def images(self, pixels: Sequence[Pixels]) -> Tensor:
        return self._checked("images", self._own.images(pixels), len(pixels))

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor | None:
        vectors = self._own.texts(prompts) if hasattr(self._own, "texts") else None
        return None if vectors is None else self._checked("texts", vectors, len(prompts))

    def _checked(self, method: str, vectors: object, count: int) -> Tensor:
        fault = _fault(vectors, count)
        if fault:
            raise ModelError(
                f"evaluation.encoder {self._reference}: {method}() gives {fault} for {count} inputs; let it give a "
                f"float tensor ({count}, width) of finite vectors of length 1"
            )
        assert isinstance(vectors, Tensor)
        return vectors.float().cpu()


def _fault(vectors: object, count: int) -> str | None:
    """What is wrong with an encoder's answer, if anything."""
    if not isinstance(vectors, Tensor):
        return f"a {type(vectors).__name__}"
    if vectors.ndim != 2 or vectors.shape[0] != count or not vectors.shape[1]:
        return f"a tensor of shape {tuple(vectors.shape)}"
    if not vectors.is_floating_point():
        return f"a tensor of {vectors.dtype}"
    if not vectors.isfinite().all():
        return "numbers that aren't finite"
    lengths = vectors.float().norm(dim=-1)
    if (lengths - 1).abs().max() > LENGTH_TOLERANCE:
        return f"vectors of lengths {lengths.min():.3f} to {lengths.max():.3f}"
    return None


def import_encoder(reference: str) -> type[Any]:
    """The class that `package.module:Class` names; no object of it is made.

    Raises:
        ModelError: it can't be imported, or is no class with `images`.
    """
    try:
        kind = load_named(reference)
    except Exception as error:  # whatever the module raises while it is imported
        raise ModelError(
            f"evaluation.encoder {reference}: can't be imported ({first_line(error)}); install its package, start "
            "raylora in the folder that holds it, or correct package.module:Class"
        ) from None
    if not isinstance(kind, type) or not callable(getattr(kind, "images", None)):
        raise ModelError(f"evaluation.encoder {reference}: is no class with a method `images`; name one that has it")
    return kind


def load_own_encoder(reference: str, device: str) -> OwnEncoder:
    """The user's encoder, tried on two pictures and two prompts.

    Raises:
        ModelError: it can't be imported or made, fails, or gives something else than `ImageEncoder` asks for.
    """
    kind, random = import_encoder(reference), np.random.default_rng(0)
    probes = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in PROBE_SIZES_PX]
    try:
        encoder = OwnEncoder(kind(device), reference)
        encoder.images(probes)
        encoder.texts(["red hair", "blue eyes"])
    except ModelError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise ModelError(
            f"evaluation.encoder {reference}: fails on {device}, called as `Class(device)` and then with two pictures "
            f"({type(error).__name__}: {first_line(error)}); mend the class"
        ) from error
    return encoder


def _source_digest(kind: type[Any]) -> str:
    """sha256 of the file that defines a class; empty where there is none."""
    try:
        return hashlib.sha256(inspect.getsource(inspect.getmodule(kind) or kind).encode()).hexdigest()
    except (OSError, TypeError):
        return ""
