"""Answers for configurations between the recorded ones: a regression on the table, with its noise and its error."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern, WhiteKernel
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.recorded.configurations import FIRST_STYLE, demo_space
from benchmarks.recorded.packing import unpack
from benchmarks.recorded.record import POINTS
from raylora.dataset.batches import make_schedule
from raylora.search.space import Params, optuna_name

TRAIN_IMAGES = 30
"""Of the demo's 40, those that a trial learns."""
PARTS = ("loss", "rest")
"""Of a score: by the held-out loss, and the other measures."""
TELLING = 80
"""Recordings that the kernels' lengths are fitted to, in seconds: all of them take minutes, for no smaller error."""
Curve = dict[int, NDArray[np.float64]]
"""A score's parts by images seen."""


@dataclass(frozen=True)
class Recording:
    """One training of the table."""

    number: int
    seed: int
    style: str
    params: Params
    curve: Curve
    deviations: NDArray[np.float64]
    """(points, images): how single held-out images' scores differ from their mean."""
    image_s: float
    """Processor seconds of training, per image."""
    measure_s: float
    """Of one evaluation."""

    @property
    def best(self) -> float:
        return max(float(parts.sum()) for parts in self.curve.values())


@dataclass(frozen=True)
class Answer:
    """A training that was not recorded."""

    curve: Curve
    deviations: NDArray[np.float64]
    """(points of `POINTS`, images)."""
    image_s: float
    """Processor seconds of training, per image."""

    def report(self, images: int) -> dict[str, Any]:
        """What a trial would report after so many images."""
        loss, rest = at(self.curve, images)
        score = float(loss + rest)
        deviations = self.deviations[min(int(np.searchsorted(POINTS, images)), len(POINTS) - 1)]
        ratio = 1 - float(loss) / loss_weight()
        return {"images_seen": images, "train_s": images * self.image_s, "score": score, "holdout_loss_ratio": ratio,
                "image_scores": (score + deviations).tolist()}  # fmt: skip


def loss_weight() -> float:
    """Of the demo's score."""
    return demo_space()[1].evaluation.score.loss_weight


def at(curve: Curve, images: int) -> NDArray[np.float64]:
    """The parts between the points of a curve."""
    values = np.array(list(curve.values()))
    return np.array([np.interp(images, list(curve), values[:, part]) for part in range(len(PARTS))])


def read_table(table: Path, style: str = FIRST_STYLE) -> list[Recording]:
    """The trainings of a style that came to their end."""
    return [_recording(row) for row in unpack(table) if row["style"] == style]


def _recording(row: dict[str, Any]) -> Recording:
    points, weight = row["points"], loss_weight()
    losses = [weight * (1 - point["holdout_loss_ratio"]) for point in points]
    scores = np.array([point["image_scores"] for point in points])
    return Recording(
        row["number"], row["seed"], row["style"], row["params"],
        curve={
            point["images_seen"]: np.array([loss, point["score"] - loss])
            for point, loss in zip(points, losses, strict=True)
        },
        deviations=scores - scores.mean(axis=1, keepdims=True),
        image_s=sum(point["train_s"] for point in points) / points[-1]["images_seen"],
        measure_s=mean(point["measure_s"] for point in points),
    )  # fmt: skip


