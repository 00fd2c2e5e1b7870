"""A search as it runs: a live table on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raylora.config import describe
from raylora.tracking.recorder import Listener, TrialRecord

MOST_ROWS = 20


class Shown:
    """The records that may still be shown: those of trials under way, of new seeds, and the best of those that ended.

    A search has any number of trials, and each record all reports of its trial.
    """

    def __init__(self, earlier: Sequence[TrialRecord]):
        self._records: dict[str, TrialRecord] = {}
        self.ended = 0
        """How many of the search's trials have."""
        for record in earlier:
            self.end(record) if _has_ended(record) else self.hear(record)

    def hear(self, record: TrialRecord) -> None:
        """A trial that has begun or reported."""
        self._records[record.trial_id] = record

    def end(self, record: TrialRecord) -> None:
        """A trial that has ended: told once of each."""
        self.hear(record)
        self.ended += _counts(record)
        ended = sorted(filter(_has_ended, self._records.values()), key=lambda record: -record.score)
        best = best_of(ended)
        for record in ended[MOST_ROWS:]:
            if record is not best:
                del self._records[record.trial_id]

    @property
    def records(self) -> list[TrialRecord]:
        return list(self._records.values())


class PlainView:
    """A line for every report and every end."""

    def __init__(self, console: Console, trials: int, earlier: Sequence[TrialRecord] = ()):
        self._console, self._trials = console, trials
        self._shown = Shown(earlier)
        self._began = time.monotonic()

    def trial_started(self, trial: TrialRecord) -> None:
        what = f"{trial.confirms} again, seed {trial.params['seed']}" if trial.confirms else describe(trial.params)
        self._say(f"{trial.trial_id} started: {what}" + (" (the guide's own)" if trial.is_baseline else ""))

    def trial_reported(self, trial: TrialRecord) -> None:
        report = trial.last or {}
        self._shown.hear(trial)
        self._say(
            f"{trial.trial_id} at {trial.images_seen} images: score {report['score']:.3f}, "
            f"held-out loss {report['holdout_loss']:.4f}, similarity {report['sample_similarity']:.3f}"
        )

    def trial_ended(self, trial: TrialRecord) -> None:
        self._shown.end(trial)
        reason = f" ({trial.stop_reason})" if trial.stop_reason else ""
        best = _best_so_far(best_of(self._shown.records))
        so_far = f"; {self._shown.ended} of {self._trials}, {best}" if _counts(trial) else ""
        self._say(f"{trial.trial_id} {trial.status.replace('_', ' ')}{reason}{so_far}")

    def _say(self, text: str) -> None:
        self._console.print(
            f"[{time.monotonic() - self._began:5.0f} s] {text}", markup=False, highlight=False, soft_wrap=True
        )


class TableView:
    """One table, drawn anew at every change."""

    def __init__(self, live: Live, trials: int, earlier: Sequence[TrialRecord] = ()):
        self._live, self._trials = live, trials
        self._shown = Shown(earlier)

    def trial_started(self, trial: TrialRecord) -> None:
        self._shown.hear(trial)
        self._draw()

    def trial_reported(self, trial: TrialRecord) -> None:
        self._shown.hear(trial)
        self._draw()

    def trial_ended(self, trial: TrialRecord) -> None:
        self._shown.end(trial)
        self._draw()

    def _draw(self) -> None:
        self._live.update(trials_table(self._shown.records, self._shown.ended, self._trials), refresh=True)


def trials_table(records: list[TrialRecord], ended: int, trials: int) -> Table:
    """The trials so far, the best marked; those with the lowest scores make room when there are many.

    Args:
        ended: how many have; records of some of these may be left out.
    """
    counted = [record for record in records if _counts(record)]
    best = best_of(counted)
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=f"{ended} of {trials} trials ended, {_best_so_far(best)}",
    )
    table.add_column("trial", no_wrap=True)
    table.add_column("status")
    for column in ("images", "score", "held-out\nloss", "similarity"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("settings")
    again = [record for record in records if not _counts(record)]
    kept = sorted(counted, key=lambda record: (record.status != "running", -record.score))[:MOST_ROWS]
    for record in [*sorted(kept, key=lambda record: record.number), *again]:
        *short, settings = _cells(record)
        one_line = Text(settings, no_wrap=True, overflow="ellipsis")
        table.add_row(*map(Text, short), one_line, style="bold green" if record is best else None)
    return table


def _cells(record: TrialRecord) -> list[str]:
    report = record.best
    digits = {"score": 3, "holdout_loss": 4, "sample_similarity": 3}
    numbers = [f"{report[key]:.{places}f}" if report else "" for key, places in digits.items()]
    status = record.stop_reason or record.status.replace("_", " ")
    name = f"{record.trial_id} guide" if record.is_baseline else record.trial_id
    what = f"{record.confirms} again, seed {record.params['seed']}" if record.confirms else describe(record.params)
    return [name, status, str(record.images_seen), *numbers, what]


def _counts(record: TrialRecord) -> bool:
    """Whether it is one of the search's trials, and not one of the best trained again."""
    return record.confirms is None


def _has_ended(record: TrialRecord) -> bool:
    return _counts(record) and record.status != "running"


def best_of(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The one that would win by its own score; None before any score."""
    able = [record for record in records if _counts(record) and not record.over_limits and math.isfinite(record.score)]
    return max(able, key=lambda record: record.score, default=None)


def _best_so_far(best: TrialRecord | None) -> str:
    return f"best score so far {best.score:.3f} ({best.trial_id})" if best else "no score so far"


@contextmanager
def view(console: Console, trials: int, earlier: Sequence[TrialRecord] = ()) -> Iterator[Listener]:
    """The right view for where the output goes, while the block lasts.

    Args:
        earlier: trials of the same search before it was interrupted.
    """
    if not console.is_terminal:
        yield PlainView(console, trials, earlier)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield TableView(live, trials, earlier)
