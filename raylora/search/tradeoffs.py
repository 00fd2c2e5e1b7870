"""The Pareto front: the trials that no other beats in everything that counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raylora.config_search import HIGHER_IS_BETTER

Point = Mapping[str, float]
"""A trial's measures by name."""


def pareto_front(points: Mapping[str, Point], measures: Sequence[str]) -> list[str]:
    """The names of the points that none dominates, the best in the first measure first.

    One point dominates another if it is nowhere worse and somewhere better. Points that lack a measure don't count;
    equal ones all stay.

    Args:
        measures: what counts, of `HIGHER_IS_BETTER`.
    """
    gains = {
        name: tuple(point[measure] if HIGHER_IS_BETTER[measure] else -point[measure] for measure in measures)
        for name, point in points.items()
        if all(measure in point for measure in measures)
    }
    front = [name for name, gain in gains.items() if not any(_dominates(other, gain) for other in gains.values())]
    return sorted(front, key=lambda name: gains[name], reverse=True)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
