"""What becomes of a trial's work that fails: told, tried again with less at once, or left to Tune."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from ray.exceptions import RayActorError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError

from raylora.diffusion.memory import enough_memory
from raylora.errors import RayloraError, StorageError, TrainingDivergedError, WorkerLostError
from raylora.execution.attempt import attempt, halving, making_up, reason_of_failure
from raylora.execution.losing import LAST_FAULT, cause_of_loss, words_of_loss
from raylora.execution.results import BREAKS_OFF, FAILED, as_result, failure_in
from raylora.execution.trial_job import HALVED
from raylora.execution.workers import most_telling

FULL = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
CLOSED = RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711")


NCCL = "RuntimeError: NCCL error in: ProcessGroupNCCL.cpp:77: socketStartConnect: Connect to 10.0.0.{} failed"


def raising(*errors: Exception | None) -> Callable[[dict[str, Any]], None]:
    """Work that meets these, one at each try."""
    left = list(errors)

    def work(config: dict[str, Any]) -> None:
        error = left.pop(0)
        if error is not None:
            raise error

    return work


def told_of(*errors: Exception | None) -> dict[str, Any]:
    """The report of a trial that fails with these."""
    told: list[dict[str, Any]] = []
    attempt({}, raising(*errors), told.append)
    (report,) = told
    assert failure_in(as_result(report)) == report
    return report


@pytest.mark.parametrize(
    ("error", "reason", "breaks_off"),
    [
        (TrainingDivergedError("the loss is no number"), "diverged: the loss is no number", False),
        (ValueError("one\ntwo"), "ValueError: one two", False),
        (FileNotFoundError(errno.ENOENT, "x", "/a/b"), "No such file or directory: /a/b", False),
        (StorageError("s3://a is full"), "s3://a is full", True),
    ],
)
def test_a_failure_of_the_work_is_its_trials_last_report(error: Exception, reason: str, breaks_off: bool) -> None:
    report = told_of(error)
    assert (report[FAILED], report[BREAKS_OFF]) == (reason, breaks_off)


def test_a_full_disk_stops_the_search_and_says_where() -> None:
    report = told_of(OSError(errno.ENOSPC, "full", "/a/b"))
    assert report[FAILED].startswith("No space left on device: /a/b; free some space (on ")
    assert report[BREAKS_OFF]


@pytest.mark.parametrize(
    "error", [WorkerLostError("gone"), torch.distributed.DistNetworkError("reset"), CLOSED,
              RuntimeError("CUDA error: an illegal memory access was encountered")],
)  # fmt: skip
def test_what_is_no_fault_of_the_work_is_left_to_tune(error: Exception) -> None:
    with pytest.raises(WorkerLostError):
        attempt({}, raising(error), print)


@pytest.mark.parametrize(
    ("words", "times", "is_told"),
    [
        (NCCL.format(3), 2, True),  # a number makes no other fault
        (NCCL.format(2), 1, False),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", 2, False),
    ],
)
def test_a_device_that_says_the_same_a_third_time_ends_its_trial(words: str, times: int, is_told: bool) -> None:
    told: list[dict[str, Any]] = []
    error = RuntimeError(NCCL.format(2).removeprefix("RuntimeError: "))
    with nullcontext() if is_told else pytest.raises(WorkerLostError):
        attempt({LAST_FAULT: (words, times)}, raising(error), told.append)
    assert [report[FAILED] for report in told] == [f"{NCCL.format(2)} (3 times in a row)"] * is_told


def test_long_words_are_the_same_however_long_their_numbers() -> None:
    told: list[dict[str, Any]] = []
    before, now = (f"CUDA error at port {port}: {'x' * 400}" for port in (7, 65535))
    attempt({LAST_FAULT: (words_of_loss(f"RuntimeError: {before}"), 2)}, raising(RuntimeError(now)), told.append)
    assert len(told) == 1


def test_what_a_peer_of_several_workers_says_is_no_fault_of_a_device() -> None:
    """Its node may have gone with it, and the trial goes on elsewhere."""
    with pytest.raises(WorkerLostError):
        attempt({LAST_FAULT: (NCCL.format(2), 8)}, raising(WorkerLostError(NCCL.format(2))), print)


@pytest.mark.parametrize(("images", "is_told"), [(16, True), (24, False)])
def test_a_report_that_is_further_makes_up_for_what_a_device_said_before(images: int, is_told: bool) -> None:
    told: list[dict[str, Any]] = []
    config = {LAST_FAULT: (NCCL.format(2), 2), "went_on_at": 16}

    def work(_: dict[str, Any]) -> None:
        making_up(config, told.append)({"images_seen": images})
        raise RuntimeError(NCCL.format(2).removeprefix("RuntimeError: "))

    with nullcontext() if is_told else pytest.raises(WorkerLostError):
        attempt(config, work, told.append)
    assert [report[FAILED] for report in told[1:]] == [f"{NCCL.format(2)} (3 times in a row)"] * is_told


@pytest.mark.parametrize("error", [WorkerLostError("gone"), torch.distributed.DistNetworkError("reset")])
def test_other_losses_are_left_to_tune_however_often_they_come(error: Exception) -> None:
    with pytest.raises(WorkerLostError):
        attempt({LAST_FAULT: (reason_of_failure(error), 8)}, raising(error), print)


@pytest.mark.parametrize("error", [FULL, MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't …")])
def test_out_of_memory_is_tried_once_more_with_half_the_images_at_once(error: Exception) -> None:
    seen: list[dict[str, Any]] = []
    work = raising(error, None)
    halving({"number": 3}, lambda config: (seen.append(config), work(config))[-1])
    assert seen == [{"number": 3}, {"number": 3, HALVED: True}]
    with pytest.raises(RayloraError, match=r"out of .*memory; lower training\.batch_size .*too many, too"):
        halving({}, raising(error, error))
    with pytest.raises(RayloraError, match="too many, too"):
        halving({HALVED: True}, raising(error))
    assert "too many, too" in told_of(error, error)[FAILED]
    assert told_of(error, ValueError("other"))[FAILED] == "ValueError: other"


def test_the_first_try_holds_no_memory_at_the_second() -> None:
    """An error's traceback holds whatever the work held."""
    held: list[Any] = []

    class Large:
        def __init__(self) -> None:
            held.append(1)

        def __del__(self) -> None:
            held.clear()

    def work(config: dict[str, Any]) -> None:
        if config.get(HALVED):
            assert not held
            return
        large = Large()
        raise torch.OutOfMemoryError(f"no room for {type(large).__name__}")

    halving({}, work)


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ([CLOSED, TrainingDivergedError("no number")], "no number"),
        ([CLOSED, FULL], "CUDA out of memory"),
        ([ValueError("wrong"), ValueError("wrong")], "wrong"),
        ([CLOSED, OSError(errno.ENOSPC, "full")], "full"),
    ],
)
def test_of_several_workers_the_one_that_failed_tells_why(failures: list[Exception], told: str) -> None:
    assert told in str(most_telling(WorkerGroupError("all", dict(enumerate(failures)))))


