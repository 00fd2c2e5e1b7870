"""The pictures of a search as a page shows them: side by side, by trial and by step, and by strength."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raylora.config import SIZE_STEP_PX
from raylora.execution.material import look_prompts
from raylora.execution.outputs import BASE_GRID_NAME
from raylora.files import first_fold
from raylora.report.pictures import Grid, Picture, columns_of, embedded, fitted, pixels_of, read_grid, strip_of
from raylora.report.reading import Work
from raylora.tracking.recorder import TrialRecord

SIDE_PX = 256
"""Of pictures that are compared one by one."""
MOST_COMPARED = 8
STRIP_PICTURES = 5
"""Of a trial at a step: the first held-out images, with the first seed."""
STRIP_SIDES = ((120, 128), (400, 96), (10**9, 64))
"""Up to so many strips in all, the side of their pictures in px: 24 trials stay in a few MB."""
MOST_STRIPS = 600
"""Then the trials with the lowest scores go without."""
MOST_PIXELS = 4 * 10**9
"""Of the grids that strips are cut from, which have to be read whole: two to three minutes of a processor."""
STRENGTH_SIDE_PX = 160
SAMPLE_NAME = re.compile(r"images_(\d+)\.png")
REAL, BASE, GUIDE, WINNER, SO_FAR, LORA = (
    "real", "base", "guide", "winner", "best so far", "this LoRA",
)  # fmt: skip
Sampled = tuple[TrialRecord, dict[int, Path]]
"""A trial with its grids by images seen."""
NO_BASE = "The base model’s samples, which lay in cache/, are not there."
GONE = "The samples that lay in best/samples are gone, or none were drawn."


@dataclass(frozen=True)
class Row:
    """A row of some grid, and what it shows."""

    name: str
    grid: Grid
    place: int


@dataclass(frozen=True)
class Comparison:
    """One held-out image and what was drawn of its caption, all with the same seed."""

    caption: str
    pictures: Sequence[tuple[str, Picture]]
    """Each with its name."""


@dataclass(frozen=True)
class Step:
    """A trial's samples after so many images."""

    images: int
    picture: Picture
    prompts: Picture | None
    """Of the user's own prompts."""


@dataclass(frozen=True)
class Strips:
    """A trial's samples at each step."""

    trial: TrialRecord
    steps: Sequence[Step]


@dataclass(frozen=True)
class Album:
    """All pictures of a page."""

    comparisons: Sequence[Comparison]
    lack: str
    """Which pictures are missing, and why."""
    real: Picture | None
    base: Picture | None
    strips: Sequence[Strips]
    left_out: int
    """Trials that have samples and yet no strips."""
    is_hurried: bool
    """Whether that is for want of time."""
    strengths: Sequence[tuple[str, Picture]]

    @property
    def steps(self) -> list[int]:
        """All numbers of images seen at which some trial has samples."""
        return sorted({step.images for strips in self.strips for step in strips.steps})


def make_album(work: Work, seconds: float = math.inf) -> Album:
    """Cut, shrink and name every picture that the page shows.

    Args:
        seconds: for trials' samples, which take longest; those with the lowest scores go without.
    """
    rows, ends = _rows_of_best(work) or _rows_so_far(work), time.monotonic() + seconds
    strips, left_out = _strips(work, lambda: time.monotonic() < ends)
    return Album(
        comparisons=_comparisons(work, rows),
        lack=_lack(work, [row.name for row in rows]),
        real=_row_strip(rows, REAL, "Held-out images"),
        base=_row_strip(rows, BASE, "The base model’s samples of the same captions"),
        strips=strips,
        left_out=left_out,
        is_hurried=left_out > 0 and time.monotonic() >= ends,
        strengths=_strengths(work),
    )


def _one_shape(work: Work) -> bool:
    return not work.experiment.dataset.buckets


def _rows_of_best(work: Work) -> list[Row]:
    """The rows of `best/samples/grid.png`."""
    folder, all_learned = work.out.best / "samples", work.is_training and not work.state["holds_out"]
    names = [REAL, BASE, GUIDE, WINNER]
    if work.is_training:
        names = [REAL, LORA] if all_learned else [REAL, BASE, LORA]
    elif not work.summary.get("baseline"):
        names.remove(GUIDE)
    columns = len(list(folder.glob("sample_*.png")))
    if all_learned:  # prompts may be fewer than the pictures above, and then their row ends in white
        columns = columns_of(folder / "grid.png", range(columns, max(columns, MOST_COMPARED) + 1), SIZE_STEP_PX)
    grid = read_grid(folder / "grid.png", len(names), columns, _one_shape(work))
    rows = [Row(name, grid, place) for place, name in enumerate(names)] if grid else []
    return rows[1:] if all_learned and work.experiment.sampling.prompts else rows


def _rows_so_far(work: Work) -> list[Row]:
    """Of work without files of its winner: base model, the guide's settings and best trial, each where it was best."""
    rows: list[Row] = []
    for name, trial in ((GUIDE, work.baseline), (_name_of_best(work), work.best)):
        if trial is None or (name != GUIDE and trial is work.baseline):
            continue
        file = _sample_files(trial).get((trial.best or {}).get("images_seen", 0))
        if grid := _trial_grid(work, file) if file else None:
            rows.append(Row(name, grid, 1))
    if base := _trial_grid(work, first_fold(work.out.cache) / BASE_GRID_NAME):
        rows.insert(0, Row(BASE, base, 1))
    return [Row(REAL, rows[0].grid, 0), *rows] if rows else []