class Surrogate:
    """Curves of any configuration of the demo's space: two Gaussian processes over settings and images seen.

    One for each part of the score, since they differ in noise: by the loss hardly any, by the samples much. Noise is
    what recorded trainings differ by from the mean of their configuration, a whole curve at a time, so that it hangs
    together along the curve as it does in training. Trees err more (docs of the results) and take a lucky training
    for a peak.
    """

    def __init__(self, recordings: Sequence[Recording]):
        self._space, self._experiment = demo_space()
        self._recordings = recordings
        self._means: dict[str, Curve] = {}
        telling = [one for one in recordings if not one.seed][:TELLING]
        kernels = [self._fit(telling, part)[-1].kernel_ for part in range(len(PARTS))]
        self._models = [self._fit(recordings, part, kernel) for part, kernel in enumerate(kernels)]
        self._noises = _noises(recordings)
        self.image_s = median(one.image_s for one in recordings)
        self.measure_s = median(one.measure_s for one in recordings)

    def _fit(self, recordings: Sequence[Recording], part: int, kernel: Kernel | None = None) -> Pipeline:
        """The regression; with a fitted kernel given, its lengths stay as they are, which is quick."""
        rows = self._rows(recordings)
        values = [parts[part] for one in recordings for parts in one.curve.values()]
        lengths = Matern(np.full(rows.shape[1], 2.0), (0.1, 100.0), nu=2.5)
        new = ConstantKernel(1.0) * lengths + WhiteKernel((0.01, 0.3)[part])
        process = GaussianProcessRegressor(
            kernel or new, optimizer=None if kernel else "fmin_l_bfgs_b", normalize_y=True, random_state=0
        )
        return make_pipeline(StandardScaler(), process).fit(rows, values)

    def _rows(self, recordings: Sequence[Recording]) -> NDArray[np.float64]:
        return np.array([self._features(one.params, images) for one in recordings for images in one.curve])

    def _features(self, params: Params, images: int) -> list[float]:
        """Numbers as they are searched, logarithms where they can be; of other choices a zero or one for each."""
        asked, found = self._space.to_optuna(params, self._experiment), [math.log(images)]
        for path, parameter in self._space.parameters.items():
            value = asked.get(optuna_name(path, parameter))
            if parameter.choices and isinstance(parameter.choices[0], str):
                found += [float(value == choice) for choice in parameter.choices]
            else:
                number = float(value) if value is not None else 0.0
                found.append(math.log(number) if number > 0 else number)
        return found

    def points(self, params: Params) -> list[int]:
        """Where the curve of a configuration has values: at its own end last."""
        total = make_schedule([1] * TRAIN_IMAGES, self._experiment.with_params(params).training).images_total
        return [*(point for point in POINTS if point < total), total]

    def mean_curve(self, params: Params) -> Curve:
        key = json.dumps(params, sort_keys=True)
        if key not in self._means:
            points = self.points(params)
            rows = np.array([self._features(params, images) for images in points])
            values = np.column_stack([model.predict(rows) for model in self._models])
            self._means[key] = dict(zip(points, values, strict=True))
        return self._means[key]

    def worth(self, params: Params) -> float:
        """The best mean score along a configuration's curve."""
        return max(float(parts.sum()) for parts in self.mean_curve(params).values())

    def answer(self, params: Params, generator: np.random.Generator) -> Answer:
        """One training: the mean with some recorded training's noise."""
        noise, deviations = self._noises[generator.integers(len(self._noises))]
        curve = {images: parts + at(noise, images) for images, parts in self.mean_curve(params).items()}
        return Answer(curve, deviations, self.image_s)

    def error(self) -> dict[str, float]:
        """Of the best score of configurations that the regressions have not seen (10 folds), the noise within.

        The kernels' few lengths are those fitted to all.
        """
        numbers = np.array([one.number for one in self._recordings])
        asked, told = [], []
        for known, unknown in GroupKFold(min(10, len(set(numbers)))).split(numbers, groups=numbers):
            models = [
                self._fit([self._recordings[place] for place in known], part, model[-1].kernel_)
                for part, model in enumerate(self._models)
            ]
            for one in (self._recordings[place] for place in unknown):
                told.append(float(max(sum(model.predict(self._rows([one])) for model in models))))
                asked.append(one.best)
        differences = np.array(asked) - np.array(told)
        return {
            "rmse": float(np.sqrt((differences**2).mean())),
            "spread": float(np.std(asked)),
            "rank_correlation": float(spearmanr(asked, told).statistic),
        }


def _noises(recordings: Sequence[Recording]) -> list[tuple[Curve, NDArray[np.float64]]]:
    """How trainings of a configuration differ from their mean, as widely as single ones do; and their deviations."""
    groups: defaultdict[int, list[Recording]] = defaultdict(list)
    for one in recordings:
        groups[one.number].append(one)
    noises = []
    for group in groups.values():
        curves = np.array([[at(one.curve, images) for images in POINTS] for one in group])
        if len(group) > 1:
            apart = (curves - curves.mean(axis=0)) * math.sqrt(len(group) / (len(group) - 1))
            for one, noise in zip(group, apart, strict=True):
                noises.append((dict(zip(POINTS, noise, strict=True)), _at_points(one)))
    return noises


def _at_points(recording: Recording) -> NDArray[np.float64]:
    """Deviations at each of `POINTS`; after a training's end those at its end."""
    places = np.searchsorted(list(recording.curve), POINTS)
    return recording.deviations[np.minimum(places, len(recording.deviations) - 1)]
