"""What is kept while a trainer is moved on, and where it waits for its machine's end."""

from __future__ import annotations

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
    file, written, beats = tmp_path / "notice", list[int](), list[int]()
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

    advance_keeping(cast(Any, trainer), 20, Keeping(write, 1000, notice=Noticed(beat)))
    assert written == [7]
    assert beats == [7, 7, 7]
    assert trainer.images_seen == 20


def test_the_file_is_looked_for_where_one_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(NOTICE_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert notice_file() == tmp_path / "raylora-notice"
    assert not FileNotice().is_given()
    notice_file().touch()
    assert FileNotice().is_given()
