"""`raylora prepare` in this process, and small folders for it."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raylora import cli
from tests.photographs import ASTRONAUT, CAT, off_center_face, off_center_flower, opened_rgb
from tests.results import Result

Prepare = Callable[[str], Result]

COLOURS = ("red", "blue", "lime", "white", "black", "yellow", "navy", "pink", "gold", "gray")

TAGGED = "--size 64x64 --trigger sks --caption tags --caption-model tagger --threshold 0.8"
"""Of the model in `tagger`."""
CENTERED = f"{TAGGED} --crop center"


def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Prepare:
    """The command line, in a folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")

    def call(line: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["raylora", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return Result(int(ended.value.code or 0), told.out, told.err)

    return call


def run_in(folder: Path, line: str) -> Result:
    """The command line in a folder, where several tests look at what came of it."""
    out, err = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(chdir(folder))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["raylora", *shlex.split(line)])
        ended = stack.enter_context(pytest.raises(SystemExit))
        cli.main()
    return Result(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def make_photos(folder: Path) -> Path:
    """Four photographs, of which two have captions; faces are on two, off the middle on one."""
    folder.mkdir(parents=True)
    opened_rgb(ASTRONAUT).resize((256, 256)).save(folder / "astronaut.png")
    off_center_face().save(folder / "face.png")
    opened_rgb(CAT).save(folder / "cat.jpg")
    off_center_flower().save(folder / "flower.png")
    (folder / "cat.txt").write_text("a cat, green eyes\n")
    (folder / "flower.txt").write_text("orange_flower, green eyes")
    return folder


def make_colours(folder: Path, **captions: str) -> Path:
    """Plain pictures of 64 x 64 px, each called by its colour."""
    folder.mkdir(parents=True)
    for colour, caption in captions.items():
        Image.new("RGB", (64, 64), colour).save(folder / f"{colour}.png")
        if caption:
            (folder / f"{colour}.txt").write_text(caption)
    return folder


def make_squares(folder: Path, count: int) -> None:
    """Small ones, all of another colour."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (72, 64), (number * 9 % 256, 80, 160)).save(folder / f"{number:02}.png")


def files_of(folder: Path, hidden: bool = False) -> dict[str, str]:
    """Digest of each file below a folder; without what is kept for going on."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (hidden or ".prepare" not in path.parts)
    }


def manifest_in(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return content


def captions_in(folder: Path) -> dict[str, str]:
    """By the pictures' names."""
    return {path.stem: path.read_text() for path in sorted(folder.glob("*_*/*.txt"))}
