"""What ends a command from outside: its status, and the word on how to go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from raylora.cli_output import INTERRUPTED, resumable

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ENDING[1:]:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_it_says_how_to_go_on(number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state.json").touch()
    with pytest.raises(SystemExit) as ended, resumable(tmp_path):
        os.kill(os.getpid(), number)
    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err == f"interrupted; go on with: raylora resume {tmp_path}\n"


def test_a_closed_terminal_does_not_end_what_nohup_started(tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with resumable(tmp_path):
        os.kill(os.getpid(), signal.SIGHUP)
