"""Curves of trainings by images seen: losses, and the likeness of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from statistics import fmean

from raylora.config_search import HIGHER_IS_BETTER
from raylora.dataset.batches import rungs
from raylora.report.chart import Chart, Frame, Line, Mark, Text, path_of
from raylora.report.reading import Work
from raylora.report.scales import Scale, fenced, free
from raylora.report.search_charts import shape_of, told
from raylora.report.words import numbered
from raylora.tracking.recorder import TrialRecord

MOST_POINTS = 24
"""Of a smoothed curve: each is the mean of as many steps as that takes."""
NAME_HEIGHT = 11.0
CURVES = (
    ("holdout_loss_ratio", "Held-out loss", "× the base model’s, lower is better", 1.0),
    ("similarity_gain", "Likeness of samples", "gain, higher is better", 0.0),
)
Points = Sequence[tuple[float, float]]


def curves(work: Work) -> list[Chart]:
    """Held-out loss and similarity at the rungs, and the training loss on the way."""
    trials = [trial for trial in work.trials if trial.history]
    if not trials or work.is_tabled:
        return []
    measured = [_measured(work, trials, *curve) for curve in CURVES]
    return [*(chart for chart in measured if chart), *_training_loss(work, trials)]


def _measured(work: Work, trials: Sequence[TrialRecord], name: str, title: str, unit: str, base: float) -> Chart | None:
    found = {trial.trial_id: _points(trial, name) for trial in trials}
    values = [value for points in found.values() for _, value in points]
    if not values:
        return None
    scale = fenced([*values, base], HIGHER_IS_BETTER[name])
    says = f"{title} by images seen, of {numbered(len(trials), 'trial')}"
    return _chart(work, f"curve-{name}", title, says, unit, found, scale, base)


def _points(trial: TrialRecord, name: str) -> list[tuple[float, float]]:
    return [(report["images_seen"], report[name]) for report in trial.history if name in report]


def _training_loss(work: Work, trials: Sequence[TrialRecord]) -> list[Chart]:
    found = {trial.trial_id: smoothed(_steps(trial)) for trial in trials}
    values = [value for points in found.values() for _, value in points]
    if not values:
        return []
    title, says = "Training loss", f"Training loss by images seen, smoothed, of {numbered(len(trials), 'trial')}"
    unit = "smoothed; for looking at, never for deciding"
    return [_chart(work, "curve-train", title, says, unit, found, free(values), None)]


def _steps(trial: TrialRecord) -> list[tuple[float, float]]:
    return [(images, loss) for report in trial.history for images, loss in report.get("train_losses", ())]


def smoothed(points: Points) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` means of steps that follow each other, each where its last step ended."""
    size = -(-len(points) // MOST_POINTS) or 1
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], fmean(value for _, value in part)) for part in parts]


def _chart(
    work: Work, key: str, title: str, says: str, unit: str, found: Mapping[str, Points], y: Scale, base: float | None
) -> Chart:
    """Curves of all trials, the best on top.

    Args:
        base: what the base model has of it; None of what isn't measured at rungs.
    """
    end = max(images for points in found.values() for images, _ in points)
    frame = Frame(Scale(0, end), y, "images seen", unit, height=270)
    drawn = [trial for trial in sorted(work.trials, key=lambda trial: trial.score) if found.get(trial.trial_id)]
    places = {trial.trial_id: [frame.point(*point) for point in found[trial.trial_id]] for trial in drawn}
    ends = [(trial, *places[trial.trial_id][-1]) for trial in drawn]
    return Chart(
        key,
        title,
        says,
        frame.height,
        [*frame.grid, *_measured_at(work, frame, end, base)],
        [Line(path_of(places[trial.trial_id]), "curve", told(trial), trial.trial_id) for trial in drawn],
        [Mark(x, at, shape_of(trial), told(trial), trial.trial_id) for trial, x, at in ends],
        [*frame.texts, *_names(work, {trial.trial_id: (x, at) for trial, x, at in ends})],
    )


def _names(work: Work, ends: Mapping[str, tuple[float, float]]) -> list[Text]:
    """Each trial's name at its curve's end; those that are seen from the start keep clear of each other."""
    heights = {name: y - 8 for name, (_, y) in ends.items()}
    lowest = -math.inf
    for name in sorted((name for name in work.outstanding if name in ends), key=heights.__getitem__):
        lowest = heights[name] = max(heights[name], lowest + NAME_HEIGHT)
    return [Text(x - 8, heights[name], name, "end", "name", name) for name, (x, _) in ends.items()]


def _measured_at(work: Work, frame: Frame, end: float, base: float | None) -> list[Line]:
    """The rungs, and the base model's level."""
    if base is None:
        return []
    search = work.experiment.search
    at = takewhile(lambda rung: rung < end, rungs(search.grace_period, search.reduction_factor))
    return [*frame.rungs(at), Line(path_of([frame.point(0, base), frame.point(end, base)]), "base", "the base model")]


def loss_on_all(work: Work) -> Chart | None:
    """The loss of the training on all images, which is measured by nothing else."""
    points = smoothed(work.losses)
    if len(points) < 2:
        return None
    end = points[-1][0]
    frame = Frame(Scale(0, end), free([loss for _, loss in points]), "images seen", "smoothed", height=230)
    placed = [frame.point(*point) for point in points]
    says = f"Training loss from {points[0][1]:.4f} to {points[-1][1]:.4f} over {end:,.0f} images"
    line = Line(path_of(placed), "curve on", says)
    return Chart("curve-all", "Training on all images", says, frame.height, frame.grid, [line], (), frame.texts)
