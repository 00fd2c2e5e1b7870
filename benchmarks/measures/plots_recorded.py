"""Pictures of the recorded trainings for docs/measures.md: `recorded_spread`, `recorded_order` and `effects`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.common import Row
from benchmarks.measures.effects import GROUPS
from benchmarks.measures.plots import PANEL_INCHES, STYLE, save
from benchmarks.measures.table import GAIN, LOSS, SCORE, Training, repeated
from benchmarks.recorded.configurations import FIRST_STYLE

EARLY = (100, 400)
LENGTHS = {600: "C1", 1200: "C0"}
APART = 0.17
"""Between the marks of groups in one row."""


def draw_recorded(trainings: Sequence[Training], effects: list[Row], folder: Path) -> None:
    """Write all pictures into a folder.

    Args:
        effects: the rows of `effects.effects`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wide, high = PANEL_INCHES
    with mpl.rc_context(STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(3 * wide, high))
        for panel, name in zip(panels, (SCORE, LOSS, GAIN), strict=True):
            _draw_spread(panel, repeated(trainings), name)
        save(figure, folder / "recorded_spread.svg")
        figure, panels = plt.subplots(1, len(EARLY), figsize=(len(EARLY) * wide, high), sharey=True)
        for panel, images in zip(panels, EARLY, strict=True):
            _draw_order(panel, trainings, images)
        save(figure, folder / "recorded_order.svg")
        figure, panel = plt.subplots(figsize=(2 * wide, 1.2 * high))
        _draw_effects(panel, effects)
        save(figure, folder / "effects.svg")


def _draw_spread(panel: Axes, groups: Sequence[list[Training]], measure: str) -> None:
    """A column for each configuration, in the order of mean scores; a dot for each seed."""
    ranked = sorted(groups, key=lambda members: mean(one.end[SCORE] for one in members))
    for place, members in enumerate(ranked):
        panel.plot([place] * len(members), [one.end[measure] for one in members], ".", color="C0", alpha=0.6)
    panel.set_title(f"{measure} at the end, a dot for each seed")
    panel.set_xlabel("configuration, by mean score")


def _draw_order(panel: Axes, trainings: Sequence[Training], images: int) -> None:
    """Early against final scores of the first style, by length."""
    for length, colour in LENGTHS.items():
        chosen = [
            one
            for one in trainings
            if (one.style, one.seed, one.end["images_seen"]) == (FIRST_STYLE, 0, length)
        ]  # fmt: skip
        early, final = [one.at(images)[SCORE] for one in chosen], [one.end[SCORE] for one in chosen]
        panel.plot(early, final, ".", color=colour, label=f"{length:,} images long")
    panel.set_xlabel(f"score at {images} images")
    panel.set_ylabel("score at the end")
    panel.legend()


def _draw_effects(panel: Axes, effects: list[Row]) -> None:
    """A row for each setting; two standard errors to either side."""
    names = list(dict.fromkeys(row["setting"] for row in effects))
    for number, group in enumerate(GROUPS):
        rows = [row for row in effects if row["group"] == group]
        places = [names.index(row["setting"]) + APART * (number - 1.5) for row in rows]
        reach = [2 * row[f"{SCORE} se"] for row in rows]
        label = f"{group} ({rows[0]['configurations']})"
        panel.errorbar([row[SCORE] for row in rows], places, xerr=reach, fmt=".", color=f"C{number}", label=label)
    panel.axvline(0, color="grey", linewidth=0.8)
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    panel.set_xlabel("effect on the final score, ± 2 standard errors")
    panel.legend()
