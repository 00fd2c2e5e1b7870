"""Settings as columns of numbers between about 0 and 1, for a regression."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial

from raylora.search.axes import Axis, axes_of
from raylora.search.gaussian_process import Array

PRIOR_LENGTH = 1.0
LENGTHS = {"_lr": 0.5, "learning_rate": 0.5, "text_encoder_lr": 2.0, "lr_scheduler.": 3.0}
"""Where a setting's name has one of these (the last that fits): over what share of its range a score hangs together.

Shorter ones matter more. By the recorded trainings (docs/measures.md) rates matter most, the text encoder's share and
the schedule least. It is where a fit begins, not what it must end with.
"""


class Encoder:
    """A row of numbers for each trial of a space.

    A setting whose values are in order becomes one column, other choices one each. What a trial doesn't have, since its
    condition doesn't hold, and a value that no known trial has are 0.

    Args:
        trials: between them they have every setting and every value that there is.
    """

    def __init__(self, trials: Sequence[FrozenTrial]):
        self._axes = axes_of(trials)

    @property
    def lengths(self) -> Array:
        """The prior length of each column."""
        return np.array([_length(axis.name) for axis in self._axes for _ in range(_columns(axis))])

    def row(self, trial: FrozenTrial) -> list[float]:
        return [column for axis in self._axes for column in _encoded(trial, axis)]


def _length(name: str) -> float:
    setting = name.partition(" / ")[0]
    return next((length for part, length in reversed(LENGTHS.items()) if part in setting), PRIOR_LENGTH)


def _columns(axis: Axis) -> int:
    return 1 if axis.levels is None or axis.is_ordered else len(axis.levels)


def _encoded(trial: FrozenTrial, axis: Axis) -> list[float]:
    value = trial.params.get(axis.name)
    if axis.levels is not None and not axis.is_ordered:
        return [float(axis.name in trial.params and value == level) for level in axis.levels]
    place = axis.place(trial) if axis.levels is None or value in axis.levels else math.nan
    return [0.0 if math.isnan(place) else place]
