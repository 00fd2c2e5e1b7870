"""Programs started on a machine, their logs, and what a killed owner of machines left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil

MARK = "RAYLORA_HOSTS"
"""In the environment of all that runs on machines: the folder of whoever started them."""
PREFIX = "rlhosts-"
PATIENCE_S = 300
TAIL_CHARACTERS = 2000


class HostsError(Exception):
    """A machine or a program on it did not come up; with the end of its log."""


class Program:
    """A process on a machine.

    Args:
        log: its output.
        is_wrapped: whether the process is `nsenter`, whose only child is the program itself.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path, is_wrapped: bool):
        self._process, self.log, self._is_wrapped = process, log, is_wrapped
        self.pid = process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, negative if a signal ended it; None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int:
        """Its exit status.

        Raises:
            HostsError: it still runs.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise HostsError(f"still running after {timeout_s:g} s: {self.tail()}") from None

    def send(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with suppress(psutil.NoSuchProcess):
            process = self.inner() if self._is_wrapped else psutil.Process(self.pid)
            if process and self.status is None:
                process.send_signal(number)

    def kill(self) -> None:
        """End it at once, without a word to it, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait(PATIENCE_S)

    def tail(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-TAIL_CHARACTERS:]

    def inner(self) -> psutil.Process | None:
        """The program that a wrapper has started, which takes it a moment; None if it has ended."""
        found: list[psutil.Process] = []

        def has_forked() -> bool:
            if self.status is None:
                with suppress(psutil.NoSuchProcess):
                    found.extend(psutil.Process(self.pid).children())
            return bool(found) or self.status is not None

        wait_until(has_forked, "a program to start")
        return found[0] if found else None


class Machine(Protocol):
    """Something that programs run on, with an address, that can die and come back."""

    name: str
    address: str

    def start(self, command: Sequence[str], log: str, env: Mapping[str, str] | None = None) -> Program:
        """Start a program; `log` names its log among this machine's."""

    def port(self, wanted: int) -> int:
        """The port where a service may listen here: the wanted one, or, where machines share an address, another."""

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on it."""

    def power_off(self) -> None:
        """End all its processes at once, without a word to them."""

    def power_on(self) -> None:
        """Bring it back, with nothing running on it."""


def run(machine: Machine, command: Sequence[str], log: str, env: Mapping[str, str] | None = None) -> None:
    """Run a program on a machine to its end.

    Raises:
        HostsError: it failed, or took too long.
    """
    program = machine.start(command, log, env)
    if status := program.wait(PATIENCE_S):
        raise HostsError(f"{machine.name}: {' '.join(command)} ended with {status}: {program.tail()}")


def launch(command: Sequence[str], log: Path, env: Mapping[str, str] | None, owner: Path, is_wrapped: bool) -> Program:
    """Start a process that writes to `log` and carries its owner's mark; it ends with the thread that calls this."""
    log.parent.mkdir(parents=True, exist_ok=True)
    wanted = os.environ | dict(env or {}) | {MARK: str(owner)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else list(command),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=wanted, start_new_session=True,
        )  # fmt: skip
    return Program(process, log, is_wrapped)


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S, every_s: float = 0.02) -> None:
    """Ask until it holds.

    Raises:
        HostsError: it didn't within the time.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise HostsError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(every_s)


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for machines' logs and data while the block lasts; what killed owners left is cleared away first."""
    clear_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_leftovers() -> None:
    """End processes and remove folders whose owner is gone: the folders' names carry its pid."""
    left = [path for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*") if _is_orphan(path)]
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if left and Path(process.environ().get(MARK, "/")) in left:
                process.kill()
    for path in left:
        shutil.rmtree(path, ignore_errors=True)


def _is_orphan(folder: Path) -> bool:
    pid = folder.name.removeprefix(PREFIX).partition("-")[0]
    with suppress(FileNotFoundError):  # its owner clears up
        return folder.stat().st_uid == os.geteuid() and pid.isdigit() and not psutil.pid_exists(int(pid))
    return False
