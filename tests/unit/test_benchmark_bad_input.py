"""The watch over commands that meet bad input sees what it should; what they say is not tested here."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.bad_input import isolate
from benchmarks.bad_input.collect import all_kinds
from benchmarks.bad_input.isolate import Outcome, Watched, told_faults
from benchmarks.bad_input.kinds import CANARY, FINE, REFUSED, Kind, Shared

KIND = Kind("group/bad", "tune", tells=("bad",))
MESSAGE = "raylora: error: bad: is wrong; mend it\n"


def outcome_of(tmp_path: Path, work: Callable[[], object], kind: Kind = KIND) -> Outcome:
    """What is seen of a process that does this."""
    shared = Shared(tmp_path / "shared")
    (shared.root / "pictures").mkdir(parents=True)

    def run(kind: Kind, words: list[str]) -> None:
        work()
        sys.stderr.flush()
        os._exit(REFUSED)

    watched = Watched(kind, tmp_path / "sandbox", shared, run)
    while not (outcome := watched.look()):
        time.sleep(0.01)
    return outcome


def say(text: str) -> None:
    os.write(2, text.encode())


def test_a_refusal_is_no_fault(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, lambda: say(MESSAGE))
    assert (outcome.status, outcome.faults, outcome.told) == (REFUSED, [], MESSAGE)


@pytest.mark.parametrize(
    ("work", "fault"),
    [
        (lambda: None, "status: 0 messages"),
        (lambda: say(MESSAGE * 2), "status: 2 messages"),
        (lambda: say("raylora: error: wrong\n"), "status: the message doesn't name ['bad']"),
        (lambda: say(MESSAGE.replace("wrong", "x" * 30_000)), "status: 30034 characters"),
        (lambda: say(f"{MESSAGE}\x1b]0;x"), "status: the message steers"),
        (lambda: say(f"Traceback (most recent call last)\n{MESSAGE}"), "traceback"),
        (lambda: say("raylora: failed: KeyError: 1\nThis is a bug in raylora"), "traceback"),
        (lambda: os._exit(1), "status: 1 and not 2"),
        (lambda: os.kill(os.getpid(), 11), "status: -11 and not 2"),
        (lambda: 1 / 0, "status: 99 and not 2"),
        (lambda: (say(MESSAGE), Path("pwned").touch()), "outside: work/pwned"),
        (lambda: (say(MESSAGE), Path("good.yaml").write_text("x")), "outside: work/good.yaml"),
        (lambda: (say(MESSAGE), Path("good.yaml").chmod(0)), "outside: work/good.yaml"),
        (lambda: (say(MESSAGE), Path("../outside/new").touch()), "outside: outside/new"),
        (lambda: (say(MESSAGE), Path("out").mkdir()), "outside: a refused command left its output folder"),
        (lambda: say(f"{MESSAGE}{CANARY}"), "secret: told"),
        (lambda: (say(MESSAGE), Path("out.txt").write_text(CANARY)), "secret: in work/out.txt"),
    ],
)
def test_faults_are_seen(tmp_path: Path, work: Callable[[], object], fault: str) -> None:
    assert any(seen.startswith(fault) for seen in outcome_of(tmp_path, work).faults)


def test_a_process_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "MOST_S", 0.2)
    monkeypatch.setattr(isolate, "crowd", lambda: 1.0)
    assert outcome_of(tmp_path, lambda: time.sleep(60)).faults == ["hang: no end after 0.2 s"]


def test_a_process_that_grows_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "MOST_GROWTH_MIB", 100)
    assert outcome_of(tmp_path, lambda: (time.sleep(2), bytearray(b"x") * (1 << 28), time.sleep(60))).faults == [
        "memory: grew by more than 100 MiB"
    ]


def test_what_is_handled_says_nothing() -> None:
    kind = Kind("group/fine", "tune", status=FINE)
    assert told_faults(kind, FINE, "", "a plan\n") == []
    assert told_faults(kind, REFUSED, "", MESSAGE) != []


def test_there_are_hundreds_of_kinds_each_with_a_name() -> None:
    names = Counter(kind.name for kind in all_kinds())
    assert len(names) >= 200
    assert max(names.values()) == 1
