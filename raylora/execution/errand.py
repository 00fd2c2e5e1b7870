"""A raylora command on the head of a cluster, for somebody whose own machine is elsewhere.

An actor starts it and hands its words on. It is kept by a process of its own, `python -m raylora.execution.errand`,
which outlives the actor: whatever becomes of that, the pipe between them closes, and the command is ended as by
`kill`, so that it can be gone on with. Its output goes to files, since a broken pipe would end it badly.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

STDOUT_NAME, STDERR_NAME, STATUS_NAME = "stdout", "stderr", "status"
POLL_S = 0.1
MOST_BYTES = 2**20
"""Handed on at once."""


@dataclass(frozen=True)
class Heard:
    """What a command has said since it was last asked, and its exit status once it has ended and said everything."""

    out: bytes
    err: bytes
    status: int | None


class Errand:
    """The actor. It does nothing but pass words to and fro.

    Args:
        words: of the command line after `raylora`.
        environment: of the command, beside this process's own.
    """

    def __init__(self, words: Sequence[str], environment: dict[str, str]):
        self._folder = Path(tempfile.mkdtemp(prefix="raylora-"))
        for name in (STDOUT_NAME, STDERR_NAME):
            (self._folder / name).touch()
        keeper = subprocess.Popen(
            [sys.executable, "-m", "raylora.execution.errand", str(self._folder), *words],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=_own_environment() | environment, start_new_session=True,
        )  # fmt: skip
        assert keeper.stdin
        self._pipe: IO[bytes] = keeper.stdin
        self._at = {STDOUT_NAME: 0, STDERR_NAME: 0}
        keeper.wait()  # it has gone on as a child of no one: Ray kills an actor's children before they can act

    @property
    def folder(self) -> str:
        """Where the command's output is, also when nobody fetches it any more."""
        return str(self._folder)

    def signal(self, number: int) -> None:
        """Send the command a signal."""
        self._pipe.write(f"{number}\n".encode())
        self._pipe.flush()

    def listen(self, patience_s: float) -> Heard:
        """What is new, as soon as there is any, or after a while."""
        until = time.monotonic() + patience_s
        while True:
            status = self._status()  # before the rest: of a command that has ended nothing more can come
            out, err = self._new(STDOUT_NAME), self._new(STDERR_NAME)
            if out or err:
                return Heard(out, err, None)
            if status is not None or time.monotonic() > until:
                return Heard(out, err, status)
            time.sleep(POLL_S)

    def clear(self) -> None:
        """Remove the output, which was fetched."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _status(self) -> int | None:
        file = self._folder / STATUS_NAME
        return int(file.read_text()) if file.exists() else None

    def _new(self, name: str) -> bytes:
        with (self._folder / name).open("rb") as file:
            file.seek(self._at[name])
            text = file.read(MOST_BYTES)
        self._at[name] += len(text)
        return text


def _own_environment() -> dict[str, str]:
    """This process's, without what Ray tells its workers alone."""
    from ray._private.utils import remove_ray_internal_flags_from_env

    environment = dict(os.environ)
    remove_ray_internal_flags_from_env(environment)
    return environment


def keep(folder: Path, words: Sequence[str], orders: IO[bytes]) -> None:
    """Run a command to its end, pass on the signals that are ordered, and end it when no more orders can come."""
    # Ray's workers hold Ctrl-C back, and their children would too.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with (folder / STDOUT_NAME).open("ab") as out, (folder / STDERR_NAME).open("ab") as err:
        command = subprocess.Popen(
            [sys.executable, "-m", "raylora", *words], stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
    Thread(target=_pass_on, args=(orders, command), daemon=True).start()
    status = command.wait()
    unfinished = folder / f"{STATUS_NAME}.new"
    unfinished.write_text(str(status if status >= 0 else 128 - status))
    unfinished.rename(folder / STATUS_NAME)


def _pass_on(orders: IO[bytes], command: subprocess.Popen[bytes]) -> None:
    for order in orders:
        command.send_signal(int(order))
    command.send_signal(signal.SIGTERM)  # nobody is there any more


def main() -> None:
    """Leave the actor's children, and keep the command."""
    if os.fork():
        os._exit(0)
    keep(Path(sys.argv[1]), sys.argv[2:], sys.stdin.buffer)


if __name__ == "__main__":
    main()
