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
    """All draws by one forecast: what each is worth at its end, (draws,), and the best that was tried."""

    news: int
    mean: Array
    sd: Array
    best: float


class Forecaster:
    """Proposals by expected improvement (Jones et al. 1998) at the end of training, and the chances of trials.

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
        judged = self._judge(forecast, trials)
        gain = judged.mean - judged.best
        ratio = gain / judged.sd
        promise = judged.sd * (ratio * norm.cdf(ratio) + norm.pdf(ratio))
        under_way = [self._encoder.row(one) for one in trials if one.state is TrialState.RUNNING]
        if under_way:
            nearest = forecast.distances(self._rows, np.array(under_way)).min(axis=1)
            promise = promise * (1 - np.exp(-((nearest / NEAR) ** 2)))
        promise = promise * self._chance_within(trials)
        chosen: Params = self._draws.trials[int(np.argmax(promise))].params
        return chosen

    def _judge(self, forecast: Forecast, trials: Sequence[FrozenTrial]) -> Judged:
        if self._judged is None or self._news > STALE * self._judged.news:
            mean, sd = forecast.at(self._rows, self._draws.images)
            best = max(self.expected(trials).values(), default=float(mean.mean()))
            self._judged = Judged(self._news, mean, sd, best)
        return self._judged

    def _chance_within(self, trials: Sequence[FrozenTrial]) -> Array | float:
        limits = self._experiment.search.limits
        if not limits.model_dump(exclude_none=True):
            return 1.0
        costs = CostForecast(self._seen(trials), self._encoder.lengths, limits)
        return costs.chance_within(self._rows, self._draws.images)

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

    def chance(self, number: int, trials: Sequence[FrozenTrial]) -> float | None:
        """That the settings of a trial are worth more at their end than the best that came to theirs.

        None while no other has, or too little is known.
        """
        forecast = self.forecast(trials)
        best = max((value for other, value in self.expected(trials).items() if other != number), default=None)
        if forecast is None or best is None:
            return None
        mean, sd = forecast.worth([one for one in forecast.trials if one.trial.number == number])
        return float(norm.cdf((mean[0] - best) / sd[0])) if len(mean) else None
