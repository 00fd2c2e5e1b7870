"""Trials of a search as its forecast sees them: settings as numbers, and what each report said."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from raylora.config import LimitsConfig
from raylora.search.limits import over_limits
from raylora.search.ranking import COSTS_KEY, PARAMS_KEY

POINTS_KEY = "points"
"""User attribute of a trial: its reports as `point_of` has them."""
GROWING = "train_s"
"""The cost that grows with training."""

ImagesOf = Callable[[Mapping[str, Any]], int]
"""Images that a training with these settings sees in all."""
RowOf = Callable[[FrozenTrial], list[float]]
"""A trial's settings as numbers."""


def point_of(report: Mapping[str, Any], weight: float) -> dict[str, Any]:
    """What is kept of a report.

    Args:
        weight: of the loss in the score: `ScoreConfig.loss_weight`.

    Returns:
        images seen and seconds of training so far; the score's part by the loss, and the rest; the score of each
        held-out image.
    """
    loss_part = weight * (1 - report["holdout_loss_ratio"])
    rest = report["score"] - loss_part
    return {"images": report["images_seen"], "seconds": report[GROWING], "loss": loss_part, "rest": rest,
            "image_scores": report["image_scores"]}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """A trial that has begun. What goes by its reports needs one."""

    trial: FrozenTrial
    row: list[float]
    points: list[dict[str, Any]]
    images_end: int
    keeps_limits: bool = True

    @property
    def image_s(self) -> float | None:
        """Seconds of training for each image; None where studies of earlier versions don't tell."""
        seconds = self.points[-1].get("seconds")
        return None if seconds is None else float(seconds / self.points[-1]["images"])

    @property
    def images_left(self) -> int:
        """Until its end."""
        return max(0, self.images_end - int(self.points[-1]["images"]))

    @cached_property
    def is_whole(self) -> bool:
        """Whether it came to its own end: by its last image, or since it began to overfit."""
        return self.trial.state is TrialState.COMPLETE or not self.images_left

    @cached_property
    def counts_at(self) -> int:
        """Images after which it counts: where it was best, or if it is not whole at its end."""
        best = max(self.points, key=lambda point: float(point["loss"] + point["rest"]))
        return int(best["images"]) if self.is_whole else self.images_end


class Sightings:
    """Trials as they are seen; each that has ended is looked at once, for nothing changes about it any more."""

    def __init__(self, row_of: RowOf, images_of: ImagesOf, limits: LimitsConfig):
        self._row_of, self._images_of, self._limits = row_of, images_of, limits
        self._known: dict[int, tuple[list[float], int] | None] = {}
        self._ended: dict[int, Seen] = {}

    def of(self, trials: Sequence[FrozenTrial]) -> list[Seen]:
        """Those that have begun; some have no reports, as what is too large isn't trained."""
        begun = [self._one(trial) for trial in trials if PARAMS_KEY in trial.user_attrs]
        return [one for one in begun if one]

    def _one(self, trial: FrozenTrial) -> Seen | None:
        if trial.number in self._ended:
            return self._ended[trial.number]
        if (settings := self._settings(trial)) is None:
            return None
        row, images_end = settings
        keeps_limits = not over_limits(self._limits, trial.user_attrs.get(COSTS_KEY, {}))
        one = Seen(trial, row, trial.user_attrs.get(POINTS_KEY, []), images_end, keeps_limits)
        if trial.state.is_finished():
            self._ended[trial.number] = one
        return one

    def _settings(self, trial: FrozenTrial) -> tuple[list[float], int] | None:
        """A trial's row and its last image. None where its settings don't go together: it fails as it begins."""
        if trial.number not in self._known:
            try:
                self._known[trial.number] = self._row_of(trial), self._images_of(trial.user_attrs[PARAMS_KEY])
            except ValidationError:
                self._known[trial.number] = None
        return self._known[trial.number]


def paired_noise(trials: Sequence[Seen]) -> float:
    """Variance of one trial's score that chance alone makes: from trials after as many images, held-out image by image.

    Two trials' differences at single images scatter around their mean. As in a paired t-test, the variance of that
    mean is theirs divided by the number of images; half of it is one trial's. NaN where no two trials compare.
    """
    by_images: dict[int, list[list[float]]] = {}
    for one in trials:
        for point in one.points:
            by_images.setdefault(point["images"], []).append(point["image_scores"])
    found = []
    for scores in by_images.values():
        for first, second in itertools.pairwise(scores):
            if len(first) == len(second) > 1:
                found.append(np.var(np.subtract(first, second), ddof=1) / len(first) / 2)
    return float(np.mean(found)) if found else math.nan
