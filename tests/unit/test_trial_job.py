"""What a trial may use of its machine's cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from raylora.config import Experiment
from raylora.execution.trial_job import TrialJob


@pytest.mark.parametrize(
    ("told", "threads"), [(None, 4), ("2", 2), ("8", 4), ("3,2", 3), ("0", 4), ("", 4), ("many", 4)]
)
def test_threads_are_the_trials_share_and_no_more_than_the_environment_says(
    told: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert TrialJob(Path("out"), Experiment(), threads=4).threads_here == threads
