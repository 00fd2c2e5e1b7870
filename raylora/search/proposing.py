"""What to try next, and which trials can still win, by a forecast of all trials' ends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError
from scipy.stats import norm

from raylora.config import Experiment
from raylora.search.encoding import Encoder
from raylora.search.forecast import CostForecast, Forecast
from raylora.search.gaussian_process import Array
from raylora.search.seen import POINTS_KEY, ImagesOf, Seen, Sightings
from raylora.search.space import Params, SearchSpace

DRAWS = 1000
"""Random points of the space, among which proposals are chosen."""
LEAST_POINTS = 5
"""Reports before anything is foretold."""
NEAR = 0.5
"""Distance, in lengths, within which a proposal would say much the same as a trial under way."""
LEADERS = 50
"""Trials that may be best: those of whom most can be expected; what came to its end since that was looked up too."""
TRIED = -1.0
"""Less than any promise."""
LEAST_CHANCE = 0.2
"""Of becoming the best, from which on a trial goes on in any case."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
"""What a training may come out as, in standard deviations, for a mean over a normal distribution."""
STALE = 1.02
"""Draws are judged and leaders looked for anew when there are this many times the reports and ends of the last time."""


@dataclass(frozen=True)
class Draws:
    """Random points of the space."""

    trials: list[FrozenTrial]
    images: list[int]
    """Where the training of each ends."""


@dataclass(frozen=True)
class Judged:
    """All draws by one forecast, (draws,) each."""

    news: int
    promise: Array
    costs: CostForecast
    seconds: Array
    """Of training to the end."""


