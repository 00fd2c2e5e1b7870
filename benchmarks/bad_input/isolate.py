"""One command in a process of its own, watched: its time, its memory, what it prints and what it leaves."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.bad_input.kinds import CANARY, FINE, REFUSED, Kind, Shared

MOST_S = 60
"""Of a machine that does nothing else; see `crowd`."""
MOST_GROWTH_MIB = 3 * 1024
"""Beyond what the process had before the command: then it is ended."""
LONGEST_TOLD = 20_000
"""Characters on stderr; more is no message."""
NOBODY = 65534
IS_ROOT = os.getuid() == 0
"""Who isn't has no right to read everything anyhow."""
CHECKOUT = Path(__file__).resolve().parents[2]
LONGEST_KEPT = 200
NO_END = 99
"""The exit status of a process that has not come to its own."""
TRACEBACK, BUG = "Traceback (most recent call last)", "This is a bug in raylora"
MESSAGES = ("raylora: error: ", "raylora: failed: ", "╭─ Error")
"""How a message begins: raylora's own, and typer's of wrong usage."""
OWN_PLACES = ("work/out", "home/.cache", "home/.ray", "tmp", "stdout", "stderr")
"""Where a command may write, in its sandbox."""

Tree = dict[str, tuple[int, int, int]]


@dataclass
class Outcome:
    """What came of a kind."""

    kind: Kind
    status: int | None = None
    wall_s: float = 0.0
    peak_mib: float = 0.0
    """Of memory beyond what the process had at its start."""
    told: str = ""
    faults: list[str] = field(default_factory=list)

    @property
    def in_a_line(self) -> str:
        """Name, status, what was said, and what was wrong with it."""
        said = next((line for line in self.told.splitlines() if line.startswith(MESSAGES)), "")[:LONGEST_KEPT]
        return " | ".join([self.kind.name, str(self.status), *filter(None, [said, "; ".join(self.faults)])])


def crowd() -> float:
    """How many programs share each core with this one, over the last minute: all take so much longer."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Watched:
    """A kind under way.

    Args:
        work: what its process does with the words of the command.
    """

    def __init__(
        self, kind: Kind, sandbox: Path, shared: Shared, work: Callable[[Kind, list[str]], object] | None = None
    ):
        self.kind, self.sandbox, self._shared, self._work = kind, sandbox, shared, work or run_cli
        self.outcome = Outcome(kind)
        shared.furnish(sandbox / "work")
        for name in ("home", "tmp"):
            (sandbox / name).mkdir()
        kind.make(sandbox / "work")
        if kind.as_nobody and IS_ROOT:
            _give_away(sandbox)
        self._had_out = (sandbox / "work" / "out").exists()
        self._before = tree_of(sandbox)
        self._began = time.monotonic()
        self._start_mib = 0.0
        self.pid = self._fork()

    def _fork(self) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                _enter(self.kind, self.sandbox)
                self._work(self.kind, self._words())
            finally:
                os._exit(NO_END)
        return pid

    def _words(self) -> list[str]:
        """The command line, with odd bytes as the system gives them."""
        shared = self._shared
        places = {"@BASE@": shared.base, "@LORA@": shared.lora, "@TAGGER@": shared.tagger, "@BLIP@": shared.blip}
        command = self.kind.command
        for word, path in places.items():
            command = command.replace(word, str(path))
        return shlex.split(command)

    def look(self) -> Outcome | None:
        """The outcome, once there is one; a process that takes too long or too much is ended."""
        ended, raw, usage = os.wait4(self.pid, os.WNOHANG)
        if ended:
            return self._end(raw, usage.ru_maxrss / 1024)
        if time.monotonic() - self._began > MOST_S * crowd():
            self._kill(f"hang: no end after {MOST_S} s")
        with contextlib.suppress(psutil.Error):
            rss = psutil.Process(self.pid).memory_info().rss / 2**20
            self._start_mib = self._start_mib or rss
            if rss - self._start_mib > MOST_GROWTH_MIB:
                self._kill(f"memory: grew by more than {MOST_GROWTH_MIB} MiB")
        return None

    def _kill(self, fault: str) -> None:
        if fault not in self.outcome.faults:
            self.outcome.faults.append(fault)
        os.kill(self.pid, signal.SIGKILL)

    def _end(self, raw: int, peak_mib: float) -> Outcome:
        outcome, status = self.outcome, os.waitstatus_to_exitcode(raw)
        _end_session(self.pid)
        outcome.status, outcome.wall_s = status, time.monotonic() - self._began
        outcome.peak_mib = max(0.0, peak_mib - self._start_mib) if self._start_mib else 0.0  # it was over at once
        out, err = (_text(self.sandbox / name) for name in ("stdout", "stderr"))
        outcome.told = self._without_places(err)
        outcome.faults += told_faults(self.kind, status, out, err) if not outcome.faults else []
        outcome.faults += self._left_faults(status, out + err)
        return outcome

    def _without_places(self, told: str) -> str:
        """Its words without this run's and this machine's folders."""
        places = {self.sandbox: "SANDBOX", self._shared.root: "SHARED", CHECKOUT: "CHECKOUT"}
        for place, word in places.items():
            told = told.replace(str(place), word)
        return told

    def _left_faults(self, status: int, told: str) -> list[str]:
        """What it wrote where it may not, and what it told that it may not."""
        after = tree_of(self.sandbox)
        changed = sorted(path for path in {*self._before, *after} if self._before.get(path) != after.get(path))
        faults = [f"outside: {path}" for path in changed if not path.startswith(OWN_PLACES)][:3]
        out = self.sandbox / "work" / "out"
        if status == REFUSED and not self._had_out and out.exists() and not (out / "state.json").is_file():
            faults.append("outside: a refused command left its output folder, with nothing to go on with")
        leaky = [path for path in changed if _holds_canary(self.sandbox / path)]
        return faults + ["secret: told"] * (CANARY in told) + [f"secret: in {path}" for path in leaky[:3]]


def told_faults(kind: Kind, status: int, out: str, err: str) -> list[str]:
    """What is wrong with a command's status and words."""
    if TRACEBACK in out + err or BUG in err:
        return ["traceback: " + err.strip()[-200:]]
    if status != kind.status:
        return [f"status: {status} and not {kind.status}: {err.strip()[-200:]}"]
    if len(err) > LONGEST_TOLD:
        return [f"status: {len(err)} characters are no message"]
    missing = [word for word in kind.finds if word not in out.replace("\n", " ")]
    if missing:
        return [f"status: the answer doesn't name {missing}: {out.strip()[-200:]}"]
    if status == FINE or kind.finds:
        return []
    messages = sum(line.startswith(MESSAGES) for line in err.splitlines())
    if messages != 1:
        return [f"status: {messages} messages and not one: {err.strip()[-200:]}"]
    if "\x1b]" in err or "\r" in err:
        return ["status: the message steers the terminal"]
    missing = [word for word in kind.tells if word not in err.replace("\n", " ")]
    return [f"status: the message doesn't name {missing}: {err.strip()[-200:]}"] if missing else []


