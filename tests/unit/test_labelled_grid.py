"""Pictures side by side with labels, and their numbered files."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raylora.diffusion.infotext import Recipe
from raylora.errors import OutputError
from raylora.execution.numbered import NumberedFolder, check_folder
from raylora.report.labelled_grid import GAP_PX, HEAD_PX, LABEL_PX, MOST_PX, _cell, labelled_grid, lay_out, wrapped

COLOURS = ("red", "lime", "blue", "yellow", "magenta", "cyan")


def recipe(prompt: str, seed: int, strength: float = 1.0, size: tuple[int, int] = (256, 128), **fields: Any) -> Recipe:
    return replace(Recipe(prompt, "", seed, size, 5, 7.0, strength), **fields)


def labels(recipes: list[Recipe]) -> list[tuple[str, str]]:
    return [(row.prompt, row.apart) for row in lay_out(recipes).rows]


def drawn(folder: Path, recipes: list[Recipe]) -> list[tuple[Recipe, Path]]:
    """A plain colour for each."""
    made = []
    for number, (one, colour) in enumerate(zip(recipes, COLOURS, strict=False)):
        path = folder / f"{number}.png"
        Image.new("RGB", one.size, colour).save(path)
        made.append((one, path))
    return made


def middles(grid: Image.Image, rows: int, columns: int, cell: tuple[int, int]) -> list[tuple[int, ...]]:
    """The colour in the middle of each cell, row by row."""
    return [
        grid.getpixel((LABEL_PX + column * (cell[0] + GAP_PX) + cell[0] // 2,
                       HEAD_PX + row * (cell[1] + GAP_PX) + cell[1] // 2))
        for row in range(rows) for column in range(columns)
    ]  # type: ignore[misc]  # fmt: skip


def test_prompts_go_down_and_seeds_across(tmp_path: Path) -> None:
    recipes = [recipe(prompt, seed) for prompt in ("a", "b") for seed in (0, 1, 2)]
    with Image.open(io.BytesIO(labelled_grid(drawn(tmp_path, recipes)))) as grid:
        assert grid.size == (LABEL_PX + 3 * 264, HEAD_PX + 2 * 136)
        expected = [Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in COLOURS]
        assert middles(grid, 2, 3, (256, 128)) == expected
        assert np.asarray(grid)[:, :LABEL_PX].min() < 100, "labels of rows"
        assert np.asarray(grid)[:HEAD_PX, LABEL_PX:].min() < 100, "labels of columns"
    assert lay_out(recipes).columns == ("seed 0", "seed 1", "seed 2")


def test_several_strengths_go_across_and_seeds_down(tmp_path: Path) -> None:
    recipes = [recipe("a", seed, strength) for strength in (0.0, 0.5) for seed in (3, 4)]
    with Image.open(io.BytesIO(labelled_grid(drawn(tmp_path, recipes)))) as grid:
        red, lime, blue, yellow = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
        assert middles(grid, 2, 2, (256, 128)) == [red, blue, lime, yellow]
    layout = lay_out(recipes)
    assert labels(recipes) == [("a", "seed 3"), ("a", "seed 4")]
    assert layout.columns == ("base model", "strength 0.5")


def test_prompts_with_seeds_of_their_own_leave_no_empty_columns(tmp_path: Path) -> None:
    recipes = [recipe("a", 0), recipe("b", 1), recipe("b", 2)]
    with Image.open(io.BytesIO(labelled_grid(drawn(tmp_path, recipes)))) as grid:
        white, red, lime, blue = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)
        assert middles(grid, 2, 2, (256, 128)) == [red, white, lime, blue]
    assert labels(recipes) == [("a", "seed 0"), ("b", "seeds 1 2")]
    assert lay_out(recipes).columns == ("1st seed", "2nd seed")
    many = lay_out([recipe(f"prompt {number}", 11 * number) for number in range(40)])
    assert (len(many.rows), many.columns) == (40, ("",))


def test_what_tells_rows_of_one_prompt_apart_stands_beside_them() -> None:
    recipes = [
        recipe("fox", 0), recipe("fox", 0, steps=9), recipe("fox", 0, guidance_scale=2.5),
        recipe("fox", 0, size=(64, 128)), recipe("fox", 0, negative_prompt="dull"),
    ]  # fmt: skip
    assert labels(recipes[:2]) == [("fox", "5 steps"), ("fox", "9 steps")]
    assert labels([recipes[0], recipes[2]]) == [("fox", "guidance 7"), ("fox", "guidance 2.5")]
    assert labels([recipes[0], recipes[4]]) == [("fox", "no negative prompt"), ("fox", "not: dull")]
    assert len(set(labels(recipes))) == 5
    assert labels(recipes)[3] == ("fox", "64×128, 5 steps, guidance 7, no negative prompt")


def test_what_tells_rows_apart_is_seen_beside_the_longest_prompt(tmp_path: Path) -> None:
    long = "word " * 200
    sheets = []
    for steps in (5, 6):
        made = drawn(tmp_path, [recipe(long, 0, steps=steps), recipe(long, 0, steps=9)])
        sheets.append(np.asarray(Image.open(io.BytesIO(labelled_grid(made)))))
    one, other = (sheet[HEAD_PX : HEAD_PX + 128, :LABEL_PX] for sheet in sheets)
    assert (one != other).any()


def test_letters_of_other_languages_are_no_boxes(tmp_path: Path) -> None:
    def label(prompt: str) -> bytes:
        made = drawn(tmp_path, [recipe(prompt, 0)])
        with Image.open(io.BytesIO(labelled_grid(made))) as grid:
            return grid.crop((0, HEAD_PX, LABEL_PX, grid.height)).tobytes()

    words = ["ñ", "ж", "é", "日", "本", "\U0001f98a", "\uffff"]
    assert len({label(word) for word in words}) == len(words)


def test_small_pictures_are_enlarged_and_large_grids_made_small(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(labelled_grid(drawn(tmp_path, [recipe("a", 0, size=(64, 64))])))) as grid:
        assert grid.width == LABEL_PX + 128 + GAP_PX
    many = [recipe("a", seed, size=(1024, 2048)) for seed in range(300)]
    wide, high = _cell(lay_out(many), [one.size for one in many])
    assert high == pytest.approx(2 * wide, abs=1)
    assert 0.9 < 300 * wide * high / MOST_PX < 1.1


def test_long_prompts_are_broken_into_lines() -> None:
    lines = wrapped("a long prompt with averyveryverylongword in it", len, 12)
    assert lines == ["a long", "prompt with", "averyveryver", "ylongword in", "it"]


def test_numbers_go_on_and_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "00041-7.png").write_text("mine")
    (tmp_path / "notes-1.txt").write_text("mine")
    folder = NumberedFolder(tmp_path)
    assert [folder.save(b"x", seed).name for seed in (7, 8)] == ["00042-7.png", "00043-8.png"]
    assert [folder.save_grid(b"x").name for _ in range(2)] == ["grid-0000.png", "grid-0001.png"]
    assert (tmp_path / "00041-7.png").read_text() == "mine"


def test_two_writers_of_one_folder_take_different_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = NumberedFolder(tmp_path), NumberedFolder(tmp_path)
    number = one._next()
    for folder in (one, other):
        monkeypatch.setattr(folder, "_next", lambda: number)  # both looked before either wrote
    assert one.save(b"one", 3) != other.save(b"other", 3)
    assert sorted(path.read_bytes() for path in tmp_path.glob("*.png")) == [b"one", b"other"]


def test_a_disk_that_is_full_leaves_no_empty_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("raylora.execution.numbered.write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        NumberedFolder(tmp_path).save(b"x", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_place_for_no_folder_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "link"):
        with pytest.raises(OutputError, match="give another folder with --out"):
            check_folder(place)
    check_folder(tmp_path / "new" / "deep")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
