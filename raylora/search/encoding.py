"""Settings as columns of numbers between about 0 and 1, for a regression."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from raylora.search.gaussian_process import Array

PRIOR_LENGTH = 1.0
LENGTHS = {"_lr": 0.5, "learning_rate": 0.5, "text_encoder_lr": 2.0, "lr_scheduler.": 3.0}
"""Where a setting's name has one of these (the last that fits): over what share of its range a score hangs together.

Shorter ones matter more. By the recorded trainings (docs/measures.md) rates matter most, the text encoder's share and
the schedule least. It is where a fit begins, not what it must end with.
"""


class Encoder:
    """A row of numbers for each point of a space.

    A range becomes one column (its logarithm, where it is searched so), choices of numbers one with their places in
    order, other choices one each. What a point doesn't have, since its condition doesn't hold, is 0.

    Args:
        trials: between them they have every parameter that there is.
    """

    def __init__(self, trials: Iterable[FrozenTrial]):
        self._distributions: dict[str, BaseDistribution] = {}
        for trial in trials:
            self._distributions |= trial.distributions

    @property
    def lengths(self) -> Array:
        """The prior length of each column."""
        widths = {name: _columns(distribution) for name, distribution in self._distributions.items()}
        return np.array([_length(name) for name, width in widths.items() for _ in range(width)])

    def row(self, params: Mapping[str, Any]) -> list[float]:
        """One point, in Optuna's parameters."""
        found: list[float] = []
        for name, distribution in self._distributions.items():
            found += _encoded(params[name], distribution) if name in params else [0.0] * _columns(distribution)
        return found


def _length(name: str) -> float:
    setting = name.partition(" / ")[0]
    return next((length for part, length in reversed(LENGTHS.items()) if part in setting), PRIOR_LENGTH)


def _ordered(distribution: CategoricalDistribution) -> list[float] | None:
    """The choices in order, if all are numbers."""
    numbers = [choice for choice in distribution.choices if isinstance(choice, int | float)]
    is_numeric = len(numbers) == len(distribution.choices) and not any(isinstance(one, bool) for one in numbers)
    return sorted(map(float, numbers)) if is_numeric else None


def _columns(distribution: BaseDistribution) -> int:
    if isinstance(distribution, CategoricalDistribution) and _ordered(distribution) is None:
        return len(distribution.choices)
    return 1


def _encoded(value: Any, distribution: BaseDistribution) -> list[float]:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        low, high = float(distribution.low), float(distribution.high)
        if distribution.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return [(value - low) / (high - low) if high > low else 0.0]
    assert isinstance(distribution, CategoricalDistribution)
    if (order := _ordered(distribution)) is None:
        return [float(value == choice) for choice in distribution.choices]
    return [order.index(float(value)) / max(1, len(order) - 1)]
