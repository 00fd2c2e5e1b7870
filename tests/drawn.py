"""Sharp pictures that differ from each other, and data sets of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SUBJECTS = ("cat", "dog", "horse", "tree", "house", "boat", "lamp", "chair", "cup")


def drawn(seed: int, size: tuple[int, int] = (128, 128)) -> Image.Image:
    """Coloured rectangles at random, with hard edges."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(int(level) for level in rng.integers(0, 255, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        left, right = sorted(int(side) for side in rng.integers(0, size[0], 2))
        top, bottom = sorted(int(side) for side in rng.integers(0, size[1], 2))
        draw.rectangle((left, top, right, bottom), tuple(int(level) for level in rng.integers(0, 255, 3)))
    return image


def put(folder: Path, name: str, image: Image.Image, caption: str = "") -> Path:
    """Save a picture, with its caption where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name)
    if caption:
        (folder / name).with_suffix(".txt").write_text(caption)
    return folder / name


def draw_set(folder: Path, count: int = 16, size: tuple[int, int] = (128, 128), seed: int = 0) -> Path:
    """A data set in which nothing is wrong at `size`."""
    for number in range(count):
        caption = f"sks, a {SUBJECTS[number % len(SUBJECTS)]}, number {number}"
        put(folder, f"drawn_{number:02d}.png", drawn(seed + number, size), caption)
    return folder
