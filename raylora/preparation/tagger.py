"""Captions as lists of Danbooru tags, by a tagger of the WD14 family through ONNX Runtime.

Such a model is `model.onnx`, which takes squares in BGR as float32 of 0 to 255, (batch, side, side, 3), and gives a
probability for each row of `selected_tags.csv` (https://huggingface.co/SmilingWolf/wd-vit-tagger-v3).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from raylora.dataset.imagefolder import read_text
from raylora.errors import DatasetError, ModelError, first_line
from raylora.files import is_file
from raylora.preparation.captioning import AGAIN, Thresholds

MODEL_NAME, TAGS_NAME = "model.onnx", "selected_tags.csv"
GENERAL, CHARACTER = "0", "4"
"""Danbooru's categories. The third that such models know is 9, a rating: nothing that a caption should say."""
MOST_TAGS_BYTES = 2**24
MOST_SIDE_PX, MOST_AT_ONCE = 2048, 64
"""Taggers take 448 px, and one picture or any number: what is declared is made, a batch at a time."""
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""What runs a model, the faster first; ONNX Runtime's plain package has the last alone."""
FACE = re.compile(r"[^\W_]?")
"""What is left of a part of a face, as in `>_o`, without its signs: words have more letters."""


def check(folder: Path, reference: str) -> None:
    """Whether a folder holds a tagger's two files.

    Raises:
        ModelError: it doesn't, or its list of tags can't be read.
    """
    for name in (MODEL_NAME, TAGS_NAME):
        if not is_file(folder / name):
            raise ModelError(f"--caption-model {reference}: has no {name}; {AGAIN}, or give another")
    read_tags(folder / TAGS_NAME, reference)


@dataclass(frozen=True)
class Tag:
    """A row of a tagger's list."""

    name: str
    """As a caption has it."""
    category: str


def read_tags(file: Path, reference: str) -> list[Tag]:
    """The tags in the order of the model's answers.

    Raises:
        ModelError: it is no such list.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(file, MOST_TAGS_BYTES), newline="")))
        tags = [Tag(spoken(row["name"]), row["category"].strip()) for row in rows]
    except (DatasetError, csv.Error, KeyError, AttributeError, TypeError):
        tags = []
    if not tags:
        raise ModelError(
            f"--caption-model {reference}: its {TAGS_NAME} is no table with name and category; {AGAIN}, or give another"
        )
    return tags


def spoken(name: str) -> str:
    """A tag as captions have it: `blue eyes` for `blue_eyes`, but `>_<` and `o_o`, which are drawings, as they are."""
    parts = [re.sub(r"[\W_]", "", part) for part in name.split("_")]
    return name if all(FACE.fullmatch(part) for part in parts) else name.replace("_", " ")


class Tagger:
    """A tagger that writes captions: names first, then what else it is sure of, each the surest first."""

    def __init__(self, folder: Path, reference: str, thresholds: Thresholds):
        self._reference, self._thresholds = reference, thresholds
        self._tags = read_tags(folder / TAGS_NAME, reference)
        usable = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; they are raised as well
        try:
            self._session = onnxruntime.InferenceSession(str(folder / MODEL_NAME), options, providers=usable)
        except Exception as error:  # ONNX Runtime raises kinds of its own
            raise self._wrong(f"its {MODEL_NAME} can't be loaded ({first_line(error)}); {AGAIN}") from None
        self._input, self._side, self._at_once = self._entrance()

    def _entrance(self) -> tuple[str, int, int | None]:
        """Name and side in px of what the model takes, and how many at once if only so many."""
        entrances = self._session.get_inputs()
        if len(entrances) != 1:
            raise self._wrong(f"its {MODEL_NAME} takes {len(entrances)} things, and taggers pictures alone; {AGAIN}")
        entrance, shape = entrances[0], entrances[0].shape
        fits = len(shape) == 4 and shape[3] == 3 and isinstance(shape[1], int) and shape[1] == shape[2]
        if not fits or entrance.type != "tensor(float)" or not 0 < shape[1] <= MOST_SIDE_PX:
            raise self._wrong(f"takes {entrance.type} of {shape}, and taggers of this kind float (n, side, side, 3)")
        at_once = shape[0] if isinstance(shape[0], int) else None
        if at_once is not None and not 0 < at_once <= MOST_AT_ONCE:
            raise self._wrong(f"takes {at_once} pictures at once, and {MOST_AT_ONCE} are the most; give another")
        return entrance.name, shape[1], at_once

    def captions(self, pictures: Sequence[Image.Image]) -> list[str]:
        """Tags between commas for each picture."""
        batch = np.stack([square(picture, self._side) for picture in pictures])
        step = self._at_once or len(batch)
        filled = np.resize(batch, (-(-len(batch) // step) * step, *batch.shape[1:]))  # the first ones again
        parts = [self._probabilities(filled[first : first + step]) for first in range(0, len(filled), step)]
        return [self._caption(row) for row in np.concatenate(parts)[: len(batch)]]

    def _probabilities(self, batch: NDArray[np.float32]) -> NDArray[Any]:
        """(pictures, tags), each 0 to 1."""
        try:
            found = np.asarray(self._session.run(None, {self._input: batch})[0])
        except Exception as error:  # ONNX Runtime raises kinds of its own
            raise self._wrong(f"fails on pictures ({first_line(error)}); {AGAIN}, or give another") from None
        if found.shape != (len(batch), len(self._tags)):
            raise self._wrong(
                f"gives {found.shape[1:]} numbers, and its {TAGS_NAME} has {len(self._tags)} tags; {AGAIN}"
            )
        if found.dtype.kind != "f" or not ((found >= 0) & (found <= 1)).all():
            raise self._wrong("gives numbers that are no probabilities, 0 to 1; give another")
        return found

    def _caption(self, row: NDArray[Any]) -> str:
        surest = sorted(zip(row, self._tags, strict=True), key=lambda pair: -pair[0])
        limits = {CHARACTER: self._thresholds.character, GENERAL: self._thresholds.general}
        return ", ".join(
            tag.name
            for category, limit in limits.items()
            for sure, tag in surest
            if tag.category == category and sure >= limit
        )

    def _wrong(self, fault: str) -> ModelError:
        return ModelError(f"--caption-model {self._reference}: {fault}")


def square(picture: Image.Image, side: int) -> NDArray[np.float32]:
    """What such a model takes of a picture in RGB: (side, side, 3), BGR, 0 to 255.

    White on both sides of the shorter side, then scaled: as the models were trained.
    """
    longest = max(picture.size)
    padded = Image.new("RGB", (longest, longest), "white")
    padded.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    scaled = padded if longest == side else padded.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(scaled, dtype=np.float32)[:, :, ::-1])
