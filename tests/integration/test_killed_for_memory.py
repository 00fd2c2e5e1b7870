"""A trial whose process Ray kills since its node runs low on memory, on a real Ray that is made to think so early."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray._private.utils import get_system_memory, get_used_memory

from raylora.execution import rounds
from raylora.execution.cluster import connected
from raylora.execution.handing_out import ListSearcher
from raylora.execution.results import as_result
from raylora.execution.rounds import run_round
from raylora.execution.trial_job import HALVED
from raylora.execution.underway import Search

LEFT_BYTES, TAKEN_BYTES = 2**30, 2**31
"""What others may take meanwhile, and what the trial takes."""


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    threshold = (get_used_memory() + LEFT_BYTES) / get_system_memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_memory_usage_threshold", f"{threshold:.4f}")
        with connected(None, with_state_api=False):
            yield


def test_a_trial_that_is_killed_for_memory_goes_on_with_half_the_images(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune would break the search off."""
    begun = tmp_path / "begun"

    def greedy(search: Search, job: object) -> Any:
        def trainable(config: dict[str, Any]) -> None:
            if not begun.exists():
                begun.touch()
                taken = bytearray(TAKEN_BYTES)
                time.sleep(60 + taken[0])
            report = {"best_score": 0.5, "score": 0.5, "images_seen": 8, "is_finished": True, "train_losses": []}
            tune.report(as_result({**report, "stop_reason": None, "is_over": HALVED in config}))

        return tune.with_resources(trainable, {"cpu": 1})

    monkeypatch.setattr(rounds, "_trainable", greedy)
    config = {"number": 0, "params": {}, "is_baseline": False, "went_on_at": 0}
    (record,) = run_round(search, search.trial_job(), ListSearcher([config]))
    assert (record.status, set(record.losses)) == ("finished", {"memory"})
    assert record.last and record.last["is_over"]
