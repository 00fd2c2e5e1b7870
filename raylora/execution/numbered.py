"""Pictures under running numbers, as webuis name them: no file is ever written over."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from raylora.errors import OutputError
from raylora.files import exists, is_folder, write_atomically

NUMBERED = re.compile(r"(\d{1,9})-")
DIGITS = 5


def check_folder(root: Path) -> None:
    """Whether pictures can go to a folder, which need not be there yet; nothing is made.

    Raises:
        OutputError: they can't.
    """
    mend = "give another folder with --out"
    there = next(place for place in (root, *root.parents) if exists(place) or place.is_symlink())
    if not is_folder(there):
        what = "is a file" if exists(there) else "is a link that leads nowhere"
        raise OutputError(f"{there}: {what}; {mend}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{there}: can't be written; {mend}, or let your user write there")


class NumberedFolder:
    """A folder whose pictures are numbered on from those that are there.

    Several processes may write to one: a name is taken by making its file, so each picture has its own. Of two with
    different seeds the numbers may be the same.
    """

    def __init__(self, root: Path):
        self.root = root

    def save(self, content: bytes, seed: int) -> Path:
        """Write a PNG as `NUMBER-SEED.png`."""
        return self._save(content, lambda number: f"{number:0{DIGITS}}-{seed}.png", self._next())

    def save_grid(self, content: bytes) -> Path:
        """Write a PNG as `grid-NUMBER.png`, by numbers of its own."""
        return self._save(content, lambda number: f"grid-{number:04}.png", 0)

    def _next(self) -> int:
        """One more than the highest number there is."""
        if not is_folder(self.root):
            return 0
        found = (NUMBERED.match(path.name) for path in self.root.iterdir())
        return max((int(told[1]) + 1 for told in found if told), default=0)

    def _save(self, content: bytes, name: Callable[[int], str], number: int) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        while not _take(path := self.root / name(number)):
            number += 1
        try:
            write_atomically(path, content)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path


def _take(path: Path) -> bool:
    """Make an empty file that holds the name; False where another has it."""
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    return True
