"""Notice that a machine is about to go: a file on it, which whoever learns of it puts there.

Clouds say so in ways of their own, some minutes or seconds before; `cluster/` has what turns them into this file.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
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

    Args:
        beat: called while there is nothing to do but wait, which is no hanging.
    """

    def __init__(self, beat: Callable[[], None] = lambda: None):
        self._file, self._beat = notice_file(), beat
        self._looked_at, self._is_there = float("-inf"), False

    def is_given(self) -> bool:
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self._looked_at, self._is_there = time.monotonic(), self._file.exists()
        return self._is_there

    def wait(self, world: World) -> None:
        while any(world.gather([self.is_given()])):
            self._beat()
            time.sleep(LOOK_EVERY_S)