def _enter(kind: Kind, sandbox: Path) -> None:
    """Everything of this process into the sandbox."""
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(sandbox / name, os.O_CREAT | os.O_WRONLY, 0o666), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(sandbox / "work")
    os.environ.update(_environment(sandbox, kind.environment))
    tempfile.tempdir = None
    if kind.as_nobody and IS_ROOT:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _environment(sandbox: Path, more: Mapping[str, str]) -> dict[str, str]:
    own = {"HOME": str(sandbox / "home"), "TMPDIR": str(sandbox / "tmp"), "COLUMNS": "200", "NO_COLOR": "1"}
    return {**own, **{name: value.replace("SANDBOX", str(sandbox)) for name, value in more.items()}}


def run_cli(kind: Kind, words: list[str]) -> None:
    """The command line in this process, which ends with it as the interpreter would."""
    if kind.is_fresh:
        os.execv(sys.executable, [sys.executable, "-m", "raylora", *words])
    sys.argv = ["raylora", *words]
    from raylora import cli

    status: object = NO_END
    try:
        cli.main()
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        import traceback

        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _end_session(pid: int) -> None:
    """End what a command has left running in its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def tree_of(root: Path) -> Tree:
    """Every path below a folder, with size, time of change and rights; links are not followed."""
    found: Tree = {}
    for place, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(place, name)  # noqa: PTH118 - thousands of times
            with contextlib.suppress(OSError):
                seen = os.lstat(path)
                is_folder = name in folders
                found[os.path.relpath(path, root)] = (
                    0 if is_folder else seen.st_size,
                    0 if is_folder else seen.st_mtime_ns,
                    seen.st_mode,
                )
    return found


def _give_away(folder: Path) -> None:
    """To a user without rights."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.lchown(os.path.join(place, name), NOBODY, NOBODY)  # noqa: PTH118
    os.chown(folder, NOBODY, NOBODY)


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.is_file() else ""


def _holds_canary(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and CANARY.encode() in path.read_bytes()
