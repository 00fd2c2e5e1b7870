"""A cluster of one's own on a machine that is so busy that Ray gives up on its own node."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.authentication.authentication_token_setup import generate_and_save_token
from ray._private.node import Node

from raylora.errors import RayloraError
from raylora.execution.cluster import QUIET, connected, keep_quiet
from tests.ray_starts import failing_starts

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup"
SLOW_HEAD = "Timed out waiting for file /tmp/ray/session/gcs_server_port_0"
SLOW_DASHBOARD = "The last 20 lines of /tmp/ray/dashboard.log (it contains the error message): \nno port"
SILENT_DASHBOARD = "Failed to read dashboard.err file: cannot mmap an empty file. It is unexpected."


def test_nothing_is_left_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose processes run already where Ray gives it up."""
    ended: list[bool] = []

    class Slow(Node):
        def __init__(self) -> None:
            raise Exception(SLOW)

        def kill_all_processes(self, check_alive: bool = True, allow_graceful: bool = False, **_: Any) -> None:
            ended.append(allow_graceful)

    monkeypatch.setattr(ray, "init", lambda **_: Slow())
    with pytest.raises(RayloraError), connected(None, with_state_api=False):
        pass
    assert ended == [True, True]


@pytest.mark.parametrize("error", [SLOW, SLOW_HEAD, SLOW_DASHBOARD, SILENT_DASHBOARD])
def test_it_is_started_once_more(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing_starts([Exception(error)], monkeypatch)
    with connected(None, with_state_api=True):
        assert len(asked) == 2
    assert asked[0] == asked[1] and asked[0]["dashboard_host"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("error", "tries", "told"),
    [
        (SLOW, 2, f"{SLOW}; try again once less runs beside it$"),
        (SLOW_DASHBOARD, 2, ": .* … no port; try again"),
        ("no room in /dev/shm", 1, "no room in /dev/shm$"),
    ],
)
def test_then_it_is_told(error: str, tries: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing_starts([Exception(error)] * 2, monkeypatch)
    with (
        pytest.raises(RayloraError, match=f"Ray can't be started on this machine: .*{told}"),
        connected(None, with_state_api=False),
    ):
        raise AssertionError("it began")
    assert len(asked) == tries


@pytest.mark.parametrize("address", [None, "127.0.0.1:6379"])
@pytest.mark.parametrize("error", [None, Exception("no room in /dev/shm"), KeyboardInterrupt()])
def test_what_ends_a_program_from_outside_stays_as_it_was(
    address: str | None, error: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes of the start, as Ray has put its own handler there."""
    before = signal.getsignal(signal.SIGTERM)

    def init(**_: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        if error:
            raise error

    monkeypatch.setattr(ray, "init", init)
    try:
        with suppress(RayloraError, KeyboardInterrupt), connected(address, with_state_api=False):
            pass
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("there", [None, "", "a token of Ray's own"])
def test_the_token_is_its_owners_alone_before_ray_writes_it(
    there: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whatever comes of the start."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # which is none to Ray
    file = tmp_path / ".ray" / "auth_token"
    if there is not None:
        file.parent.mkdir()
        file.write_text(there)
        file.chmod(0o644)
    found: list[tuple[int, str]] = []

    def init(**_: Any) -> None:
        found.append((file.stat().st_mode & 0o777, file.read_text()))
        generate_and_save_token()
        found.append((file.stat().st_mode & 0o777, ""))
        raise Exception("no room in /dev/shm")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RayloraError), connected(None, with_state_api=False):
        pass
    assert found == [(0o600, there or ""), (0o600, "")]


@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "a" * 64)])
def test_a_cluster_that_reads_no_token_gets_no_file_for_one(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    with connected(None, with_state_api=False):
        assert not list(tmp_path.iterdir())


def test_ray_is_kept_quiet_but_for_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RAY_AIR_NEW_OUTPUT": "1"}
    monkeypatch.setattr(os, "environ", environment)
    keep_quiet()
    assert environment == QUIET | {"RAY_AIR_NEW_OUTPUT": "1"}
