"""What is said of work that doesn't start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raylora.execution import waiting
from raylora.execution.share import Share
from raylora.execution.waiting import Patience, WaitingListener, needs_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _cpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "node_resources", lambda: [{"CPU": 4.0}])


def round_of(clock: Clock, share: Share) -> tuple[WaitingListener, list[str]]:
    told: list[str] = []
    return WaitingListener(Patience(needs_of(share), told.append, clock), clock), told


def steps(listener: WaitingListener, clock: Clock, until: float, *states: str) -> None:
    trials: list[Any] = [SimpleNamespace(status=state) for state in states]
    while clock.now < until:
        clock.now += 1
        listener.on_step_begin(0, trials)


def test_a_node_that_does_not_come_is_named_after_a_while_and_now_and_again(clock: Clock) -> None:
    listener, told = round_of(clock, Share(4, 1.0, 1, 1))
    steps(listener, clock, 20, "PENDING")
    assert told == []
    steps(listener, clock, 500, "PENDING")
    assert told == ["Waiting for a node with 1 GPU and 4 CPU cores: the cluster has none yet …"]
    steps(listener, clock, 700, "PENDING", "TERMINATED")
    assert told[1:] == [
        "Waiting for a node with 1 GPU and 4 CPU cores: the cluster has none yet, for 11 minutes by now …"
    ]


def test_nothing_is_said_while_a_trial_runs_or_none_is_to(clock: Clock) -> None:
    listener, told = round_of(clock, Share(1, 1.0, 1, 2))
    steps(listener, clock, 100, "RUNNING", "PENDING")
    steps(listener, clock, 200, "TERMINATED")
    steps(listener, clock, 220, "PENDING")  # the next trial has its own while
    assert told == []


def test_what_trials_have_to_say_is_said_once_also_while_they_run(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = ["a machine is about to go"]
    monkeypatch.setattr(waiting, "collect_notes", lambda: [left.pop()] if left else [])
    listener, told = round_of(clock, Share(1, 1.0, 1, 2))
    steps(listener, clock, 20, "RUNNING")
    assert told == ["a machine is about to go"]


def test_room_that_others_take_is_told_as_such(clock: Clock) -> None:
    listener, told = round_of(clock, Share(2, 0.0, 1, 1))
    steps(listener, clock, 100, "PENDING")
    assert told == ["Waiting for 2 CPU cores: none are free …"]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (Share(4, 0.5, 1, 2), {"CPU": 4, "GPU": 0.5}),
        (Share(4, 2.0, 2, 1), {"CPU": 4, "GPU": 1}),
        (Share(1, 0.0, 2, 1), {"CPU": 1, "GPU": 0}),
    ],
)
def test_needs_are_those_of_a_worker(share: Share, expected: dict[str, float]) -> None:
    assert needs_of(share) == expected
