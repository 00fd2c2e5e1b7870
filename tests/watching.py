"""What a search asks of Optuna, seen from outside."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.samplers import TPESampler


def watch_tpe(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each proposal from now on, whether TPE learned it or it was drawn at random."""
    learned: list[bool] = []

    class Watched(TPESampler):
        def sample_relative(self, *asked: Any) -> dict[str, Any]:
            params = super().sample_relative(*asked)
            learned.append(bool(params))
            return params

    monkeypatch.setattr("raylora.search.study.TPESampler", Watched)
    return learned
