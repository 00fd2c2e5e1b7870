"""What a page takes from `summary.json`: whether all of it is of its kind, before anything is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from raylora.files import read_mapping


class _Part(BaseModel):
    """A part of a summary; what it has beyond these names is left alone."""

    model_config = ConfigDict(strict=True, frozen=True)


class _NewSeeds(_Part):
    new_seed_scores: list[float] = []
    spread: float | None = None
    failed_seeds: int = 0


class _Confirmed(_NewSeeds):
    trial_id: str
    score: float
    selection_score: float


class _Entry(_NewSeeds):
    trial_id: str
    score: float | None
    """Null of a training without held-out images."""
    params: dict[str, Any]
    metrics: dict[str, float]


class _Best(_Entry):
    verdict: str
    evidence: str
    strength: float = 1.0
    strength_scores: dict[str, float] = {}


class _Baseline(_Entry):
    score: float
    over_limits: str = ""


class _Count(_Part):
    total: int


class _OnFront(_Part):
    trial_id: str


class _Tradeoffs(_Part):
    trials: list[_OnFront]


class _Importance(_Part):
    setting: str
    verdict: str
    share: float | None
    low: float
    high: float
    best: str = ""


class _Summary(_Part):
    best: _Best
    baseline: _Baseline | None = None
    confirmed: list[_Confirmed] = []
    refit: bool | None = None
    trials: _Count
    tradeoffs: _Tradeoffs = _Tradeoffs(trials=[])
    importance: list[_Importance] = []
    images_seen: int
    wall_s: float = 0.0


def read_summary(path: Path) -> dict[str, Any]:
    """The summary as it lies there.

    Raises:
        OSError: it can't be read.
        ValueError: it is none, or something that the page makes use of is of another kind.
    """
    summary = read_mapping(path)
    _Summary.model_validate(summary)
    for strength in summary["best"].get("strength_scores", {}):
        float(strength)
    return summary
