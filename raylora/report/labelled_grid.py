"""Pictures side by side with what tells them apart: prompts down, and across seeds, or strengths if they differ."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from raylora.dataset.pixels import open_rgb
from raylora.diffusion.infotext import Recipe
from raylora.redaction import one_line

GAP_PX, LABEL_PX, FONT_PX, LINE_PX = 8, 200, 15, 19
HEAD_PX = GAP_PX + LINE_PX + 4
"""The labels of columns."""
LEAST_CELL_PX, MOST_CELL_PX = 128, 512
"""The width of a cell: smaller pictures are enlarged, for a label to fit above them; larger ones are made smaller."""
MOST_PX = 2**26
"""67 megapixels, 200 MB in memory: what a grid of many pictures is made small for."""
MOST_LINES = 12
GROUND, INK, FAINT = "#ffffff", "#101010", "#606060"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Key = tuple[object, ...]


@dataclass(frozen=True)
class Layout:
    """Which recipe stands where; each row and column has its label."""

    rows: dict[Key, str]
    columns: dict[float, str]
    by_strength: bool

    def row_of(self, recipe: Recipe) -> Key:
        return _row_key(recipe, self.by_strength)

    def column_of(self, recipe: Recipe) -> float:
        return recipe.strength if self.by_strength else recipe.seed


def lay_out(recipes: Sequence[Recipe]) -> Layout:
    """Strengths across and every prompt with each of its seeds down; with one strength, seeds across."""
    by_strength = len({recipe.strength for recipe in recipes}) > 1
    rows: dict[Key, str] = {}
    columns: dict[float, str] = {}
    several_seeds = len({recipe.seed for recipe in recipes}) > 1
    for recipe in recipes:
        seed = f"\nseed {recipe.seed}" if by_strength and several_seeds else ""
        rows.setdefault(_row_key(recipe, by_strength), f"{one_line(recipe.prompt)}{seed}")
        if by_strength:
            columns.setdefault(recipe.strength, strength_label(recipe.strength))
        else:
            columns.setdefault(recipe.seed, f"seed {recipe.seed}")
    return Layout(rows, columns, by_strength)


def strength_label(strength: float) -> str:
    """`strength 0.8`; at 0 there is no LoRA."""
    return f"strength {strength:g}" if strength else "base model"


def _row_key(recipe: Recipe, by_strength: bool) -> Key:
    seed = recipe.seed if by_strength else None
    return recipe.prompt, recipe.negative_prompt, recipe.size, recipe.steps, recipe.guidance_scale, seed


def labelled_grid(made: Sequence[tuple[Recipe, Path]]) -> bytes:
    """A PNG of pictures that lie in files, with labels."""
    layout = lay_out([recipe for recipe, _ in made])
    files = {(layout.row_of(recipe), layout.column_of(recipe)): path for recipe, path in made}
    wide, high = _cell(layout, [recipe.size for recipe, _ in made])
    font = ImageFont.load_default(FONT_PX)
    size = LABEL_PX + len(layout.columns) * (wide + GAP_PX), HEAD_PX + len(layout.rows) * (high + GAP_PX)
    sheet = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(layout.columns.values()):
        left = LABEL_PX + column * (wide + GAP_PX)
        pen.text((left + wide // 2, GAP_PX), label, INK, font=font, anchor="ma")
    for row, (key, label) in enumerate(layout.rows.items()):
        top = HEAD_PX + row * (high + GAP_PX)
        _write_row_label(pen, font, label, top, high)
        for column, value in enumerate(layout.columns):
            if path := files.get((key, value)):
                _paste(sheet, path, LABEL_PX + column * (wide + GAP_PX), top, (wide, high))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _cell(layout: Layout, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Width and height of a cell in px: the largest picture's shape, as large as all of them together may be."""
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    fitting = math.sqrt(MOST_PX / (len(layout.rows) * len(layout.columns) * width * height))
    scale = min(max(1.0, LEAST_CELL_PX / width), MOST_CELL_PX / width, fitting)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _paste(sheet: Image.Image, path: Path, left: int, top: int, cell: tuple[int, int]) -> None:
    """A picture in the middle of its cell, scaled as all are."""
    picture = open_rgb(path)
    scale = min(cell[0] / picture.width, cell[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    shrunk = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    sheet.paste(shrunk, (left + (cell[0] - size[0]) // 2, top + (cell[1] - size[1]) // 2))


def _write_row_label(pen: ImageDraw.ImageDraw, font: Font, label: str, top: int, height: int) -> None:
    prompt, _, seed = label.partition("\n")
    lines = wrapped(prompt, font.getlength, LABEL_PX - 2 * GAP_PX)
    most = max(1, min(MOST_LINES, height // LINE_PX - bool(seed)))
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1][:-1]}…"]
    for number, (line, colour) in enumerate([(line, INK) for line in lines] + [(seed, FAINT)] * bool(seed)):
        pen.text((GAP_PX, top + number * LINE_PX), line, colour, font=font)


def wrapped(text: str, length: Callable[[str], float], most: float) -> list[str]:
    """Text in lines of at most this length, broken at spaces, and within words that are longer."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if length(longer) <= most:
            lines[-1] = longer
            continue
        lines = lines if lines == [""] else [*lines, ""]
        for sign in word:
            if lines[-1] and length(lines[-1] + sign) > most:
                lines.append("")
            lines[-1] += sign
    return lines
