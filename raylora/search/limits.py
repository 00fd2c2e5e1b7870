"""Limits on what a trial may cost: which it broke, in words, and by how much, for the searcher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.config import LimitsConfig

COSTS = tuple(LimitsConfig.model_fields)
"""What reports call the costs that can be limited."""
Costs = Mapping[str, Any]
"""A report, or any other mapping with some of `COSTS` in it."""


def costs_of(report: Costs) -> dict[str, float]:
    """The costs alone."""
    return {name: float(report[name]) for name in COSTS if name in report}


def over_limits(limits: LimitsConfig, report: Costs) -> dict[str, float]:
    """The costs that are over their limits."""
    given = limits.model_dump(exclude_none=True)
    return {name: value for name, value in costs_of(report).items() if name in given and value > given[name]}


def in_words(limits: LimitsConfig, over: Mapping[str, float]) -> str:
    """Costs beside the limits that they are over: `train_s 912 > 600`."""
    return ", ".join(f"{name} {value:.4g} > {getattr(limits, name):g}" for name, value in over.items())


def excess(limits: LimitsConfig, report: Costs) -> float:
    """How far the costs are over the limits, as shares of these, added up; 0 where all are kept."""
    return sum((value / float(getattr(limits, name)) - 1 for name, value in over_limits(limits, report).items()), 0.0)
