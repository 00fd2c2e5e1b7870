"""What a round hands to Tune and does once that is over; what Tune does with it, its integration tests see."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raylora.config import Experiment
from raylora.errors import WorkerLostError
from raylora.execution import listening, rounds
from raylora.execution.dead_nodes import Node
from raylora.execution.handing_out import ListSearcher
from raylora.execution.losing import LAST_FAULT
from raylora.execution.outputs import OutFolder
from raylora.execution.results import failure_in
from raylora.execution.rounds import run_round
from raylora.execution.share import Share
from raylora.execution.trial_job import TrialJob
from raylora.tracking.recorder import Listeners, TrialRecord

NCCL = "NCCL error in: ProcessGroupNCCL.cpp:77: socketStartConnect: Connect to 10.0.0.2 failed"

Fit = Callable[[Any, Any], None]
"""What Tune does with a round's listener and its trainable."""
Run = Callable[[Fit, int], list[TrialRecord]]
"""A round of trials with so many workers each."""


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    found = [Node("head", "10.0.0.1", is_alive=True), Node("other", "10.0.0.2", is_alive=True)]
    monkeypatch.setattr(listening, "nodes_of_ray", lambda: found)
    return found


@pytest.fixture
def run(tmp_path: Path, nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A round in which this is all that Tune does."""
    monkeypatch.setattr(rounds, "taking_turns", lambda trainable: trainable)
    monkeypatch.setattr(rounds.tune, "with_resources", lambda trainable, _: trainable)

    def call(fit: Fit, workers: int) -> list[TrialRecord]:
        def tuner(trainable: Any, run_config: Any, **_: Any) -> Any:
            return SimpleNamespace(fit=lambda: fit(run_config.callbacks[0], trainable))

        monkeypatch.setattr(rounds.tune, "Tuner", tuner)
        out, share = OutFolder(tmp_path), Share(1, 0.0, workers, 1)
        search: Any = SimpleNamespace(share=share, out=out, say=print, heard_by=Listeners([]))
        return run_round(search, TrialJob(out.root, Experiment(), threads=1), ListSearcher([]))

    return call


def trial_in(actor: Any) -> Any:
    return SimpleNamespace(
        config={"number": 3, "params": {}, "is_baseline": False},
        error_file=None,
        temporary_state=SimpleNamespace(ray_actor=actor),
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_trial_with_workers_elsewhere_is_not_asked_where_it_is_and_went_with_any_node(
    workers: int, run: Run, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a node of which Ray learns after the round's last trial."""
    asked: list[str] = []
    remote = SimpleNamespace(remote=lambda: asked.append("where"))

    def fit(listener: Any, _: Any) -> None:
        trial = trial_in(SimpleNamespace(get_current_ip_pid=remote))
        listener.on_trial_start(1, [trial], trial)
        listener.on_trial_recover(2, [trial], trial)
        nodes[1] = nodes[1]._replace(is_alive=False)

    (record,) = run(fit, workers)
    assert asked == ["where"] * (workers == 1)
    assert record.losses == ["node"]


@pytest.mark.parametrize(("images", "is_told"), [(16, True), (24, False)])
def test_what_a_device_said_before_a_trial_came_further_is_made_up_for(
    images: int, is_told: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(rounds.tune, "report", told.append)

    def train(config: dict[str, Any], job: TrialJob, report: Callable[[dict[str, Any]], None]) -> None:
        report({"images_seen": images, "best_score": 0.5})
        raise RuntimeError(NCCL)

    monkeypatch.setattr("raylora.execution.trial.run_trial_here", train)

    def fit(_: Any, trainable: Any) -> None:
        with nullcontext() if is_told else pytest.raises(WorkerLostError):
            trainable({LAST_FAULT: (f"RuntimeError: {NCCL}", 2), "went_on_at": 16})

    run(fit, 1)
    assert [failure_in(report) is not None for report in told] == [False, *[True] * is_told]
