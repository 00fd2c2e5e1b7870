"""Searchers for Ray Tune: which trial comes next, and again when Tune has ended it for a lost worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher

from raylora.execution.results import METRIC, MODE


class ListSearcher(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Hands out the given configurations, in their order, and once more what Tune ends for a lost worker.

    Tune begins such a trial again by itself, but for one whose worker dies just as it is handed to it: that one it
    ends, and it has to come back as another trial of Tune's (Ray 2.60: `TuneController._process_trial_failure` is
    called twice then, and finds it pending). So a searcher has finished only when all have ended.

    Attributes:
        given_up: numbers of trials that failed for good, which the round's listener writes down before their end.
    """

    def __init__(self, configs: Sequence[dict[str, Any]]):
        super().__init__(metric=METRIC, mode=MODE)
        self.given_up: set[int] = set()
        self._waiting = list(configs)
        self._under_way: dict[str, dict[str, Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        config = self._next()
        if config is None:
            return None if self._under_way else str(Searcher.FINISHED)
        self._under_way[trial_id] = config
        return config

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        config = self._under_way.pop(trial_id, None)
        if config is None:
            return
        if error and config["number"] not in self.given_up:
            self._waiting.insert(0, config)
        else:
            self._ended(config["number"], result or {}, error)

    def _next(self) -> dict[str, Any] | None:
        return self._waiting.pop(0) if self._waiting else None

    def _ended(self, number: int, result: dict[str, Any], error: bool) -> None:
        """For searchers that learn from it."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its parts to restore them; what a search goes on from is its study and its records."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do, as above."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do, as above."""
