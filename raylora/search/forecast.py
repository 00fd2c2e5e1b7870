"""What settings are worth at the end of their training, foretold from all reports of a search.

A score is the sum of two parts that differ in noise. Held-out losses are taken on the same cells in every trial and
hardly differ between seeds; the similarity of a few samples does. Each part has a regression of its own over settings
and images seen, so that a lucky set of samples is taken for what it is and the loss still counts in full.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm

from raylora.config import LimitsConfig
from raylora.search.gaussian_process import Array, GaussianProcess, Noise, Scales
from raylora.search.limits import costs_of
from raylora.search.ranking import COSTS_KEY

POINTS_KEY = "points"
"""User attribute of a trial: its reports as `point_of` has them."""
MOST_POINTS = 300
"""That a regression is fitted to, in longer searches than that: `_most_telling`."""
WHOLE_SHARE = 0.6
"""Of these points, at most for trials that came to their end."""
IMAGES_LENGTH = 0.6
"""Prior length along the logarithm of images seen, of which tenfold is 1."""
LOSS_NOISE = 0.003
"""Prior variance of the loss's part between seeds, as a share of its variance between settings; docs/measures.md."""
LEAST_NOISE, UNKNOWN_NOISE, MOST_NOISE = 0.02, 0.2, 1.0
"""The same for the rest, which is estimated from paired cells: its bounds, and where nothing can be paired."""
NOISE_SD = 0.3
"""Width of that estimate, as of a prior, in natural logarithms: a wide one lets a lucky training pass for a peak."""
NOISE_LENGTH = 0.4
"""Over which a training's reports share their luck, along the logarithm of images seen, of which tenfold is 1."""
COST_NOISE = 0.01
"""Prior variance of a cost's logarithm, as a share of its variance between settings."""
GROWING = "train_s"
"""The cost that grows with training."""
REFIT = 1.15
"""Scales are fitted anew when there are this many times the points of the last fit."""

ImagesOf = Callable[[Mapping[str, Any]], int]
"""Images that a training with these settings sees in all."""


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
    """A trial with reports."""

    trial: FrozenTrial
    row: list[float]
    points: list[dict[str, Any]]
    images_end: int

    @property
    def image_s(self) -> float | None:
        """Seconds of training for each image; None where studies of earlier versions don't tell."""
        seconds = self.points[-1].get("seconds")
        return None if seconds is None else float(seconds / self.points[-1]["images"])

    @property
    def images_left(self) -> int:
        """Until its end."""
        return max(0, self.images_end - int(self.points[-1]["images"]))

    @property
    def is_whole(self) -> bool:
        """Whether it came to its own end: by its last image, or since it began to overfit."""
        return self.trial.state is TrialState.COMPLETE or not self.images_left

    @property
    def counts_at(self) -> int:
        """Images after which it counts: where it was best, or if it is not whole at its end."""
        best = max(self.points, key=lambda point: float(point["loss"] + point["rest"]))
        return int(best["images"]) if self.is_whole else self.images_end


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


class Forecast:
    """Regressions on the reports of a search, for as long as nothing new is reported.

    Args:
        trials: with reports; at least one has two or more of them, or there are several.
        earlier: a forecast of the same search from before, whose scales serve while few points are new.
    """

    def __init__(self, trials: Sequence[Seen], lengths: Array, earlier: Forecast | None = None):
        self.trials = trials
        used = _most_telling(trials)
        points = [point for one in used for point in one.points]
        rows = _rows([one.row for one in used for _ in one.points], [point["images"] for point in points])
        loss, rest = (np.array([float(point[part]) for point in points]) for part in ("loss", "rest"))
        lengths = np.log(np.append(lengths, IMAGES_LENGTH))
        reports = sum(len(one.points) for one in trials)
        kept = earlier if earlier is not None and reports < REFIT * earlier.fitted_to else None
        self.fitted_to: int = kept.fitted_to if kept else reports
        fitted = kept.scales if kept else (None, None)
        luck = _shared_luck(used)
        self._loss = GaussianProcess(rows, loss, Scales(lengths, 0.0, math.log(LOSS_NOISE)), fitted[0], Noise(luck))
        noise = UNKNOWN_NOISE if kept else _share(paired_noise(used), float(rest.var()))  # kept scales have theirs
        self._rest = GaussianProcess(
            rows, rest, Scales(lengths, 0.0, math.log(noise)), fitted[1], Noise(luck, NOISE_SD)
        )
        self.scales: tuple[Scales, Scales] = (self._loss.scales, self._rest.scales)

    def at(self, rows: Sequence[Sequence[float]] | Array, images: Sequence[int]) -> tuple[Array, Array]:
        """Score after so many images, mean and standard deviation, each (points,)."""
        placed = _rows(rows, images)
        (loss, loss_sd), (rest, rest_sd) = self._loss.predict(placed), self._rest.predict(placed)
        return loss + rest, np.hypot(loss_sd, rest_sd)

    def worth(self, trials: Sequence[Seen]) -> tuple[Array, Array]:
        """The same for the settings of trials that are known, where they count."""
        return self.at([one.row for one in trials], [one.counts_at for one in trials])

    def covariance(self, rows: Array, images: Sequence[int], trials: Sequence[Seen]) -> Array:
        """Of scores after so many images with what trials are worth, (points, trials)."""
        first = _rows(rows, images)
        second = _rows([one.row for one in trials], [one.counts_at for one in trials])
        return self._loss.covariance(first, second) + self._rest.covariance(first, second)

    @property
    def noise_sd(self) -> float:
        """Standard deviation of one training's score around what its settings are worth."""
        return math.hypot(self._loss.noise_sd, self._rest.noise_sd)

    def distances(self, rows: Array, others: Array) -> Array:
        """Between settings, in units of the lengths over which the loss hangs together, (rows, others)."""
        lengths = np.exp(self._loss.scales.lengths[:-1])
        difference = (rows[:, None] - others[None]) / np.minimum(lengths, 1.0)
        distance: Array = np.sqrt((difference**2).sum(axis=-1))
        return distance


