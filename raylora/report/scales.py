"""Where a value stands on an axis, and what is written beside the axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylora.config import shown
from raylora.report.words import typeset

Number = float | int
MARGIN = 0.06
"""Of an axis that is free to choose its ends, beyond the lowest and the highest value."""
FEWEST_TICKS, MOST_TICKS = 2, 5
SPANS_DECADES = 20.0
"""Highest over lowest value from which on numbers are laid out by their logarithms, where nobody says how."""
FEW_DECADES = 1.6
"""Below, a logarithmic axis has ticks at 2 and 5 too."""
MOST_LEVELS = 6
"""So few numbers, each of several trials, stand in a row like texts."""
TINY, HUGE = 1e-3, 1e5
"""Numbers beyond them are written with an exponent."""


@dataclass(frozen=True)
class Tick:
    """What is written at a place of an axis, 0 to 1."""

    place: float
    label: str


@dataclass(frozen=True)
class Scale:
    """An axis: numbers between two ends, by their logarithms where `is_log`, or levels in a row."""

    low: float
    high: float
    is_log: bool = False
    levels: tuple[str, ...] = ()
    is_whole: bool = False
    """Whether there is nothing between two whole numbers."""

    def place(self, value: Any) -> float | None:
        """0 to 1, the ends for what lies beyond; None of what has no place."""
        if self.levels:
            return self._level_place(shown(value)) if shown(value) in self.levels else None
        if not is_number(value) or math.isnan(value) or (self.is_log and value <= 0):
            return None
        low, high, at = (self._laid(number) for number in (self.low, self.high, value))
        return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5

    def _level_place(self, level: str) -> float:
        return (self.levels.index(level) + 0.5) / len(self.levels)

    def _laid(self, value: float) -> float:
        return math.log10(value) if self.is_log else value

    @property
    def ticks(self) -> list[Tick]:
        if self.levels:
            return [Tick(self._level_place(level), level) for level in self.levels]
        chosen = _decades(self.low, self.high) if self.is_log else []
        if len(chosen) < FEWEST_TICKS:
            chosen = _round_steps(self.low, self.high)
        told = [at for at in chosen if not self.is_whole or at == int(at)]
        return [Tick(place, tick_label(at)) for at in told if (place := self.place(at)) is not None]


def is_number(value: Any) -> bool:
    """Whether it is one that has a place between others; not true, false or a text."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def free(values: Iterable[float], *more: float) -> Scale:
    """An axis of numbers whose ends follow from them, with some room beyond.

    Args:
        more: what shall be on it besides, such as a base line.
    """
    finite = [value for value in (*values, *more) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = MARGIN * (high - low) or max(abs(high) * MARGIN, 1e-9)
    return Scale(low - room, high + room)


def fence_of(values: Iterable[float]) -> float:
    """Tukey's lower fence: one diverged trial below it would flatten all others. -inf of fewer than four values."""
    finite = sorted(value for value in values if math.isfinite(value))
    if len(finite) < 4:
        return -math.inf
    first, third = finite[len(finite) // 4], finite[(3 * len(finite)) // 4]
    return first - 1.5 * (third - first)


def fenced(values: Iterable[float], higher_is_better: bool = True) -> Scale:
    """An axis like `free`, where what lies beyond Tukey's fence, on the worse side, stands at that end."""
    sign = 1 if higher_is_better else -1
    better = [sign * value for value in values]
    fence = fence_of(better)
    return free([sign * value for value in better if value >= fence])


def of_setting(values: Sequence[Any], parameter: Mapping[str, Any]) -> Scale:
    """The axis of a searched setting.

    Args:
        values: of the trials that have it.
        parameter: as the search space has it; `low`, `high` and `log`, or `choices`.
    """
    numbers = [float(value) for value in values if is_number(value)]
    few = len(set(numbers)) <= MOST_LEVELS and 2 * len(set(numbers)) <= len(numbers)
    if len(numbers) < len(values) or not numbers or few or "choices" in parameter:
        return Scale(0, 1, levels=levels_of(values))
    low, high = min(numbers), max(numbers)
    is_log = bool(parameter.get("log")) or (low > 0 and high / low >= SPANS_DECADES)
    if is_log and low > 0:
        return Scale(low / 1.15, high * 1.15, is_log=True)
    return free(numbers)


def levels_of(values: Sequence[Any]) -> tuple[str, ...]:
    """Each value once: numbers by size, then texts."""
    by_size = sorted(values, key=lambda value: (not is_number(value), value if is_number(value) else 0, shown(value)))
    return tuple(dict.fromkeys(map(shown, by_size)))


def _round_steps(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, at most `MOST_TICKS` of them."""
    rough = (high - low) / MOST_TICKS
    if rough <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(at * step, 12) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    spans = math.log10(high / low)
    factors = (1, 2, 5) if spans < FEW_DECADES else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]


def tick_label(value: float) -> str:
    """`0`, `0.25`, `1,200`, `1e-4`."""
    size = abs(value)
    if size and not TINY <= size < HUGE:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return typeset(f"{value:,.6g}" if size < 1000 else f"{value:,.0f}")
