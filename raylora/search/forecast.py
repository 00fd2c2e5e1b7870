"""What settings are worth at the end of their training, foretold from all reports of a search.

A score is the sum of two parts that differ in noise. Held-out losses are taken on the same cells in every trial and
hardly differ between seeds; the similarity of a few samples does. Each part has a regression of its own over settings
and images seen, so that a lucky set of samples is taken for what it is and the loss still counts in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState
from scipy.spatial.distance import cdist
from scipy.stats import norm

from raylora.config import LimitsConfig
from raylora.search.gaussian_process import Array, GaussianProcess, Noise, Scales
from raylora.search.limits import costs_of
from raylora.search.ranking import COSTS_KEY
from raylora.search.seen import GROWING, Seen, paired_noise

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
REFIT, LATE_REFIT = 1.15, 1.5
"""A regression is built anew when it has this many times the points that it was built of, and its scales are fitted
anew when there are this many times the points of the last fit; beyond `MOST_POINTS`, the second."""


@dataclass(frozen=True)
class Reports:
    """What the regressions are fitted to."""

    rows: Array
    """(reports, columns): settings, and images seen on a logarithmic scale."""
    whose: NDArray[np.int_]
    """(reports,): the trial's number."""
    loss: Array
    """(reports,): the score's part by the loss."""
    rest: Array

    @classmethod
    def of(cls, trials: Sequence[Seen], heard: Mapping[int, int] | None = None) -> Reports:
        """All reports of these trials, but the first so many of each that were heard before."""
        before = heard or {}
        told = [(one, point) for one in trials for point in one.points[before.get(one.trial.number, 0) :]]
        return cls(
            _rows([one.row for one, _ in told], [point["images"] for _, point in told]),
            np.array([one.trial.number for one, _ in told]),
            *(np.array([float(point[part]) for _, point in told]) for part in ("loss", "rest")),
        )

    def joined(self, others: Reports) -> Reports:
        return Reports(
            *(np.concatenate([getattr(some, name.name) for some in (self, others)]) for name in fields(Reports))
        )

    def luck_with(self, others: Reports) -> Array:
        """Correlation of the reports' noise, (reports, others): within a training, the more the less lies between.

        It falls exponentially (Ornstein & Uhlenbeck 1930): a training that is lucky now is likely to be so a little
        later.
        """
        between = np.abs(self.rows[:, -1, None] - others.rows[:, -1])
        luck: Array = (self.whose[:, None] == others.whose) * np.exp(-between / NOISE_LENGTH)
        return luck


class Forecast:
    """Regressions on the reports of a search.

    Args:
        trials: with reports; at least one has two or more of them, or there are several.
        earlier: a forecast of the same search from before, whose scales serve while few points are new.
    """

    def __init__(self, trials: Sequence[Seen], lengths: Array, earlier: Forecast | None = None):
        used = _most_telling(trials)
        self._reports = reports = Reports.of(used)
        self._built_of = len(reports.loss)
        self._take(trials)
        kept = earlier if earlier is not None and _still_fits(earlier.fitted_to, self._count) else None
        self.fitted_to: int = kept.fitted_to if kept else self._count
        fitted = kept.scales if kept else (None, None)
        paired = math.nan if kept else paired_noise(used)  # kept scales have it
        noise, sure = _share(paired, float(reports.rest.var())), 1.0 if math.isnan(paired) else NOISE_SD
        lengths, luck = np.log(np.append(lengths, IMAGES_LENGTH)), reports.luck_with(reports)
        priors = [Scales(lengths, 0.0, math.log(share)) for share in (LOSS_NOISE, noise)]
        self._loss = GaussianProcess(reports.rows, reports.loss, priors[0], fitted[0], Noise(luck))
        self._rest = GaussianProcess(reports.rows, reports.rest, priors[1], fitted[1], Noise(luck, sure))
        self.scales: tuple[Scales, Scales] = (self._loss.scales, self._rest.scales)

    def _take(self, trials: Sequence[Seen]) -> None:
        self.trials = trials
        self._heard = {one.trial.number: len(one.points) for one in trials}
        self._count = sum(self._heard.values())

    def is_outgrown_by(self, trials: Sequence[Seen]) -> bool:
        """Whether they have reported so much since it was built that another is to be."""
        new = sum(len(one.points) for one in trials) - self._count
        return len(self._reports.loss) + new >= REFIT * self._built_of

    def hear(self, trials: Sequence[Seen]) -> None:
        """The trials as they are now: what they have reported since is added."""
        new = Reports.of(trials, self._heard)
        self._take(trials)
        if len(new.loss):
            self._reports = self._reports.joined(new)
            luck = self._reports.luck_with(new)
            self._loss.add(new.rows, new.loss, luck)
            self._rest.add(new.rows, new.rest, luck)

    def mean_worth(self, trials: Sequence[Seen]) -> Array:
        """What the settings of known trials can be expected to reach where they count, (trials,)."""
        placed = _rows([one.row for one in trials], [one.counts_at for one in trials])
        return self._loss.mean(placed) + self._rest.mean(placed)

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
        lengths = np.minimum(np.exp(self._loss.scales.lengths[:-1]), 1.0)
        distances: Array = cdist(rows / lengths, others / lengths)
        return distances


def _still_fits(fitted_to: int, points: int) -> bool:
    """Whether scales that were fitted to so many points serve for these."""
    return points < (REFIT if points <= MOST_POINTS else LATE_REFIT) * fitted_to


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
        earlier: of the same search, whose scales serve while few trials are new.
    """

    def __init__(
        self, trials: Sequence[Seen], lengths: Array, limits: LimitsConfig, earlier: CostForecast | None = None
    ):
        self._limits = {name: math.log(limit) for name, limit in limits.model_dump().items() if limit is not None}
        self._models: dict[str, GaussianProcess] = {}
        self._fitted_to: dict[str, int] = {}
        for name in {*self._limits, GROWING}:
            known = [(one.row, cost) for one in trials if (cost := _cost(one, name))]
            if len(known) > 1:
                fitted = earlier._scales_for(name, len(known)) if earlier else None
                self._fitted_to[name] = earlier._fitted_to[name] if earlier and fitted else len(known)
                rows, costs = np.array([row for row, _ in known]), np.log([cost for _, cost in known])
                prior = Scales(np.log(lengths), 0.0, math.log(COST_NOISE))
                self._models[name] = GaussianProcess(rows[-MOST_POINTS:], costs[-MOST_POINTS:], prior, fitted)

    def _scales_for(self, name: str, points: int) -> Scales | None:
        """Those of a cost, if they serve for so many points too."""
        model = self._models.get(name)
        return model.scales if model and _still_fits(self._fitted_to[name], points) else None

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
