"""Jobs on a cluster as raylora sees them: command lines, exit status, a log that is followed; without a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from raylora.errors import ConfigError, RayloraError
from raylora.execution import jobs
from raylora.execution.jobs import Order, command_of, follow, jobs_at, send, status_of, why_it_failed

WORDS = ["tune", "--out", "/shared/my out", "--address", "auto"]


def job(status: str = "SUCCEEDED", code: int | None = None, **more: Any) -> JobDetails:
    return JobDetails(type=JobType.SUBMISSION, status=JobStatus(status), driver_exit_code=code,
                      **{"entrypoint": "", **more})  # fmt: skip


@pytest.mark.parametrize("out", [Path("/shared/my out"), None])
def test_an_entrypoint_is_read_back_as_it_was_typed(out: Path | None) -> None:
    order = Order(WORDS, None, out, 0, {})
    assert order.entrypoint.startswith("exec python -m raylora")
    assert ("'/shared/my out' tune" in order.entrypoint) == (out is not None)
    assert command_of(job(entrypoint=order.entrypoint)) == "raylora tune --out '/shared/my out' --address auto"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 1, 1), ("FAILED", 2, 2), ("FAILED", 130, 130), ("FAILED", 137, 1),
     ("FAILED", None, 1), ("STOPPED", None, 130)],
)  # fmt: skip
def test_exit_status_is_the_commands(status: str, code: int | None, expected: int) -> None:
    assert status_of(job(status, code)) == expected


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        (2, "", ""),
        (127, "", "no `python`"),
        (137, "", "killed (status 137)"),
        (None, "a\nno such env\n", "no such env"),
    ],
)
def test_what_no_log_says_of_a_failure(code: int | None, message: str, told: str) -> None:
    found = why_it_failed(job("FAILED", code, message=message))
    assert (told in found) if told else found == ""


class Client:
    """A dashboard: a log that grows, told in pieces until the connection breaks."""

    def __init__(self, *pieces: list[str], statuses: list[str]):
        self.pieces, self.statuses, self.sent = list(pieces), statuses, dict[str, Any]()

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for piece in self.pieces.pop(0):
            if piece == "broken":
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield piece

    def get_job_info(self, job_id: str) -> JobDetails:
        return job(self.statuses.pop(0), 0)

    def submit_job(self, **order: Any) -> str:
        self.sent = order
        return "raysubmit_1"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "POLL_S", 0)


def test_a_log_is_written_once_though_the_connection_breaks() -> None:
    told: list[str] = []
    client: Any = Client(["one\ntw", "broken"], ["one\ntwo\n", "three\n"], statuses=["SUCCEEDED"])
    assert follow(client, "raysubmit_1", told.append) == 0
    assert "".join(told) == "one\ntwo\nthree\n"


def test_a_dashboard_that_stays_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LOST_S", -1)
    client: Any = Client(["broken"], statuses=[])
    with pytest.raises(RayloraError, match="raylora jobs logs raysubmit_1 --follow"):
        follow(client, "raysubmit_1", print)


def test_a_job_has_time_to_end_and_variables_are_taken_along(tmp_path: Path) -> None:
    client: Any = Client(statuses=[])
    send(client, Order(WORDS, tmp_path / "package.zip", None, 1, {"MLFLOW_TRACKING_TOKEN": "hush"}))
    assert client.sent["runtime_env"]["env_vars"] == {
        "RAY_JOB_STOP_WAIT_TIME_S": "120",
        "MLFLOW_TRACKING_TOKEN": "hush",
    }
    assert client.sent["runtime_env"]["working_dir"] == str(tmp_path / "package.zip")
    assert client.sent["entrypoint_num_gpus"] == 1
    send(client, Order(WORDS, None, None, 0, {}))
    assert "working_dir" not in client.sent["runtime_env"]
    assert client.sent["entrypoint_num_gpus"] is None  # what asks for nothing runs on the head


@pytest.mark.parametrize(
    ("address", "reason"),
    [("head:8265", "give the cluster's dashboard"), ("ray://head:10001", "give the cluster's dashboard"),
     ("http://127.0.0.1:1", "no Ray dashboard answers there.*port-forward")],
)  # fmt: skip
def test_an_address_where_no_dashboard_is(address: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason), jobs_at(address):
        pass
