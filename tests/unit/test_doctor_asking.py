"""Whatever hangs or dies where it is looked at, the asker hears the rest."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from raylora.execution.doctor.asking import Answerer, Heard, Inquiry, hear
from tests.doctor_probes import AWAITED

PROBES = "tests.doctor_probes"
ASKER = f"""
import sys
from pathlib import Path
from raylora.execution.doctor.asking import Inquiry, hear
hear([Inquiry({PROBES!r}, Path(sys.argv[1]), ["long"])])
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go, which must be empty after each test."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield folder
    assert list(folder.iterdir()) == []


def heard(folder: Path, *names: str, goes_on: bool = True) -> Heard:
    inquiry = Inquiry(PROBES, folder, names, goes_on)
    hear([inquiry])
    assert list(folder.iterdir()) == []
    return inquiry.heard


def test_what_fails_is_told_and_stops_nothing(tmp_path: Path) -> None:
    said = heard(tmp_path, "refuse", "break", "shout")
    assert said.values == {"shout": tmp_path.name}
    assert said.faults == {"refuse": "no such thing; make one", "break": "KeyError: 'wheel'"}


def test_what_hangs_is_left_behind(tmp_path: Path) -> None:
    said = heard(tmp_path, "hang", "shout")
    assert said.values == {"shout": tmp_path.name}
    assert said.faults == {"hang": "gave no answer in 0.5 s"}


def test_what_kills_its_process_is_told_with_its_last_words(tmp_path: Path) -> None:
    inquiry = Inquiry(PROBES, tmp_path, ["die", "shout"])
    hear([inquiry])
    assert inquiry.heard.values == {"shout": tmp_path.name}
    assert inquiry.heard.faults == {"die": "its process ended with status 3 (out of luck)"}


def test_nothing_is_asked_after_what_all_hangs_on(tmp_path: Path) -> None:
    said = heard(tmp_path, "vital", "shout")
    assert (said.values, list(said.faults)) == ({}, ["vital"])
    said = heard(tmp_path, "hang", "shout", goes_on=False)
    assert (said.values, list(said.faults)) == ({}, ["hang"])


def test_several_are_asked_at_once(tmp_path: Path) -> None:
    inquiries = [Inquiry(PROBES, tmp_path, names) for names in (["hang"], [], ["shout"])]
    hear(inquiries)
    assert [inquiry.heard.values for inquiry in inquiries] == [{}, {}, {"shout": tmp_path.name}]


def test_what_has_come_counts_though_the_limit_has_passed(tmp_path: Path) -> None:
    """As where the asker itself was held up."""
    inquiry = Inquiry(PROBES, tmp_path, ["shout"])
    inquiry.deadline = 0.0
    assert inquiry.pipe.poll(60)
    assert not inquiry.is_silent
    hear([inquiry])
    assert inquiry.heard.values == {"shout": tmp_path.name}


def test_a_limit_that_passes_while_another_is_given_up_is_no_silence(tmp_path: Path) -> None:
    held_up, other = Inquiry(PROBES, tmp_path, ["hang"]), Inquiry(PROBES, tmp_path, ["await"])
    give_up = held_up.give_up

    def give_up_late() -> None:
        (tmp_path / AWAITED).touch()
        assert other.pipe.poll(60)
        other.deadline = 0.0
        give_up()

    held_up.give_up = give_up_late  # type: ignore[method-assign]
    hear([held_up, other])
    assert held_up.heard.faults == {"hang": "gave no answer in 0.5 s"}
    assert (other.heard.values, other.heard.faults) == ({"await": AWAITED}, {})


def test_others_are_heard_while_one_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    was_heard, end = Event(), Answerer.end

    def end_late(answerer: Answerer) -> None:
        assert was_heard.wait(60)
        end(answerer)

    inquiry = Inquiry(PROBES, tmp_path, ["hang", "shout"])
    monkeypatch.setattr(Answerer, "end", end_late)
    take = inquiry.take

    def take_and_tell() -> None:
        take()
        if inquiry.heard.values:
            was_heard.set()

    inquiry.take = take_and_tell  # type: ignore[method-assign]
    hear([inquiry])
    assert (inquiry.heard.values, list(inquiry.heard.faults)) == ({"shout": tmp_path.name}, ["hang"])


def test_a_module_that_cannot_be_imported_is_a_fault_of_all(tmp_path: Path) -> None:
    inquiry = Inquiry("tests.nowhere", tmp_path, ["a", "b"])
    hear([inquiry])
    assert list(inquiry.heard.faults) == ["a", "b"]
    assert "No module named 'tests.nowhere'" in inquiry.heard.faults["a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_when_the_asker_is_interrupted_or_killed(
    number: signal.Signals, tmp_path: Path, temporary: Path
) -> None:
    root = str(Path(__file__).parents[2])
    asker = subprocess.Popen([sys.executable, "-c", ASKER, str(tmp_path)], cwd=root, stderr=subprocess.DEVNULL)
    wait_until(lambda: list(tmp_path.iterdir()) != [])
    [made] = tmp_path.iterdir()
    asker.send_signal(number)
    asker.wait()
    wait_until(lambda: list(tmp_path.iterdir()) == [])
    answerer = Path("/proc") / made.name.removeprefix("made-")
    wait_until(lambda: not answerer.exists() or not (answerer / "cmdline").read_bytes())
    wait_until(lambda: list(temporary.iterdir()) == [])


def wait_until(is_so: object) -> None:
    assert callable(is_so)
    until = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)
