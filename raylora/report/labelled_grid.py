"""Pictures side by side with what tells them apart: prompts down, and across seeds, or strengths if they differ."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from raylora.dataset.pixels import open_rgb
from raylora.diffusion.infotext import Recipe
from raylora.lettering import Font, font_of, writable
from raylora.redaction import one_line

GAP_PX, LABEL_PX, FONT_PX, LINE_PX = 8, 200, 14, 18
HEAD_PX = GAP_PX + LINE_PX + 4
"""The labels of columns."""
LEAST_CELL_PX, MOST_CELL_PX = 128, 512
"""The width of a cell: smaller pictures are enlarged, for a label to fit above them; larger ones are made smaller."""
MOST_PX = 2**26
"""67 megapixels, 200 MB in memory: what a grid of many pictures is made small for."""
MOST_LINES = 12
GROUND, INK, FAINT = "#ffffff", "#101010", "#606060"

Key = tuple[object, ...]


@dataclass(frozen=True)
class Row:
    """The pictures of a row, and what stands beside them."""

    prompt: str
    apart: str
    """What tells it from rows of the same prompt; may be empty."""
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True)
class Layout:
    """Which recipe stands where."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    """Labels; empty ones where there is nothing to say."""
    places: Mapping[Recipe, tuple[int, int]]
    """Row and column, from 0."""


def lay_out(recipes: Sequence[Recipe]) -> Layout:
    """Strengths across and every prompt with each of its seeds down; with one strength, seeds across.

    Where prompts have seeds of their own, the first of each stands in the first column and so on: a column for every
    seed would hold one picture each.
    """
    strengths = list(dict.fromkeys(recipe.strength for recipe in recipes))
    by_strength = len(strengths) > 1
    grouped: dict[Key, list[Recipe]] = {}
    for recipe in dict.fromkeys(recipes):
        grouped.setdefault(_row_key(recipe, by_strength), []).append(recipe)
    seeds = {tuple(recipe.seed for recipe in group) for group in grouped.values()}
    rows = tuple(_row(group, recipes, names_seeds=len(seeds) > 1) for group in grouped.values())
    if by_strength:
        columns = [strength_label(strength) for strength in strengths]
    elif len(seeds) == 1:
        columns = [f"seed {seed}" for seed in next(iter(seeds))]
    else:
        most = max(map(len, seeds))
        columns = [f"{_ordinal(number)} seed" if most > 1 else "" for number in range(1, most + 1)]
    places = {
        recipe: (number, strengths.index(recipe.strength) if by_strength else place)
        for number, row in enumerate(rows)
        for place, recipe in enumerate(row.recipes)
    }
    return Layout(rows, tuple(columns), places)


def strength_label(strength: float) -> str:
    """`strength 0.8`; at 0 there is no LoRA."""
    return f"strength {strength:g}" if strength else "base model"


def _row_key(recipe: Recipe, by_strength: bool) -> Key:
    seed = recipe.seed if by_strength else None
    return recipe.prompt, recipe.negative_prompt, recipe.size, recipe.steps, recipe.guidance_scale, seed


def _row(group: Sequence[Recipe], everything: Sequence[Recipe], names_seeds: bool) -> Row:
    """A row, with all of its recipes' fields that aren't the same in the whole grid."""
    first = group[0]
    seeds = list(dict.fromkeys(recipe.seed for recipe in group))
    told = {
        "size": f"{first.size[0]}×{first.size[1]}",
        "steps": f"{first.steps} steps",
        "guidance_scale": f"guidance {first.guidance_scale:g}",
        "negative_prompt": f"not: {one_line(first.negative_prompt)}" if first.negative_prompt else "no negative prompt",
    }
    apart = [text for field, text in told.items() if len({getattr(recipe, field) for recipe in everything}) > 1]
    of_seeds = [f"seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}"] if names_seeds else []
    return Row(one_line(first.prompt), ", ".join([*of_seeds, *apart]), tuple(group))


def _ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, `11th`."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def labelled_grid(made: Sequence[tuple[Recipe, Path]]) -> bytes:
    """A PNG of pictures that lie in files, with labels."""
    layout = lay_out([recipe for recipe, _ in made])
    wide, high = _cell(layout, [recipe.size for recipe, _ in made])
    font = font_of(FONT_PX)
    size = LABEL_PX + len(layout.columns) * (wide + GAP_PX), HEAD_PX + len(layout.rows) * (high + GAP_PX)
    sheet = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(layout.columns):
        left = LABEL_PX + column * (wide + GAP_PX)
        pen.text((left + wide // 2, GAP_PX), label, INK, font=font, anchor="ma")
    for number, row in enumerate(layout.rows):
        _write_row_label(pen, font, row, HEAD_PX + number * (high + GAP_PX), high)
    for recipe, path in dict(made).items():
        number, column = layout.places[recipe]
        _paste(sheet, path, LABEL_PX + column * (wide + GAP_PX), HEAD_PX + number * (high + GAP_PX), (wide, high))
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


def _write_row_label(pen: ImageDraw.ImageDraw, font: Font, row: Row, top: int, height: int) -> None:
    """The prompt, and fainter what tells the row apart, which has up to half of the room, or what the prompt leaves."""
    most = max(2, min(MOST_LINES, height // LINE_PX))
    prompt, apart = (
        wrapped(writable(text, font), font.getlength, LABEL_PX - 2 * GAP_PX) if text else []
        for text in (row.prompt, row.apart)
    )
    apart = _cut(apart, max(most // 2, most - len(prompt)))
    lines = [(line, INK) for line in _cut(prompt, most - len(apart))] + [(line, FAINT) for line in apart]
    for number, (line, colour) in enumerate(lines):
        pen.text((GAP_PX, top + number * LINE_PX), line, colour, font=font)


def _cut(lines: list[str], most: int) -> list[str]:
    """So many lines; what doesn't fit is told by a sign."""
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][:-1]}…"]


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
