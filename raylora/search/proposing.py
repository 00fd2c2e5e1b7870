"""What to try next, and which trials can still win, by a forecast of all trials' ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError
from scipy.stats import norm

from raylora.config import Experiment
from raylora.search.encoding import Encoder
from raylora.search.forecast import POINTS_KEY, CostForecast, Forecast, ImagesOf, Seen
from raylora.search.gaussian_process import Array
from raylora.search.limits import over_limits
from raylora.search.ranking import COSTS_KEY, PARAMS_KEY
from raylora.search.space import Params, SearchSpace

DRAWS = 1000
"""Random points of the space, among which proposals are chosen."""
LEAST_POINTS = 5
"""Reports before anything is foretold."""
NEAR = 0.5
"""Distance, in lengths, within which a proposal would say much the same as a trial under way."""
LEAST_CHANCE = 0.2
"""Of becoming the best, from which on a trial goes on in any case."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
WEIGHTS=WEIGHTS/WEIGHTS.sum()
STALE = 1.02
"""Draws are judged anew when there are this many times the reports and ends of the last time."""


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
    seconds: Array
    """Of training to the end."""


class Forecaster:
    """Proposals by expected improvement at the end of training, and which trials are worth going on with.

    Args:
        images_of: images that a training with given settings sees.
    """

    def __init__(self, space: SearchSpace, experiment: Experiment, images_of: ImagesOf):
        self._space, self._experiment, self._images_of = space, experiment, images_of
        self._forecast: Forecast | None = None
        self._news = 0
        self._judged: Judged | None = None
        self._known: dict[int, tuple[list[float], int]] = {}

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

    def _seen(self, trials: Sequence[FrozenTrial]) -> list[Seen]:
        """Those that have begun; some have no reports, as what is too large isn't trained."""
        return [
            Seen(one, row, one.user_attrs.get(POINTS_KEY, []), images)
            for one in trials
            if PARAMS_KEY in one.user_attrs
            for row, images in [self._of(one)]
        ]

    def _of(self, trial: FrozenTrial) -> tuple[list[float], int]:
        """A trial's row and its last image: neither changes."""
        if trial.number not in self._known:
            images = self._images_of(trial.user_attrs[PARAMS_KEY])
            self._known[trial.number] = self._encoder.row(trial), images
        return self._known[trial.number]

    def forecast(self, trials: Sequence[FrozenTrial]) -> Forecast | None:
        """From all reports there are; None while they are too few."""
        reports = sum(len(trial.user_attrs.get(POINTS_KEY, ())) for trial in trials)
        if reports < LEAST_POINTS:
            return None
        news = reports + sum(trial.state.is_finished() for trial in trials)
        if self._forecast is None or news != self._news:
            seen = [one for one in self._seen(trials) if one.points]
            self._forecast = Forecast(seen, self._encoder.lengths, self._forecast)
            self._news = news
        return self._forecast

    def propose(self, trials: Sequence[FrozenTrial]) -> Params | None:
        """The draw that promises most, in Optuna's parameters; None while too little is known.

        It keeps away from trials under way: what they will tell is not known yet, and would be asked twice.
        """
        forecast = self.forecast(trials)
        if forecast is None:
            return None
        promise = self._new_promise(forecast, trials)
        under_way = [self._encoder.row(one) for one in trials if one.state is TrialState.RUNNING]
        if under_way:
            nearest = forecast.distances(self._rows, np.array(under_way)).min(axis=1)
            promise = promise * (1 - np.exp(-((nearest / NEAR) ** 2)))
        chosen: Params = self._draws.trials[int(np.argmax(promise))].params
        return chosen

    def _new_promise(self, forecast: Forecast, trials: Sequence[FrozenTrial]) -> Array:
        """Of the draws that were not tried yet, the others' 0; of all, once all were tried."""
        promise = self._judge(forecast, trials).promise
        tried = {tuple(self._of(one)[0]) for one in trials if PARAMS_KEY in one.user_attrs}
        untried = np.array([tuple(row) not in tried for row in self._rows.tolist()])
        return promise * untried if untried.any() else promise

    def _judge(self, forecast: Forecast, trials: Sequence[FrozenTrial]) -> Judged:
        if self._judged is None or self._news > STALE * self._judged.news:
            costs = CostForecast(self._seen(trials), self._encoder.lengths, self._experiment.search.limits)
            promise = self._knowledge(forecast, self._rows, self._draws.images)
            promise = promise * costs.chance_within(self._rows, self._draws.images)
            self._judged = Judged(self._news, promise, costs.seconds(self._rows, self._draws.images))
        return self._judged

    def expected(self, trials: Sequence[FrozenTrial]) -> dict[int, float]:
        """What the settings of each trial that came to its end can be expected to reach, by number.

        It is less than what a lucky trial reached. Empty while too little is known.
        """
        forecast = self.forecast(trials)
        if forecast is None:
            return {}
        whole = [one for one in forecast.trials if one.is_whole and self._is_within(one)]
        if not whole:
            return {}
        mean, _ = forecast.worth(whole)
        return {one.trial.number: float(value) for one, value in zip(whole, mean, strict=True)}

    def _is_within(self, one: Seen) -> bool:
        return not over_limits(self._experiment.search.limits, one.trial.user_attrs.get(COSTS_KEY, {}))

    def is_worth_going_on(self, number: int, trials: Sequence[FrozenTrial]) -> bool | None:
        """Whether a trial that has reports is to be trained further; None while that can't be told.

        It is if it may well become the best, or if the time that it still takes could not be put to better use: if it
        promises as much for each second as the best of what was not tried yet.
        """
        forecast = self.forecast(trials)
        best = max((value for other, value in self.expected(trials).items() if other != number), default=None)
        asked = [one for one in forecast.trials if one.trial.number == number] if forecast else []
        if forecast is None or best is None or not asked:
            return None
        (mean,), (sd,) = forecast.worth(asked)
        seconds = asked[0].images_left * asked[0].image_s
        others = self._new_promise(forecast, trials) / self._judge(forecast, trials).seconds
        import os
        if os.environ.get('PURE')!='1' and norm.cdf((mean - best) / sd) >= float(os.environ.get('LC','.2')):
            return True
        own = self._knowledge(forecast, np.array([asked[0].row]), [asked[0].images_end], but=number)[0]
        return bool(own >= seconds * others.max())

    def _knowledge(self, forecast, rows, images, but=None):
        whole = [one for one in forecast.trials if one.is_whole and self._is_within(one) and one.trial.number!=but]
        mean, sd = forecast.at(rows, images)
        if not whole:
            return _improvement(mean, sd, float(mean.mean()), forecast.noise_sd)
        known, _ = forecast.worth(whole)
        scale = np.sqrt(sd**2 + forecast.noise_sd**2)
        pull = forecast.covariance(rows, images, whole) / scale[:, None]
        own = sd**2 / scale
        found = np.zeros(len(rows))
        for node, weight in zip(NODES, WEIGHTS, strict=True):
            after = (known + pull * node).max(axis=1)
            found += np.maximum(after, mean + own * node) * weight
        return found - known.max()


def _improvement(mean: Array, sd: Array, best: float, noise_sd: float) -> Array:
    """Augmented expected improvement (Huang et al. 2006, equation 12), each (points,).

    That of Jones et al. 1998, less where a training would say little: what is known better than a single noisy score
    can tell is not worth another.
    """
    ratio = (mean - best) / sd
    expected: Array = sd * (ratio * norm.cdf(ratio) + norm.pdf(ratio))
    return expected * (1 - noise_sd / np.hypot(noise_sd, sd))