def _shared_luck(trials: Sequence[Seen]) -> Array:
    """Correlation of the reports' noise, (points, points): within a training, the more the less was trained between.

    It falls exponentially (Ornstein & Uhlenbeck 1930): a training that is lucky now is likely to be so a little later.
    """
    whose = np.array([place for place, one in enumerate(trials) for _ in one.points])
    images = np.log10([point["images"] for one in trials for point in one.points])
    between = np.abs(images[:, None] - images)
    luck: Array = (whose[:, None] == whose) * np.exp(-between / NOISE_LENGTH)
    return luck


def _share(noise: float, variance: float) -> float:
    """A variance of noise in shares of the values' own, within what can be believed."""
    share = noise / variance if variance > 0 and math.isfinite(noise) else UNKNOWN_NOISE
    return min(max(share, LEAST_NOISE), MOST_NOISE)


def _most_telling(trials: Sequence[Seen]) -> list[Seen]:
    """As many as `MOST_POINTS` allows: those under way, those that came to their end, the others; the latest of each.

    Not the best: among many trainings of much the same settings these are the lucky ones.
    """
    if sum(len(one.points) for one in trials) <= MOST_POINTS:
        return list(trials)
    latest = sorted(trials, key=lambda one: one.trial.number, reverse=True)
    under_way = [one for one in latest if one.trial.state is TrialState.RUNNING]
    ended = [one for one in latest if one.trial.state is not TrialState.RUNNING]
    chosen: list[Seen] = []
    for group, room in (
        (under_way, MOST_POINTS),
        ([one for one in ended if one.is_whole], int(WHOLE_SHARE * MOST_POINTS)),
        ([one for one in ended if not one.is_whole], MOST_POINTS),
    ):
        left = min(room, MOST_POINTS - sum(len(one.points) for one in chosen))
        for one in group:
            if len(one.points) <= left:
                chosen.append(one)
                left -= len(one.points)
    return chosen


def _rows(rows: Sequence[Sequence[float]] | Array, images: Sequence[int]) -> Array:
    """Settings with images seen as a last column, on a logarithmic scale."""
    return np.column_stack([np.asarray(rows, dtype=float), np.log10(np.maximum(images, 1))])


class CostForecast:
    """What trainings cost, by their settings: how long they take, and whether they keep the limits.

    Args:
        trials: that have begun, whatever came of them; of more than `MOST_POINTS` the latest.
    """

    def __init__(self, trials: Sequence[Seen], lengths: Array, limits: LimitsConfig):
        self._limits = {name: math.log(limit) for name, limit in limits.model_dump().items() if limit is not None}
        self._models: dict[str, GaussianProcess] = {}
        for name in {*self._limits, GROWING}:
            known = [(one.row, cost) for one in trials[-MOST_POINTS:] if (cost := _cost(one, name))]
            if len(known) > 1:
                rows, costs = np.array([row for row, _ in known]), np.log([cost for _, cost in known])
                self._models[name] = GaussianProcess(rows, costs, Scales(np.log(lengths), 0.0, math.log(COST_NOISE)))

    def seconds(self, rows: Array, images: Sequence[int]) -> Array:
        """Of training to the end, (rows,); while nothing is known, as if an image took one."""
        model = self._models.get(GROWING)
        return np.asarray(images) * (np.exp(model.predict(rows)[0]) if model else 1.0)

    def chance_within(self, rows: Array, images: Sequence[int]) -> Array:
        """That every limit is kept to the end (constrained expected improvement; Gardner et al. 2014), (rows,)."""
        chance = np.ones(len(rows))
        for name in self._limits.keys() & self._models.keys():
            mean, sd = self._models[name].predict(rows)
            whole = np.log(images) if name == GROWING else 0.0
            chance *= norm.cdf((self._limits[name] - mean - whole) / sd)
        return chance


def _cost(one: Seen, name: str) -> float | None:
    """What the trial cost; of what grows with training, as much as an image costs."""
    if name == GROWING:
        return one.image_s if one.points else None
    return costs_of(one.trial.user_attrs.get(COSTS_KEY, {})).get(name)
