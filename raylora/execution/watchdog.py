"""A process beside a trial's worker that ends it once it hangs, and is so ended with it.

A worker that hangs, on a GPU that no longer answers or a file system that went away, neither fails nor goes on, and can
be asked nothing. Ended, it is a lost worker, whose trial goes on elsewhere. Run as a script, this module is the process
that ends it; it imports nothing of raylora, so that it takes no time and no memory worth speaking of.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ParamSpec

BEATS_PER_LIMIT = 100
BEAT, REST = b".", b"|"

Told = ParamSpec("Told")


class Watch:
    """Where a process says that it is alive; see `watched`."""

    def __init__(self, pipe: int, limit_s: float):
        self._pipe, self._period_s = pipe, limit_s / BEATS_PER_LIMIT
        self._said, self._said_at = b"", float("-inf")

    def beat(self) -> None:
        """A sign of life; may be given as often as one likes."""
        if self._said != BEAT or time.monotonic() - self._said_at > self._period_s:
            self._say(BEAT)

    def rest(self) -> None:
        """No sign of life is due until the next beat, as while others are waited for."""
        self._say(REST)

    def resting(self, call: Callable[Told, None]) -> Callable[Told, None]:
        """The same call, of others who may take their time: no sign of life is due meanwhile."""

        def rests(*told: Told.args, **named: Told.kwargs) -> None:
            self.rest()
            call(*told, **named)
            self.beat()

        return rests

    def _say(self, word: bytes) -> None:
        self._said, self._said_at = word, time.monotonic()
        with suppress(OSError):  # a watchdog that somebody killed
            os.write(self._pipe, word)


@contextmanager
def watched(limit_s: float) -> Iterator[Watch]:
    """Have this process killed if, within the block, `limit_s` seconds pass without a sign of life."""
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(limit_s), str(ours)],
        pass_fds=[ours], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    os.close(ours)
    try:
        yield Watch(theirs, limit_s)
    finally:
        os.close(theirs)
        process.wait()


def watch(pid: int, limit_s: float, pipe: int) -> None:
    """Kill a process that has said nothing for too long and does not rest. Its end closes the pipe, and ends this."""
    words = BEAT
    while select.select([pipe], [], [], None if words.endswith(REST) else limit_s)[0]:
        words = os.read(pipe, 4096)
        if not words:
            return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
