"""Things to look at that hang, die and fail, for the tests of who asks."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raylora.errors import RayloraError
from raylora.execution.doctor.asking import Probe

AWAITED = "awaited"


def hang(_: Path) -> None:
    tempfile.mkdtemp()
    time.sleep(600)


def die(_: Path) -> None:
    os.write(2, b"out of luck\n")
    os._exit(3)


def refuse(_: Path) -> None:
    raise RayloraError("no such thing; make one")


def break_down(_: Path) -> None:
    raise KeyError("wheel")


def await_file(folder: Path) -> str:
    """Answers when told to."""
    while not (folder / AWAITED).exists():
        time.sleep(0.05)
    return AWAITED


def shout(folder: Path) -> str:
    print("to nobody")
    return folder.name


@contextmanager
def opened(folder: Path) -> Iterator[Path]:
    """Something that must not stay."""
    made = folder / f"made-{os.getpid()}"
    made.touch()
    try:
        yield folder
    finally:
        made.unlink()


FACTS = {
    "hang": Probe(hang, limit_s=0.5),
    "long": Probe(hang, limit_s=600),
    "die": Probe(die),
    "refuse": Probe(refuse),
    "vital": Probe(refuse, is_vital=True),
    "break": Probe(break_down),
    "await": Probe(await_file, limit_s=60),
    "shout": Probe(shout),
}