def _name_of_best(work: Work) -> str:
    return LORA if work.is_training else WINNER if work.is_finished else SO_FAR


def _lack(work: Work, names: Sequence[str]) -> str:
    if work.is_finished and _name_of_best(work) not in names:
        return GONE
    if not names:
        return "No trial has drawn samples." if work.no_result else "There are no samples yet."
    return "" if BASE in names or work.is_training else NO_BASE


def _comparisons(work: Work, rows: Sequence[Row]) -> list[Comparison]:
    captions = [one.caption or one.file for one in work.held_out]
    count = min((row.grid.columns for row in rows), default=0)
    if work.is_training and not work.state["holds_out"]:
        captions = look_prompts(work.experiment)
        count = min(count, len(captions) or count)
    return [
        Comparison(caption := captions[place] if place < len(captions) else "", _of_column(rows, place, caption))
        for place in range(min(count, MOST_COMPARED))
    ]


def _of_column(rows: Sequence[Row], column: int, caption: str) -> list[tuple[str, Picture]]:
    cells = [(row.name, fitted(row.grid.cell(row.place, column), SIDE_PX)) for row in rows]
    return [(name, embedded(cell, f"{name}: {caption}" if caption else name)) for name, cell in cells]


def _row_strip(rows: Sequence[Row], name: str, what: str) -> Picture | None:
    for row in rows:
        if row.name == name:
            return strip_of(row.grid, row.place, STRIP_PICTURES, STRIP_SIDES[0][1], lambda count: f"{what}: {count}")
    return None


def _sample_files(trial: TrialRecord) -> dict[int, Path]:
    """A trial's grids by images seen; of several folds the first one's."""
    if not trial.folder:
        return {}
    found = (
        (SAMPLE_NAME.fullmatch(path.name), path) for path in (first_fold(Path(trial.folder)) / "samples").glob("*")
    )
    return dict(sorted((int(named[1]), path) for named, path in found if named))


def _trial_grid(work: Work, path: Path) -> Grid | None:
    """The real held-out images above a row for each seed."""
    columns = min(len(work.held_out), work.experiment.evaluation.max_images)
    return read_grid(path, 1 + len(work.experiment.sampling.seeds), columns, _one_shape(work))


def _strips(work: Work, until: Callable[[], bool]) -> tuple[list[Strips], int]:
    """Of each trial, the best first, and how many were left out.

    Args:
        until: whether there is still time; a trial that it ends in goes without.
    """
    ranked = sorted(work.trials, key=lambda trial: trial.score, reverse=True)
    files = [(trial, found) for trial in ranked if (found := _sample_files(trial))]
    side = next(side for most, side in STRIP_SIDES if sum(len(found) for _, found in files) <= most)
    strips: list[Strips] = []
    for trial, found in _within_bounds(files):
        steps = [step for at, path in found.items() if until() and (step := _step(work, trial, at, path, side))]
        if not until():
            break
        if steps:
            strips.append(Strips(trial, steps))
    return strips, len(files) - len(strips)


def _within_bounds(
    files: Sequence[tuple[TrialRecord, dict[int, Path]]],
) -> Iterator[tuple[TrialRecord, dict[int, Path]]]:
    """The first trials whose pictures together are neither too many nor too large."""
    strips, pixels = 0, 0
    for trial, found in files:
        strips, pixels = strips + len(found), pixels + sum(map(pixels_of, found.values()))
        if strips > MOST_STRIPS or pixels > MOST_PIXELS:
            return
        yield trial, found


def _step(work: Work, trial: TrialRecord, images: int, path: Path, side_px: int) -> Step | None:
    after = f"{trial.trial_id} after {images:,} images"
    picture = strip_of(
        _trial_grid(work, path),
        1,
        STRIP_PICTURES,
        side_px,
        lambda count: f"{after}: samples of {count} held-out captions",
    )
    return Step(images, picture, _of_prompts(work, path, after, side_px)) if picture else None


def _of_prompts(work: Work, path: Path, after: str, side_px: int) -> Picture | None:
    """The user's own prompts, each with the first seed of all that stand in a row."""
    sampling = work.experiment.sampling
    beside = path.with_name(path.name.replace("images_", "prompts_"))
    grid = read_grid(beside, 1, len(sampling.prompts) * len(sampling.seeds), _one_shape(work))
    words = f"{after}: samples of sampling.prompts"
    return strip_of(grid, 0, STRIP_PICTURES, side_px, lambda count: f"{words}, {count} of them", len(sampling.seeds))


def _strengths(work: Work) -> list[tuple[str, Picture]]:
    """The winner's samples at each strength that was tried."""
    tried = list(work.summary.get("best", {}).get("strength_scores", {}))
    folder = work.out.best / "samples"
    grid = read_grid(folder / "strengths.png", len(tried), len(list(folder.glob("sample_*.png"))), _one_shape(work))
    strips = [
        strip_of(grid, row, STRIP_PICTURES, STRENGTH_SIDE_PX, lambda count, at=at: f"Strength {at}: {count} samples")  # type: ignore[misc]
        for row, at in enumerate(tried)
    ]
    return [(at, strip) for at, strip in zip(tried, strips, strict=True) if strip]
