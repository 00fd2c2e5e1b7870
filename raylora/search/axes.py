"""Searched settings, their values laid out on 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

Array = npt.NDArray[np.float64]
GRID = 8
"""Values of a range that are told apart; one of fewer whole numbers is taken for these."""


@dataclass(frozen=True)
class Axis:
    """A searched setting, its values laid out on 0 to 1: a range by its scale, choices at equal distances."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    levels: tuple[Any, ...] | None = None

    def place(self, trial: FrozenTrial) -> float:
        """Where the trial's value lies; NaN where it was not searched."""
        if self.name not in trial.params:
            return math.nan
        value = trial.params[self.name]
        if self.levels is not None:
            return self.levels.index(value) / max(1, len(self.levels) - 1)
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (at - low) / (high - low)

    @property
    def is_ordered(self) -> bool:
        """Whether places tell which value is the greater."""
        return self.levels is None or all(isinstance(level, int | float) for level in self.levels)

    @property
    def grid(self) -> Array:
        """All levels, or the middles of equal parts of a range."""
        return (np.arange(GRID) + 0.5) / GRID if self.levels is None else np.linspace(0, 1, len(self.levels))

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Random places, uniform over the setting's values."""
        return rng.random(count) if self.levels is None else rng.choice(self.grid, count)


def axes_of(trials: Sequence[FrozenTrial]) -> list[Axis]:
    """The settings that the trials searched, in order of appearance; not those with one possible value."""
    seen: dict[str, list[BaseDistribution]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            seen.setdefault(name, []).append(distribution)
    return [_axis(name, seen[name], trials) for name in seen if not all(one.single() for one in seen[name])]


def _axis(name: str, distributions: Sequence[BaseDistribution], trials: Sequence[FrozenTrial]) -> Axis:
    """A function of a user's may change a setting's bounds from trial to trial, and even its kind."""
    ranges = [one for one in distributions if isinstance(one, FloatDistribution | IntDistribution)]
    choices = [choice for one in distributions if isinstance(one, CategoricalDistribution) for choice in one.choices]
    if ranges and not choices:
        low, high = min(one.low for one in ranges), max(one.high for one in ranges)
        if not (all(isinstance(one, IntDistribution) for one in ranges) and high - low < GRID):
            return Axis(name, low, high, log=all(one.log for one in ranges))
    levels = tuple(dict.fromkeys([*choices, *(trial.params[name] for trial in trials if name in trial.params)]))
    axis = Axis(name, levels=levels)
    return replace(axis, levels=tuple(sorted(levels))) if axis.is_ordered else axis
