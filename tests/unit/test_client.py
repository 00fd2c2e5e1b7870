"""A command on a cluster's head, and what may be wrong with the way there; without a cluster."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from raylora import __version__
from raylora.errors import ConfigError, RayloraError
from raylora.execution import client
from raylora.execution.client import run_on_head
from raylora.execution.errand import Errand, Heard
from tests.ray_starts import failing_starts


@pytest.fixture
def address() -> Iterator[str]:
    """Where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"ray://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError("Version mismatch: the cluster has\n Ray: 2.9.0\n Python: 3.12"),
            "Ray: 2.9.0 Python.*install the",
        ),
        (ConnectionError("ray client connection timeout"), "no Ray Client server answers there.*by default 10001"),
        (
            ConnectionAbortedError(
                "Initialization failure from server:\nCall to `ray.init()` failed\nVersion mismatch: 2.9.0"
            ),
            "server: Call to .* failed Version mismatch: 2.9.0; install the",
        ),
        (
            ConnectionAbortedError("Initialization failure from server:\nin /versions/3.11\nRuntimeError: no space"),
            r"the cluster's head takes no client \(Initial.* server: … RuntimeError: no space\); mend that there$",
        ),
    ],
)
def test_why_there_is_no_connection(error: Exception, told: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_starts([error], monkeypatch)
    with pytest.raises(ConfigError, match=f"--address {address}: .*{told}"):
        run_on_head(address, ["resume", "/out"], "go on")


FALLEN = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 766, in Datapath
RuntimeError: Starting Ray client server failed. See ray_client_server_23007.err for detailed logs."""
GONE = "Initialization failure from server:\npsutil.NoSuchProcess: process PID not found (pid=23007)"
NOT_FOUND = "Initialization failure from server:\nRuntimeError: Proxy failed to Connect to backend!"


@pytest.mark.parametrize(("falls", "asked"), [([], 1), ([FALLEN], 2), ([GONE], 2), ([NOT_FOUND, FALLEN], 3)])
def test_a_head_that_fails_to_start_it_is_asked_again(
    falls: list[str], asked: int, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = failing_starts([ConnectionAbortedError(fall) for fall in falls], monkeypatch)
    with client._connected(address):
        assert len(calls) == asked
    assert capsys.readouterr().err.count("it is asked again\n") == len(falls)


def test_one_that_never_starts_it_is_told_with_the_cause(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = failing_starts([ConnectionAbortedError(FALLEN)] * 9, monkeypatch)
    with pytest.raises(RayloraError, match=r"can't be started on the cluster's head .*23007\.err.*; try again") as told:
        run_on_head(address, ["resume", "/out"], "go on")
    assert (len(calls), told.value.exit_status) == (3, 1)


@pytest.mark.parametrize("wrong", ["ray://head", "ray://:10001", "ray://127.0.0.1:1"])
def test_an_address_where_nobody_is(wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"--address '?{wrong}'?: "):
        run_on_head(wrong, ["resume", "/out"], "go on")


@pytest.mark.parametrize(("there", "told"), [("", "no raylora"), ("0.0.1", "raylora 0.0.1")])
def test_the_same_raylora_must_be_there(there: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Remote:
        def remote(self, *_: object) -> None:
            """Nowhere."""

    monkeypatch.setattr(client, "_on_head", lambda _: Remote())
    monkeypatch.setattr(ray, "get", lambda _: there)
    with pytest.raises(ConfigError, match=f"there is {told} on the head, and {__version__} here"):
        client._check_versions("ray://head:10001")
    assert client._version_there()() == __version__


def heard_of(errand: Errand) -> tuple[bytes, bytes, int]:
    out = err = b""
    while True:
        heard = errand.listen(5)
        out, err = out + heard.out, err + heard.err
        if heard.status is not None:
            return out, err, heard.status


def test_an_errand_says_what_its_command_says_and_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    errand = Errand(["--version"], {})
    assert heard_of(errand) == (f"raylora {__version__}\n".encode(), b"", 0)
    errand.clear()
    errand = Errand(["resume", "/nowhere"], {})
    _, err, status = heard_of(errand)
    assert (status, b"there is no such folder" in err) == (2, True)
    errand.clear()


class Failing:
    """An errand that loses its connection after a word of two bytes that comes in two parts."""

    def __init__(self) -> None:
        self.words: list[Any] = [Heard("é".encode()[:1], b"", None), Heard("é".encode()[1:], b"", None)]

    @property
    def listen(self) -> Any:
        return self

    def remote(self, *_: object) -> Any:
        return self.words.pop(0) if self.words else None


def test_a_lost_connection_says_what_becomes_of_the_search(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def get(heard: Any) -> Any:
        if heard is None:
            raise ConnectionError("lost")
        return heard

    monkeypatch.setattr(ray, "init", lambda *_, **__: None)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(client, "_check_versions", lambda _: None)
    monkeypatch.setattr(client, "_start", lambda _: Failing())
    with pytest.raises(RayloraError, match=r"connection to .* was lost \(lost\).*ends as by Ctrl-C.*; then go on"):
        run_on_head(address, ["resume", "/out"], "go on")
    assert capsys.readouterr().out == "é"
