"""Pictures of the cases of known quality: `spread.svg`, `early_order.svg` and `curves.svg`, for docs/measures.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.common import Row
from benchmarks.measures.cases import CASES
from benchmarks.measures.record import POINTS
from benchmarks.measures.study import MEASURES, Study, groups

SHOWN = ("score", "holdout_loss", "similarity_gain", "copying")
PANEL_INCHES = (4.2, 3.6)
OFF_SCALE = "collapse"
"""Lies so far off that the others would lie on top of each other."""
MARGIN = 0.08
STYLE = {"svg.hashsalt": "raylora", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
"""The salt keeps files of the same data the same."""


def draw_study(study: Study, order: list[Row], folder: Path) -> None:
    """Write all pictures into a folder.

    Args:
        order: the rows of `early_order`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draw in (("spread", _draw_spread), ("curves", _draw_curves)):
            figure, panels = plt.subplots(len(study.bases), len(SHOWN), squeeze=False, figsize=_size(study))
            for row, style in zip(panels, study.bases, strict=True):
                for panel, measure in zip(row, SHOWN, strict=True):
                    draw(panel, study, style, measure)
                    panel.set_title(f"{style}: {measure} ({OFF_SCALE} is off the scale)")
            save(figure, folder / f"{name}.svg")
        figure, panel = plt.subplots(figsize=PANEL_INCHES)
        _draw_order(panel, order)
        save(figure, folder / "early_order.svg")


def _size(study: Study) -> tuple[float, float]:
    return PANEL_INCHES[0] * len(SHOWN), PANEL_INCHES[1] * len(study.bases)


def save(figure: plt.Figure, path: Path) -> None:
    """Write a picture, the same file for the same picture."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _draw_spread(panel: Axes, study: Study, style: str, measure: str) -> None:
    """A row for each case, a dot for each seed; cases of known quality are red."""
    for (of_style, case), members in groups(study.trainings, "style", "case").items():
        if of_style == style:
            place = list(CASES).index(str(case))
            values = [study.metrics(training)[measure] for training in members]
            panel.plot(values, [place] * len(values), "o", color="C3" if CASES[str(case)].is_truth else "C0", alpha=0.6)
    panel.set_yticks(range(len(CASES)), list(CASES))
    panel.invert_yaxis()
    panel.set_xlim(_limits(study, style, measure, [POINTS]))


def _draw_curves(panel: Axes, study: Study, style: str, measure: str) -> None:
    """A line for each case over images seen, the first seed's; a case has its colour in every panel."""
    colours = dict(zip(CASES, mpl.color_sequences["tab20"], strict=False))
    for training in study.trainings:
        if (training.style, training.seed) == (style, 0):
            values = [study.metrics(training, point)[measure] for point in range(1, POINTS + 1)]
            dashes = "--" if CASES[training.case].is_truth else "-"
            panel.plot(training.numbers["images_seen"].tolist(), values, dashes, label=training.case,
                       linewidth=1, color=colours[training.case])  # fmt: skip
    panel.set_xlabel("images seen")
    panel.set_ylim(_limits(study, style, measure, range(1, POINTS + 1)))
    if measure == SHOWN[-1]:
        panel.legend(fontsize=5)


def _limits(study: Study, style: str, measure: str, points: Sequence[int]) -> tuple[float, float]:
    shown = [training for training in study.trainings if (training.style, training.case != OFF_SCALE) == (style, True)]
    values = [study.metrics(training, point)[measure] for training in shown for point in points]
    margin = MARGIN * (max(values) - min(values))
    return min(values) - margin, max(values) + margin


def _draw_order(panel: Axes, order: list[Row]) -> None:
    shares = [number / POINTS for number in range(1, POINTS + 1)]
    for name in MEASURES:
        panel.plot(shares, [row[name] for row in order[:POINTS]], label=name)
    panel.axhline(0.8, color="grey", linestyle=":")
    panel.set_xlabel("share of training")
    panel.set_ylabel("rank correlation with the judge's final score")
    panel.legend(fontsize=6)