WITH_NODE = "The actor is dead because its node has died. Node Id: 3c1f"


@pytest.mark.parametrize(
    ("failures", "words", "cause"),
    [
        ([CLOSED], "RuntimeError: [../gloo/transport/tcp/pair.cc:547] Connection closed by peer", "worker"),
        ([], "all", "worker"),
        ([CLOSED, ValueError("seen by the other")], "Connection closed by peer", "worker"),
        ([CLOSED, RayActorError(error_msg=f"The actor died unexpectedly.\n\tpid: 7\n{WITH_NODE}")], WITH_NODE, "node"),
        (
            [CLOSED, WorkerHealthCheckTimeoutError("A worker is silent.\nSet a variable.")],
            "lost: A worker is silent.",
            "worker",
        ),
    ],
)
def test_of_several_workers_one_is_lost(failures: list[Exception], words: str, cause: str) -> None:
    """What is said of it tells whether its node went too."""
    lost = most_telling(WorkerGroupError("all", dict(enumerate(failures))))
    assert isinstance(lost, WorkerLostError)
    assert words in str(lost)
    assert cause_of_loss(str(lost)) == cause


@pytest.mark.parametrize("error", [FULL, MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't")])
def test_memory_that_runs_out_is_told_in_one_message(error: Exception) -> None:
    with (
        pytest.raises(RayloraError, match="out of memory as it is tried; use less"),
        enough_memory("as it is tried", "use less"),
    ):
        raise error
    with pytest.raises(KeyError), enough_memory("as it is tried", "use less"):
        raise KeyError
