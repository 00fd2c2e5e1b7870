"""Which pictures the page shows, and how they are cut out of grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raylora.evaluation.grid import sample_grid
from raylora.report.page import write_report
from raylora.report.pictures import Grid, read_grid
from raylora.report.reading import read_work
from raylora.report.samples import make_album
from tests.report_page import Page, mean_of, page_of
from tests.report_world import SIZE, Made, colour


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "portraits")


def test_pictures_are_of_the_right_rows_and_steps(made: Made) -> None:
    out = made.write()
    album = make_album(read_work(out))
    first = album.comparisons[0]
    assert first.caption == "sks, a cat"
    assert [name for name, _ in first.pictures] == ["real", "base", "guide", "winner"]
    for row, (_, picture) in enumerate(first.pictures):
        assert mean_of(picture.uri) == pytest.approx(colour(100 * row).mean(axis=(0, 1)), abs=6)
    assert album.steps == [100, 200, 400]
    assert [(strips.trial.trial_id, len(strips.steps)) for strips in album.strips] == [
        ("t001", 3),
        ("t000", 3),
        ("t002", 1),
    ]
    assert [at for at, _ in album.strengths] == ["0.4", "0.6", "0.8", "1", "1.2"]


def test_the_users_own_prompts_are_shown_with_each_step(made: Made) -> None:
    made = made.with_settings(sampling__prompts=("sks at sea", "sks in snow"))
    out = made.write()
    columns = 2 * len(made.experiment.sampling.seeds)
    picture = sample_grid([[colour(900 + column) for column in range(columns)]])
    Image.fromarray(picture).save(out.trials / "t001" / "samples" / "prompts_000200.png")
    strips = make_album(read_work(out)).strips[0]
    assert [step.prompts is not None for step in strips.steps] == [False, True, False]
    shown = strips.steps[1].prompts
    assert shown is not None and (shown.width, shown.height) == (2 * SIZE + 2, SIZE)  # one seed of each prompt
    assert page_of(out).text.count("sks, a cat") >= 1


def test_a_large_search_stays_within_bounds(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylora.report.samples.MOST_STRIPS", 4)
    album = make_album(read_work(made.write()))
    assert [strips.trial.trial_id for strips in album.strips] == ["t001"]
    assert album.left_out == 2


def test_too_many_pixels_are_not_read(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_grid = (3 * (SIZE + 2) + 2) ** 2
    monkeypatch.setattr("raylora.report.samples.MOST_PIXELS", 4 * of_a_grid)
    album = make_album(read_work(made.write()))
    assert ([strips.trial.trial_id for strips in album.strips], album.left_out) == (["t001"], 2)


def test_in_a_hurry_samples_of_trials_wait_for_the_command(made: Made) -> None:
    out = made.write("interrupted")
    write_report(out, seconds=0)
    page = Page(out.report.read_text())
    assert "3 trials with the lowest scores left out" in page.text
    assert f"raylora report {out.root} adds them" in page.text
    assert "best so far" in page.text and page.count("img") == 3 * 4 + 2  # compared, real ones and the base model's
    write_report(out)
    assert "adds them" not in out.report.read_text() and Page(out.report.read_text()).count("img") == 3 * 4 + 2 + 7


def test_a_grid_is_cut_as_it_was_laid() -> None:
    rows = [[colour(10 * row + column) for column in range(3)] for row in range(2)]
    grid = Grid(Image.fromarray(sample_grid(rows)), rows=2, columns=3)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            assert np.array_equal(np.asarray(grid.cell(row, column)), picture)


def test_pictures_of_several_shapes_lose_the_white_around_them(tmp_path: Path) -> None:
    low = np.full((SIZE // 2, SIZE, 3), 90, np.uint8)
    white_top = low.copy()
    white_top[:3] = 255
    Image.fromarray(sample_grid([[colour(1), low], [colour(2), white_top]])).save(tmp_path / "grid.png")
    grid = read_grid(tmp_path / "grid.png", 2, 2, shares_shape=False)
    assert grid is not None
    assert np.array_equal(np.asarray(grid.cell(1, 1)), white_top)
    assert read_grid(tmp_path / "grid.png", 2, 5) is None
