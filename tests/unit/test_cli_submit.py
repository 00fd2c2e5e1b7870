"""`raylora submit` and `--address ray://`: what is refused before a cluster is asked, and what is handed over."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raylora import cli
from raylora.execution import client, jobs
from raylora.execution.jobs import Order

ADDRESS = "ray://head:10001"
OUT = ["--out", "/shared/out"]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line, in an empty folder, in this process: status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raylora", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """What would be sent, to a cluster with GPUs."""
    orders: list[Order] = []

    @contextmanager
    def jobs_at(address: str) -> Iterator[None]:
        yield

    monkeypatch.setattr(jobs, "jobs_at", jobs_at)
    monkeypatch.setattr(jobs, "has_gpus", lambda _: True)
    monkeypatch.setattr(jobs, "send", lambda _, order: orders.append(order) or "raysubmit_1")
    return orders


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--", "tune", "--demo"], "the default --out: is gone with the job's working directory; give an absolute"),
        (["--", "train", "--demo", "--out", "out"], "--out out: is gone with the job's working directory"),
        (["--", "resume", "out/demo"], "--out out/demo: is gone"),
        (["--", "export", "x", "--to", "kohya"], "raylora submit -- export: can't be sent"),
        (["--gpus", "1", "--", "tune", "--demo", *OUT], "--gpus 1: a search's trials take GPUs"),
        (["--env", "TOKEN=hush", "--", "tune", "--demo", *OUT], "--env TOKEN: give the name alone"),
        (["--env", "NOT_SET_ANYWHERE", "--", "tune", "--demo", *OUT], "--env NOT_SET_ANYWHERE: is not set here"),
        (["--", "tune", "--dataset", "photos", *OUT], "--dataset photos: is not in"),
    ],
)
def test_what_is_refused(words: list[str], reason: str, ran: Any, sent: list[Order]) -> None:
    status, _, told = ran("submit", *words)
    assert (status, sent) == (2, [])
    assert told.startswith(f"raylora: error: {reason}") and told.count("\n") == 1
    assert "hush" not in told


def test_a_wrong_option_is_told_before_anything_is_sent(ran: Any, sent: list[Order]) -> None:
    status, _, told = ran("submit", "--", "tune", "--demo", *OUT, "--trails", "3")
    assert (status, sent) == (2, [])
    assert "No such option: --trails" in told


@pytest.mark.parametrize(
    ("words", "expected", "gpus"),
    [
        (["tune", "--demo", *OUT], ["--address", "auto"], 0),
        (["tune", "--demo", *OUT, "--address", "local"], [], 0),
        (["resume", "/shared/out"], [], 0),  # the head looks whether it is a search
        (["train", "--demo", *OUT], [], 1),
        (["evaluate", "/shared/lora.safetensors", "--dataset", "demo"], [], 1),
    ],
)
def test_what_is_sent(words: list[str], expected: list[str], gpus: float, ran: Any, sent: list[Order]) -> None:
    status, told, _ = ran("submit", "--no-wait", *words)
    assert (status, told) == (0, "raysubmit_1\n")
    (order,) = sent
    assert order.words == [*words, *expected]
    assert order.gpus == gpus
    assert order.out == (None if words[0] == "evaluate" else Path("/shared/out"))
    assert order.package is None


def test_a_variable_is_taken_along_by_its_name(ran: Any, sent: list[Order], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush")
    _, told, also = ran("submit", "--no-wait", "--env", "MLFLOW_TRACKING_TOKEN", "--", "tune", "--demo", *OUT)
    assert sent[0].environment == {"MLFLOW_TRACKING_TOKEN": "hush"}
    assert "hush" not in told + also


def test_ray_client_hands_the_same_command_over(ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[Any] = []
    monkeypatch.setattr(client, "run_on_head", lambda *order: handed.append(order) or 130)
    status, *_ = ran("tune", "--demo", "--trials", "3", f"--address={ADDRESS}", *OUT)
    assert status == 130
    assert ran("resume", "/shared/out", "--address", ADDRESS)[0] == 130
    how = f"`raylora resume /shared/out --address {ADDRESS}`"
    assert handed == [
        (ADDRESS, ["tune", "--demo", "--trials", "3", "--address=auto", *OUT], how),
        (ADDRESS, ["resume", "/shared/out", "--address", "auto"], how),
    ]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["tune", "--demo"], "the default --out: would lie wherever Ray runs on the cluster's head; give an absolute"),
        (["tune", "--demo", "--out", "out"], "--out out: would lie"),
        (["resume", "out"], "--out out: would lie"),
        (["tune", "--dataset", "photos", *OUT], "--dataset photos: is on this machine.*`raylora submit`"),
    ],
)
def test_ray_client_sends_nothing_along(words: list[str], reason: str, ran: Any, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").touch()
    status, _, told = ran(*words, "--address", ADDRESS)
    assert status == 2
    assert told.count("\n") == 1
    assert re.match(f"raylora: error: {reason}", told)
