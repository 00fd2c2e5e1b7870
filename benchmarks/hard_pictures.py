"""Sets of pictures that differ though most of them is the same: what a look at near-duplicates must not confuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 256
TEXTURE_SIDE = 2048
Colour = tuple[int, int, int]


def studio(share: float, seed: int = 0, count: int = 16) -> list[Image.Image]:
    """Different things of one size, `share` of the width, in the middle of one two-tone ground."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        image = Image.new("RGB", (SIDE, SIDE), (196, 190, 182))
        ImageDraw.Draw(image).rectangle((0, SIDE * 5 // 8, SIDE, SIDE), fill=(120, 108, 96))
        _thing(image, rng, (SIDE // 2, SIDE // 2), SIDE * share)
        found.append(image.filter(ImageFilter.GaussianBlur(0.6)))
    return found


def _thing(image: Image.Image, rng: np.random.Generator, place: tuple[int, int], size: float) -> None:
    """An angular body of one colour with smaller parts of others on it."""
    draw = ImageDraw.Draw(image)
    for part in (1.0, 0.6, 0.35):
        radii = rng.uniform(0.6, 1.0, corners := int(rng.integers(3, 9))) * size * part / 2
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        x, y = place[0] + radii * np.cos(angles), place[1] + radii * np.sin(angles)
        draw.polygon([(float(a), float(b)) for a, b in zip(x, y, strict=True)], fill=_colour(rng))


def _colour(rng: np.random.Generator) -> Colour:
    red, green, blue = (int(level) for level in rng.integers(20, 235, 3))
    return red, green, blue


def emoji(seed: int = 0, count: int = 16) -> list[Image.Image]:
    """One yellow disc on white, with other eyes, brows and mouth each time."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        image = Image.new("RGB", (SIDE, SIDE), "white")
        draw = ImageDraw.Draw(image)
        draw.ellipse((16, 16, SIDE - 16, SIDE - 16), fill=(255, 204, 60))
        eye, brow = rng.uniform(6, 22), rng.uniform(-18, 18)
        for side in (-1, 1):
            x = SIDE / 2 + side * rng.uniform(36, 46)
            draw.ellipse((x - eye, 100 - eye, x + eye, 100 + eye), fill=(70, 40, 20))
            draw.line((x - 22, 66 - side * brow, x + 22, 66 + side * brow), fill=(70, 40, 20), width=8)
        wide, high, start = rng.uniform(30, 70), rng.uniform(8, 40), int(rng.integers(0, 2)) * 180
        draw.chord((128 - wide, 170 - high, 128 + wide, 170 + high), start, start + 180, fill=(120, 30, 30))
        found.append(image)
    return found


def sprites(seed: int = 0, count: int = 16) -> list[Image.Image]:
    """Small symmetric figures of 12x12 squares, on one ground."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        half = rng.random((12, 6)) < 0.55
        body, pixels = np.concatenate([half, half[:, ::-1]], axis=1), np.full((24, 24, 3), 235, np.uint8)
        pixels[6:18, 6:18][body] = _colour(rng)
        found.append(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    return found


def line_art(seed: int = 0, count: int = 16) -> list[Image.Image]:
    """Lines of one pixel on white."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        image = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
        draw = ImageDraw.Draw(image)
        for _ in range(12):
            left, top = rng.uniform(0, 1.5 * SIDE, 2)
            wide, high = rng.uniform(30, SIDE, 2)
            draw.arc((left, top, left + wide, top + high), *sorted(rng.uniform(0, 360, 2)), fill="black")
        found.append(image)
    return found


def night_skies(seed: int = 0, count: int = 16) -> list[Image.Image]:
    """Stars of a few pixels on next to black."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        image = Image.new("RGB", (2 * SIDE, 2 * SIDE), (6, 7, 14))
        draw = ImageDraw.Draw(image)
        for x, y, radius in rng.uniform((0, 0, 0.3), (2 * SIDE, 2 * SIDE, 1.5), (120, 3)):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(235, 235, 220))
        found.append(image)
    return found


def textures(seed: int = 0, count: int = 6) -> list[Image.Image]:
    """Fine grey grain, large."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        levels = rng.normal(128, 30, (TEXTURE_SIDE, TEXTURE_SIDE)).clip(0, 255).astype(np.uint8)
        found.append(Image.fromarray(levels).filter(ImageFilter.GaussianBlur(number % 3)).convert("RGB"))
    return found


def plain(count: int = 9) -> list[Image.Image]:
    """Black, white and greys between."""
    return [Image.new("RGB", (SIDE, SIDE), (level,) * 3) for level in np.linspace(0, 255, count).astype(int).tolist()]


SETS: dict[str, Callable[[], list[Image.Image]]] = {
    "things of 30% of the width on one ground": lambda: studio(0.3),
    "things of 20%": lambda: studio(0.2),
    "emoji": emoji,
    "sprites": sprites,
    "line art, 1 px": line_art,
    "night skies": night_skies,
    "textures of 2048 px": textures,
    "black, white and greys": plain,
}


def burst(scene: Image.Image, seed: int = 0, count: int = 8) -> list[Image.Image]:
    """Frames of one scene within a second: the camera moves by up to 1.5% of the width, light and grain change."""
    rng, found = np.random.default_rng(seed), []
    width, height = (round(side * 0.95) for side in scene.size)
    for _ in range(count):
        left, top = (int(at) for at in rng.uniform(0.01, 0.04, 2) * scene.width)
        levels = np.asarray(scene.crop((left, top, left + width, top + height)), np.float32) * rng.uniform(0.96, 1.04)
        grain = rng.normal(0, 2, levels.shape)
        found.append(Image.fromarray(np.clip(levels + grain, 0, 255).astype(np.uint8)))
    return found
