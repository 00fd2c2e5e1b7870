"""Answers for configurations between the recorded ones: a regression on the table, with its noise and its error."""

from __future__ import annotations

import gzip
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
from benchmarks.recorded.record import POINTS
from raylora.dataset.batches import make_schedule
from raylora.search.space import Params, optuna_name

TRAIN_IMAGES = 30
"""Of the demo's 40, those that a trial learns."""
Curve = dict[int, float]
"""Score by images seen."""


@dataclass(frozen=True)
class Recording:
    """One training of the table."""

    number: int
    seed: int
    style: str
    params: Params
    curve: Curve
    image_s: float
    """Processor seconds of training, per image."""
    measure_s: float
    """Of one evaluation."""


def read_table(table: Path, style: str = FIRST_STYLE) -> list[Recording]:
    """The trainings of a style that came to their end."""
    rows = [json.loads(line) for line in gzip.decompress(table.read_bytes()).decode().splitlines()]
    return [_recording(row) for row in rows if row["style"] == style and not row["failed"]]


def _recording(row: dict[str, Any]) -> Recording:
    points = row["points"]
    return Recording(
        row["number"], row["seed"], row["style"], row["params"],
        curve={point["images_seen"]: point["score"] for point in points},
        image_s=sum(point["train_s"] for point in points) / points[-1]["images_seen"],
        measure_s=mean(point["measure_s"] for point in points),
    )  # fmt: skip


class Surrogate:
    """Curves of any configuration of the demo's space: a Gaussian process over settings and images seen.

    Of what was tried it errs least (rmse over unseen configurations, 160 recorded ones: 0.06; gradient boosting and
    extremely randomized trees 0.08, random forest 0.09), and unlike trees takes no lucky training for a peak.
    Noise is what recorded trainings differ by from the mean of their configuration, a whole curve at a time, so that it
    hangs together along the curve as it does in training.
    """

    def __init__(self, recordings: Sequence[Recording]):
        self._space, self._experiment = demo_space()
        self._recordings = recordings
        self._means: dict[str, Curve] = {}
        self._model = self._fit(recordings)
        self._noises = _noises(recordings)
        self.image_s = median(one.image_s for one in recordings)
        self.measure_s = median(one.measure_s for one in recordings)

    def _fit(self, recordings: Sequence[Recording], kernel: Kernel | None = None) -> Pipeline:
        """The regression; with a fitted kernel given, its lengths stay as they are, which is quick."""
        rows = np.array([self._features(one.params, images) for one in recordings for images in one.curve])
        scores = [score for one in recordings for score in one.curve.values()]
        lengths = Matern(np.full(rows.shape[1], 2.0), (0.1, 100.0), nu=2.5)
        new = ConstantKernel(1.0) * lengths + WhiteKernel(0.1)
        process = GaussianProcessRegressor(
            kernel or new, optimizer=None if kernel else "fmin_l_bfgs_b", normalize_y=True, random_state=0
        )
        return make_pipeline(StandardScaler(), process).fit(rows, scores)

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
            scores = self._model.predict(np.array([self._features(params, images) for images in points]))
            self._means[key] = dict(zip(points, scores.tolist(), strict=True))
        return self._means[key]

    def curve(self, params: Params, generator: np.random.Generator) -> Curve:
        """One training's curve: the mean with some recorded training's noise."""
        noise = self._noises[generator.integers(len(self._noises))]
        return {
            images: score + float(np.interp(images, POINTS, noise)) for images, score in self.mean_curve(params).items()
        }

    def error(self) -> dict[str, float]:
        """Of the best score of configurations that the regression has not seen (10 folds), the noise within.

        The kernel's few lengths are those fitted to all.
        """
        numbers = np.array([one.number for one in self._recordings])
        asked, told = [], []
        for known, unknown in GroupKFold(min(10, len(set(numbers)))).split(numbers, groups=numbers):
            model = self._fit([self._recordings[place] for place in known], self._model[-1].kernel_)
            for one in (self._recordings[place] for place in unknown):
                scores = model.predict(np.array([self._features(one.params, images) for images in one.curve]))
                told.append(float(max(scores)))
                asked.append(max(one.curve.values()))
        differences = np.array(asked) - np.array(told)
        return {
            "rmse": float(np.sqrt((differences**2).mean())),
            "spread": float(np.std(asked)),
            "rank_correlation": float(spearmanr(asked, told).statistic),
        }


def _noises(recordings: Sequence[Recording]) -> list[NDArray[np.float64]]:
    """At each of `POINTS`: how trainings of a configuration differ from their mean, as widely as single ones do."""
    groups: defaultdict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for one in recordings:
        groups[one.number].append(np.interp(POINTS, list(one.curve), list(one.curve.values())))
    noises = []
    for curves in groups.values():
        if len(curves) > 1:
            widened = math.sqrt(len(curves) / (len(curves) - 1))
            noises += [(curve - np.mean(curves, axis=0)) * widened for curve in curves]
    return noises