class Forecaster:
    """Proposals by knowledge gradient at the end of training, and which trials are worth going on with.

    Args:
        images_of: images that a training with given settings sees.
    """

    def __init__(self, space: SearchSpace, experiment: Experiment, images_of: ImagesOf):
        self._space, self._experiment, self._images_of = space, experiment, images_of
        self._forecast: Forecast | None = None
        self._news = 0
        self._judged: Judged | None = None
        self._behind: set[int] = set()
        self._compared = 0
        self._tried: dict[int, list[int]] = {}
        self._sightings = Sightings(lambda trial: self._encoder.row(trial), images_of, experiment.search.limits)

    @cached_property
    def _draws(self) -> Draws:
        """Independent draws that give a valid configuration."""
        study = optuna.create_study(sampler=RandomSampler(seed=self._experiment.seed % 2**32))
        valid, images = [], []
        for number in range(DRAWS):
            params = self._space.suggest(study.ask(), self._experiment)
            try:
                images.append(self._images_of(params))
                valid.append(number)
            except ValidationError:
                continue  # such a trial would fail
        trials = study.get_trials(deepcopy=False)
        return Draws([trials[number] for number in valid], images)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self._draws.trials)

    @cached_property
    def _rows(self) -> Array:
        return np.array([self._encoder.row(trial) for trial in self._draws.trials])

    def forecast(self, trials: Sequence[FrozenTrial]) -> Forecast | None:
        """From all reports there are; None while they are too few."""
        reports = sum(len(trial.user_attrs.get(POINTS_KEY, ())) for trial in trials)
        if reports < LEAST_POINTS:
            return None
        news = reports + sum(trial.state.is_finished() for trial in trials)
        if self._forecast is None or news != self._news:
            seen = [one for one in self._sightings.of(trials) if one.points]
            if self._forecast is None or self._forecast.is_outgrown_by(seen):
                self._forecast = Forecast(seen, self._encoder.lengths, self._forecast)
            else:
                self._forecast.hear(seen)
            self._news = news
        return self._forecast

    def propose(self, trials: Sequence[FrozenTrial]) -> Params | None:
        """The draw that promises most, in Optuna's parameters; None while too little is known.

        It keeps away from trials under way: what they will tell is not known yet, and would be asked twice.
        """
        forecast = self.forecast(trials)
        if forecast is None:
            return None
        promise = self._judge(forecast, trials).promise
        under_way = [one.row for one in self._sightings.of([one for one in trials if one.state is TrialState.RUNNING])]
        if under_way:
            nearest = forecast.distances(self._rows, np.array(under_way)).min(axis=1)
            promise = promise * (1 - np.exp(-((nearest / NEAR) ** 2)))
        promise = np.where(self._untried(trials), promise, TRIED)
        chosen: Params = self._draws.trials[int(np.argmax(promise))].params
        return chosen

    @cached_property
    def _places(self) -> dict[tuple[float, ...], list[int]]:
        """Where among the draws a row is."""
        places: dict[tuple[float, ...], list[int]] = {}
        for place, row in enumerate(self._rows.tolist()):
            places.setdefault(tuple(row), []).append(place)
        return places

    def _untried(self, trials: Sequence[FrozenTrial]) -> NDArray[np.bool_]:
        """Which draws were not tried yet, (draws,); all, once none is left."""
        for one in self._sightings.of([trial for trial in trials if trial.number not in self._tried]):
            self._tried[one.trial.number] = self._places.get(tuple(one.row), [])
        untried = np.ones(len(self._rows), dtype=bool)
        untried[list(itertools.chain.from_iterable(self._tried.values()))] = False
        return untried if untried.any() else ~untried

    def _judge(self, forecast: Forecast, trials: Sequence[FrozenTrial]) -> Judged:
        if self._judged is None or self._news > STALE * self._judged.news:
            earlier = self._judged.costs if self._judged else None
            seen, limits = self._sightings.of(trials), self._experiment.search.limits
            costs = CostForecast(seen, self._encoder.lengths, limits, earlier)
            gain = self._gain(forecast, self._rows, self._draws.images)
            promise = gain * costs.chance_within(self._rows, self._draws.images)
            self._judged = Judged(self._news, promise, costs, costs.seconds(self._rows, self._draws.images))
        return self._judged

    def expected(self, trials: Sequence[FrozenTrial]) -> dict[int, float]:
        """What the settings of each trial that came to its end can be expected to reach, by number.

        It is less than what a lucky trial reached. Empty while too little is known.
        """
        forecast = self.forecast(trials)
        if forecast is None:
            return {}
        whole = self._whole(forecast)
        if not whole:
            return {}
        mean = forecast.mean_worth(whole)
        return {one.trial.number: float(value) for one, value in zip(whole, mean, strict=True)}

    def is_worth_going_on(self, number: int, trials: Sequence[FrozenTrial]) -> bool | None:
        """Whether a trial that has reports is to be trained further; None while that can't be told.

        It is if it may well become the best, or if the time that it still takes could not be put to better use: if it
        promises as much for each second as the best of what was not tried yet.
        """
        forecast = self.forecast(trials)
        if forecast is None:
            return None
        asked = next((one for one in forecast.trials if one.trial.number == number), None)
        others = [one for one in self._leaders(forecast) if one.trial.number != number]
        if asked is None or not others:
            return None
        (mean,), (sd,) = forecast.worth([asked])
        best = forecast.mean_worth(others).max()
        if norm.cdf((mean - best) / sd) >= LEAST_CHANCE:
            return True
        if asked.image_s is None:
            return False
        gain = self._gain(forecast, np.array([asked.row]), [asked.images_end])[0]
        judged = self._judge(forecast, trials)
        per_second = judged.promise / judged.seconds * self._untried(trials)
        return bool(gain > 0 and gain >= asked.images_left * asked.image_s * per_second.max())

    def _whole(self, forecast: Forecast) -> list[Seen]:
        """Trials that came to their end and keep the limits: one of them is to win."""
        return [one for one in forecast.trials if one.is_whole and one.keeps_limits]

    def _leaders(self, forecast: Forecast) -> list[Seen]:
        """Not by their scores: of many trials, those with the highest are the lucky ones."""
        whole = self._whole(forecast)
        if len(whole) > LEADERS and self._news > STALE * self._compared:
            behind = np.argsort(forecast.mean_worth(whole))[:-LEADERS]
            self._behind, self._compared = {whole[place].trial.number for place in behind}, self._news
        return [one for one in whole if one.trial.number not in self._behind]

    def _gain(self, forecast: Forecast, rows: Array, images: Sequence[int]) -> Array:
        """By how much a training to its end lifts what the then best trial can be expected to be worth, (rows,).

        The knowledge gradient over what was tried and the new point (Scott, Frazier & Powell 2011): a
        training may turn out best itself, or show that its neighbours are better or worse than they seemed, which its
        noise limits.
        """
        mean, sd = forecast.at(rows, images)
        whole = self._leaders(forecast)
        known = forecast.mean_worth(whole) if whole else np.array([mean.mean()])
        shown = np.hypot(sd, forecast.noise_sd)
        own = sd**2 / shown
        pulls = forecast.covariance(rows, images, whole) / shown[:, None] if whole else np.zeros((len(rows), 1))
        best = np.array([np.maximum((known + pulls * node).max(axis=1), mean + own * node) for node in NODES])
        gain: Array = WEIGHTS @ best / WEIGHTS.sum() - known.max()
        return np.maximum(gain, 0.0)
