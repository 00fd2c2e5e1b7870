"""A process that hangs is ended, and no other."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from raylora.execution.watchdog import watched


def end_of(body: str, limit_s: float = 0.4) -> int:
    """The exit status of a process that does this within `watched`."""
    script = f"""
import os, signal, time
from raylora.execution.watchdog import watched
with watched({limit_s}) as watch:
{textwrap.indent(textwrap.dedent(body), "    ")}
"""
    return subprocess.run([sys.executable, "-c", script], timeout=300, check=False).returncode


SILENCES = ("time.sleep(60)", "watch.beat(); time.sleep(60)", "os.kill(os.getpid(), signal.SIGSTOP)",
            "watch.rest(); time.sleep(0.1); watch.beat(); time.sleep(60)")  # fmt: skip
SIGNS_OF_LIFE = ("for _ in range(40): watch.beat(); time.sleep({limit_s} / 20)",
                 "watch.rest(); time.sleep(1.5 * {limit_s})", "pass")  # fmt: skip


@pytest.mark.parametrize("body", SILENCES)
def test_a_process_that_hangs_or_stands_still_is_killed(body: str) -> None:
    assert end_of(body) == -signal.SIGKILL


@pytest.mark.parametrize("body", SIGNS_OF_LIFE)
def test_one_that_lives_or_rests_is_not(body: str) -> None:
    limits = (1.0, 10.0)  # the second for a machine that stands still itself
    assert any(end_of(body.format(limit_s=limit_s), limit_s) == 0 for limit_s in limits)


def test_nothing_is_left_of_the_watchdog() -> None:
    this = psutil.Process()
    descriptors, children = this.num_fds(), this.children()
    with watched(60) as watch:
        watch.beat()
        (watchdog,) = set(this.children()) - set(children)
    assert not watchdog.is_running()
    assert this.num_fds() == descriptors


def test_it_ends_with_what_it_watches_even_if_that_is_killed() -> None:
    script = (
        "import time; from raylora.execution.watchdog import watched\n"
        "with watched(600): print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (watchdog,) = psutil.Process(process.pid).children()
        process.kill()
    watchdog.wait(timeout=120)
