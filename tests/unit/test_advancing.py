"""What is kept while a trainer is moved on, and where it waits for its machine's end."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from raylora.execution import notice
from raylora.execution.notice import NOTICE_VARIABLE, FileNotice, notice_file
from raylora.training.advancing import Keeping, advance_keeping
from raylora.world import World


class Steps:
    """Moves on by whole steps, as a trainer does."""

    def __init__(self, step: int, end: int = 100):
        self.images_seen, self._step, self.stops = 0, step, list[int]()
        self.schedule = SimpleNamespace(images_end=end)

    def advance(self, images: int, is_told_to_pause: Any) -> None:
        while self.images_seen < images:
            self.images_seen += self._step
            if is_told_to_pause():
                break
        self.stops.append(self.images_seen)


@pytest.mark.parametrize(
    ("step", "every", "targets", "states"),
    [
        (1, 30, (40, 100), [30, 60, 90]),
        (8, 30, (40, 100), [32, 64, 96]),
        (1, 1000, (40, 100), []),
        (40, 30, (50, 100), [40]),  # a step past the target leaves its state to the caller
    ],
)
def test_a_state_is_written_every_so_often(step: int, every: int, targets: tuple[int, ...], states: list[int]) -> None:
    trainer, written = Steps(step), list[int]()
    keeping = Keeping(lambda: written.append(trainer.images_seen), every)
    for target in targets:
        advance_keeping(cast(Any, trainer), target, keeping)
    assert written == states


def test_only_the_first_worker_writes() -> None:
    trainer, written = Steps(1), list[int]()
    advance_keeping(cast(Any, trainer), 100, Keeping(lambda: written.append(1), 30, world=World(1, 2)))
    assert written == []
    assert trainer.stops == [30, 60, 90, 100]  # as the first one does


def test_notice_has_the_state_written_at_once_and_training_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, written, beats, told = tmp_path / "notice", list[int](), list[int](), list[str]()
    monkeypatch.setenv(NOTICE_VARIABLE, str(file))
    monkeypatch.setattr(notice, "LOOK_EVERY_S", 0.0)
    trainer = Steps(1)

    def beat() -> None:
        beats.append(trainer.images_seen)
        if len(beats) == 3:
            file.unlink()  # the machine stays after all

    def write() -> None:
        written.append(trainer.images_seen)

    class Noticed(FileNotice):
        def is_given(self) -> bool:
            if trainer.images_seen == 7 and not beats:
                file.touch()
            return super().is_given()

    advance_keeping(cast(Any, trainer), 20, Keeping(write, 1000, notice=Noticed(beat, told.append)))
    assert written == [7]
    assert beats == [7, 7, 7]
    (line,) = told
    assert line.startswith(f"{file} says that the machine {socket.gethostname()} is about to go: training has stopped")
    assert line.endswith("If the machine stays, remove that file, and training goes on")
    assert trainer.images_seen == 20


def test_the_file_is_looked_for_where_one_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(NOTICE_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert notice_file() == tmp_path / "raylora-notice"
    assert not FileNotice().is_given()
    notice_file().touch()
    assert FileNotice().is_given()


@pytest.mark.parametrize("is_own_file", [True, False])
def test_one_from_before_the_machine_was_started_is_of_another_end(
    is_own_file: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is removed, unless it is no plain file, as where it is brought into a container."""
    target, file = tmp_path / "target", tmp_path / "notice"
    target.touch()
    file.touch() if is_own_file else file.symlink_to(target)
    monkeypatch.setenv(NOTICE_VARIABLE, str(file))
    monkeypatch.setattr(notice, "LOOK_EVERY_S", 0.0)
    assert FileNotice().is_given()
    began = notice._began_s()
    assert began is not None and began < file.stat().st_ctime
    monkeypatch.setattr(notice, "_began_s", lambda: file.lstat().st_ctime + 1 if file.exists() else 0.0)
    assert not FileNotice().is_given()
    assert target.exists()
    assert file.exists() != is_own_file
    file.touch()
    os.utime(file, (0, 0))  # an old file that was moved here is of now
    monkeypatch.setattr(notice, "_began_s", lambda: began)
    assert FileNotice().is_given()
