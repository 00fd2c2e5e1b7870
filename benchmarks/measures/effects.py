"""Which settings moved the recorded trainings' ends, each alone, and by how much for certain.

The configurations are independent random draws of the demo's space, so a regression on all settings at once gives each
one's own effect, averaged over the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log2
from statistics import mean

import numpy as np

from benchmarks.common import Row
from benchmarks.measures.table import Training, by_configuration
from raylora.search.space import Params

OUTCOMES = ("score", "gap")
LION_SCALE = 10
"""Lion's rates are searched a tenth as high as AdamW's; by this they stand on one scale."""
MIDDLE_RATE, MIDDLE_RESTARTS = 1.6e-3, 4


def _is_lion(params: Params) -> bool:
    return bool(params["optimizer.name"] == "lion")


def _rate(params: Params) -> float:
    rate = params["optimizer.unet_lr"] * (LION_SCALE if _is_lion(params) else 1)
    return log2(rate / MIDDLE_RATE)


def _restarts_off_middle(params: Params) -> float:
    restarts = params.get("lr_scheduler.num_restarts")
    return 0.0 if restarts is None else float(restarts - MIDDLE_RESTARTS)


TERMS: Mapping[str, Callable[[Params], float]] = {
    "lion at a tenth of the rate, for adamw": _is_lion,
    "rates doubled": _rate,
    "text encoder's share of the rate doubled": lambda of: log2(
        of["optimizer.text_encoder_lr"] / of["optimizer.unet_lr"]
    ),
    "rank doubled, alpha with it": lambda of: log2(of["lora.rank"]),
    "alpha doubled, rank as it is": lambda of: log2(of["lora.alpha"] / of["lora.rank"]),
    "1,200 images for 600": lambda of: of["training.repeats"] > 2,
    "8 repeats for 4, both 1,200 images": lambda of: of["training.repeats"] > 4,
    "constant for cosine": lambda of: of["lr_scheduler.name"] == "constant",
    "4 restarts for none": lambda of: of["lr_scheduler.name"] == "cosine_with_restarts",
    "a restart more, from 3 to 5": _restarts_off_middle,
}
GROUPS: Mapping[str, Callable[[Params], bool]] = {
    "all": lambda _: True,
    "adamw, U-Net rate to 1.6e-3": lambda of: not _is_lion(of) and _rate(of) <= 0,
    "adamw, U-Net rate above": lambda of: not _is_lion(of) and _rate(of) > 0,
    "lion": _is_lion,
}
"""By settings and never by outcome: a choice of poor trainings would bend every effect among them."""


def effects(trainings: Sequence[Training]) -> list[Row]:
    """By group of configurations and setting: the effect on each outcome and its standard error."""
    rows: list[Row] = []
    for group, belongs in GROUPS.items():
        chosen = [members for members in by_configuration(trainings).values() if belongs(members[0].params)]
        terms = {name: term for name, term in TERMS.items() if group == "all" or term is not _is_lion}
        settings = [[float(term(members[0].params)) for term in terms.values()] for members in chosen]
        found = {
            outcome: regression(settings, [mean(one.end[outcome] for one in members) for members in chosen])
            for outcome in OUTCOMES
        }
        for place, name in enumerate(terms):
            row: Row = {"group": group, "configurations": len(chosen), "setting": name}
            for outcome, told in found.items():
                row |= {outcome: told[place][0], f"{outcome} se": told[place][1]}
            rows.append(row)
    return rows


def regression(settings: Sequence[Sequence[float]], outcomes: Sequence[float]) -> list[tuple[float, float]]:
    """Least squares with an intercept: each setting's effect and its standard error."""
    design = np.column_stack([np.ones(len(settings)), np.array(settings)])
    values = np.array(outcomes)
    slopes = np.linalg.lstsq(design, values)[0]
    left = values - design @ slopes
    noise = left @ left / (len(values) - design.shape[1])
    errors = np.sqrt(noise * np.diag(np.linalg.inv(design.T @ design)))
    return [(float(slope), float(error)) for slope, error in zip(slopes[1:], errors[1:], strict=True)]
