"""Questions that a process of their own answers: whatever hangs or dies there, the asker goes on.

A driver that doesn't answer, a dead disk or an address that takes packets and gives none can stop a process where no
exception reaches it. So each group of checks runs apart, says what it begins and how long that may take, and is left
behind when it takes longer; what comes after it is asked of a new process.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any

from raylora.errors import RayloraError, first_line

START_S = 120
"""Until the process has imported what it needs to begin."""
END_S = 15
"""For what a process has to clear away: a Ray of this machine takes three."""
BEGIN, VALUE, FAULT, END = "begin", "value", "fault", "end"
"""What a process says."""


@dataclass(frozen=True)
class Probe:
    """One thing to find out, and how long that may take."""

    look: Callable[[Any], Any]
    limit_s: float = 30
    is_vital: bool = False
    """Whether nothing after it can be found out where it fails."""


@dataclass
class Heard:
    """What a process has answered, by the probes' names. What is in neither was not looked at."""

    values: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What one of several nodes answered, or why it didn't."""

    value: Any = None
    fault: str | None = None


class Answerer:
    """The process of an inquiry, and what is made for it: a folder for all temporary files, its libraries' too.

    Ctrl-C in a terminal is for the asker alone.

    Args:
        module: as of `Inquiry`; this process's path to modules is its own.
    """

    def __init__(self, module: str):
        self.pipe, theirs = Pipe()
        self._folder = tempfile.mkdtemp(prefix="raylora-")
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        modules = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-m", __name__, module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=self._output, stderr=self._output, env=os.environ | modules | {"TMPDIR": self._folder},
            )  # fmt: skip

    def end(self) -> None:
        """Have it end, which clears away what it made; end it where it doesn't."""
        self.pipe.close()
        if not self._ends_within(END_S):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._ends_within(1)  # a dead disk holds even a killed process
        self._output.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def how_it_ended(self) -> str:
        """Of one that has ended by itself: through with everything, or because something killed it."""
        self._ends_within(END_S)
        return f"its process ended with status {self._process.returncode}{self._last_words()}"

    def _ends_within(self, limit_s: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=limit_s)
        return self._process.returncode is not None

    def _last_words(self) -> str:
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1][:200]})" if lines else ""


class Inquiry:
    """A process that looks at things one after another.

    Args:
        module: has `FACTS`, the probes by their names, and may have `opened`, what holds while they run.
        question: what every probe is given; pickled.
        names: the probes to run, in this order.
        goes_on: whether those after one that hangs or kills the process are asked of another process.
    """

    def __init__(self, module: str, question: Any, names: Sequence[str], goes_on: bool = True):
        self.heard, self.is_open = Heard(), False
        self._module, self._question, self._left, self._goes_on = module, question, list(names), goes_on
        self._endings: list[Thread] = []
        if self._left:
            self._launch()

    @property
    def pipe(self) -> Connection:
        """What it says comes here."""
        return self._answerer.pipe

    @property
    def is_silent(self) -> bool:
        """Whether it has taken too long, and nothing has come meanwhile that was not looked at yet."""
        return time.monotonic() >= self.deadline and not self.pipe.poll()

    def take(self) -> None:
        """The next thing that it says; its end where there is nothing more."""
        try:
            kind, name, content = self.pipe.recv()
        except (EOFError, OSError):
            self._fail(self._answerer.how_it_ended())
            return
        if kind == BEGIN:
            self._at, limit_s = name, content
        elif kind == END:
            self._left.clear()
            self._at, limit_s = None, END_S
        else:
            self._left.remove(name)
            (self.heard.values if kind == VALUE else self.heard.faults)[name] = content
            self._at, limit_s = None, START_S
        self._wait(limit_s)

    def give_up(self) -> None:
        """It has taken too long."""
        self._fail(f"gave no answer in {self._limit_s:g} s")

    def close(self) -> None:
        """Have the process end. What it has to clear away takes a while, in which others are heard."""
        if self.is_open:
            self.is_open = False
            self._endings.append(Thread(target=self._answerer.end))
            self._endings[-1].start()

    def join(self) -> None:
        """Wait until all processes that were closed have ended."""
        for ending in self._endings:
            ending.join()

    def _launch(self) -> None:
        self._answerer = Answerer(self._module)
        with suppress(OSError):  # one that has ended at once is found so at the next word
            self.pipe.send((self._question, self._left))
        self.is_open, self._at = True, None
        self._wait(START_S)

    def _wait(self, limit_s: float) -> None:
        self._limit_s, self.deadline = limit_s, time.monotonic() + limit_s

    def _fail(self, reason: str) -> None:
        """What it was at has failed, and all that it was asked where it was at nothing yet."""
        for name in [self._at] if self._at else list(self._left):
            self._left.remove(name)
            self.heard.faults[name] = reason
        self.close()
        if self._left and self._goes_on:
            self._launch()


def hear(inquiries: Sequence[Inquiry]) -> None:
    """Wait until each has answered or failed; all processes have ended then, however this ends."""
    try:
        while running := [inquiry for inquiry in inquiries if inquiry.is_open]:
            soonest = min(inquiry.deadline for inquiry in running)
            ready = wait([inquiry.pipe for inquiry in running], timeout=max(0.0, soonest - time.monotonic()))
            for inquiry in running:
                if inquiry.pipe in ready:
                    inquiry.take()
                elif inquiry.is_silent:
                    inquiry.give_up()
    finally:
        for inquiry in inquiries:
            inquiry.close()
        for inquiry in inquiries:
            inquiry.join()


def answer(asker: Connection, module: Any) -> None:
    """The process's side: run the probes that are asked for, and end when the asker does.

    Args:
        module: see `Inquiry`. Its `opened` takes the question and gives what the probes take.
    """
    opened: Callable[[Any], AbstractContextManager[Any]] = getattr(module, "opened", nullcontext)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    question, names = asker.recv()
    Thread(target=_end_with, args=(asker,), daemon=True).start()
    with suppress(KeyboardInterrupt, BrokenPipeError), ExitStack() as stack:
        stack.callback(shutil.rmtree, os.environ["TMPDIR"], ignore_errors=True)  # which a killed asker can't
        given = stack.enter_context(opened(question))
        stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)  # what it made is to be cleared away
        _run(module.FACTS, names, given, asker)
        asker.send((END, None, None))


def _run(probes: Mapping[str, Probe], names: Sequence[str], given: Any, asker: Connection) -> None:
    for name in names:
        asker.send((BEGIN, name, probes[name].limit_s))
        kind, content = _look(probes[name], given)
        asker.send((kind, name, content))
        if kind == FAULT and probes[name].is_vital:
            return


def _look(probe: Probe, given: Any) -> tuple[str, Any]:
    try:
        return VALUE, probe.look(given)
    except RayloraError as error:
        return FAULT, str(error)
    except Exception as error:  # of whatever library was looked at
        return FAULT, f"{type(error).__name__}: {first_line(error)}"


def _end_with(asker: Connection) -> None:
    """The asker says nothing more, so what comes is its end: interrupt the main thread, which clears away."""
    with suppress(EOFError, OSError):
        asker.recv()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(END_S)
    os._exit(1)


if __name__ == "__main__":
    answer(Connection(int(sys.argv[2])), importlib.import_module(sys.argv[1]))
