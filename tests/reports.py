"""Reports of trials that nobody trained, as Tune would hear them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.execution.results import as_result


def same_length(params: Mapping[str, Any]) -> int:
    """Images of any training."""
    return 1200


def result(images_seen: int, best_score: float, is_over: bool = False, **more: Any) -> dict[str, Any]:
    """A report of a trial whose latest score is its best, and all of it by the held-out loss."""
    report = {
        "images_seen": images_seen,
        "score": best_score,
        "best_score": best_score,
        "is_over": is_over,
        "train_s": images_seen / 100,
        "holdout_loss_ratio": 1 - best_score / 20,
        "image_scores": [best_score - 0.1, best_score + 0.1],
        **more,
    }
    return as_result(report)
