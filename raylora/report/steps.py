"""Work on many pictures as it runs: bars on a terminal, a line now and then elsewhere. All of it on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from raylora.report.terminal import can_redraw

LINES = 10
"""Of each kind of work, where there is no terminal."""

Tell = Callable[[str, int, int], None]
"""What is done (`cut`), how many of how many."""


@contextmanager
def steps(console: Console) -> Iterator[Tell]:
    """The right view for where the output goes, while the block lasts."""
    if not can_redraw(console):
        yield lambda what, done, total: _say(console, what, done, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress)


def _say(console: Console, what: str, done: int, total: int) -> None:
    """A line at each tenth of the way."""
    if done * LINES // total > (done - 1) * LINES // total or done == total:
        console.print(f"{what} {done} of {total}", markup=False, highlight=False)


class _Bars:
    """A bar for each kind of work."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
