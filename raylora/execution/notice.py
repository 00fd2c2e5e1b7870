"""Notice that a machine is about to go: a file on it, which whoever learns of it puts there.

Clouds say so in ways of their own, some minutes or seconds before; `cluster/` has what turns them into this file.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which needs torch: who only asks for the file doesn't
    from raylora.world import World

NOTICE_VARIABLE, NOTICE_NAME = "RAYLORA_NOTICE_FILE", "raylora-notice"
LOOK_EVERY_S = 1.0


def notice_file() -> Path:
    """The file whose presence says that this machine is about to go."""
    return Path(os.environ.get(NOTICE_VARIABLE) or Path(tempfile.gettempdir()) / NOTICE_NAME)


class FileNotice:
    """Notice by a file; see `training.advancing.Notice`.

    One from before the machine's last start was of another end: a machine that was stopped and started again keeps it.
    It is ignored, and removed if it is a file of one's own.

    Args:
        beat: called while there is nothing to do but wait, which is no hanging.
        say: told when training stops, and how it goes on.
    """

    def __init__(self, beat: Callable[[], None] = lambda: None, say: Callable[[str], None] = lambda _: None):
        self._file, self._beat, self._say = notice_file(), beat, say
        self._looked_at, self._is_there = float("-inf"), False
        _remove_old(self._file)

    def is_given(self) -> bool:
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self._looked_at, self._is_there = time.monotonic(), self._file.exists() and not is_old(self._file)
        return self._is_there

    def wait(self, world: World) -> None:
        if self.is_given():
            self._say(
                f"{self._file} says that the machine {socket.gethostname()} is about to go: training has stopped "
                "there, and its state is kept. If the machine stays, remove that file, and training goes on"
            )
        while any(world.gather([self.is_given()])):
            self._beat()
            time.sleep(LOOK_EVERY_S)


def is_old(file: Path) -> bool:
    """Whether a file is from before this machine's last start; False where that can't be told."""
    began = _began_s()
    with suppress(OSError):
        told = file.stat()
        return began is not None and max(told.st_mtime, told.st_ctime) < began  # moved here, it keeps its old mtime
    return False


def _began_s() -> float | None:
    """When this machine was started, in seconds since 1970; None where the system doesn't say."""
    since_start = getattr(time, "CLOCK_BOOTTIME", None)
    return None if since_start is None else time.time() - time.clock_gettime(since_start)


def _remove_old(file: Path) -> None:
    with suppress(OSError):
        told = file.lstat()
        if stat.S_ISREG(told.st_mode) and told.st_uid == os.getuid() and is_old(file):
            file.unlink()
