"""A search as it runs: a live table on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raylora.config import describe
from raylora.redaction import shown
from raylora.report.refreshed import Refreshed
from raylora.report.scales import fence_of
from raylora.report.standing import LONGEST_LINE, MOST_ROWS, After, Standing, best_of, counts, sparkline
from raylora.report.terminal import can_redraw
from raylora.report.words import duration
from raylora.tracking.recorder import Listener, TrialRecord

DRAWN_EVERY_S = 5
"""Without a change: time goes on, and what the GPUs do changes. Drawing takes the processor from the trials."""
WIDE = 110
"""Characters from which there is room for more than the numbers."""
STATUS = 20
"""Characters at least of how a trial ended, on a narrow terminal."""
FRAME = 5
"""Lines of the table around its rows."""
Usage = Callable[[], str]
"""What the machines do at the moment, in a line; empty where nothing is known."""


def _nothing() -> str:
    return ""


class PlainView:
    """A line for every report and every end."""

    def __init__(self, console: Console, standing: Standing, usage: Usage):
        self._console, self._standing, self._usage = console, standing, usage
        self._began = time.monotonic()

    def trial_started(self, trial: TrialRecord) -> None:
        what = f"{trial.confirms} again, seed {trial.params['seed']}" if trial.confirms else describe(trial.params)
        self._standing.hear(trial)
        how = f"goes on from {trial.images_seen:,} images" if trial.history else "started"
        self._say(f"{trial.trial_id} {how}: {what}" + (" (the guide's own)" if trial.is_baseline else ""))

    def trial_reported(self, trial: TrialRecord) -> None:
        report = trial.last or {}
        self._standing.hear(trial)
        self._say(
            f"{trial.trial_id} at {trial.images_seen} images: score {report['score']:.3f}, "
            f"held-out loss {report['holdout_loss']:.4f}, similarity {report['sample_similarity']:.3f}"
        )

    def trial_ended(self, trial: TrialRecord) -> None:
        standing = self._standing
        standing.end(trial)
        reason = f" ({trial.stop_reason})" if trial.stop_reason else ""
        so_far = [f"{standing.ended} of {standing.trials}, {_best_so_far(standing.best)}", *_left(standing)]
        use = [told] if counts(trial) and (told := self._usage()) else []
        self._say("; ".join([f"{trial.trial_id} {trial.status.replace('_', ' ')}{reason}",
                             *(so_far if counts(trial) else []), *use]))  # fmt: skip

    def _say(self, text: str) -> None:
        told = f"[{time.monotonic() - self._began:5.0f} s] {shown(text)}"
        self._console.print(told, markup=False, highlight=False, soft_wrap=True)


class TableView:
    """One table beneath a few lines on the whole, drawn anew at every change and every `DRAWN_EVERY_S`."""

    def __init__(self, console: Console, standing: Standing, usage: Usage):
        self._console, self._standing, self._usage = console, standing, usage
        self._live: Live | None = None

    def drawn_by(self, live: Live) -> None:
        """Which live display to draw on."""
        self._live = live

    def trial_started(self, trial: TrialRecord) -> None:
        self._standing.hear(trial)
        self._draw()

    def trial_reported(self, trial: TrialRecord) -> None:
        self._standing.hear(trial)
        self._draw()

    def trial_ended(self, trial: TrialRecord) -> None:
        self._standing.end(trial)
        if trial.status == "failed":  # above the table, which has no room for reasons
            why = shown(f"{trial.trial_id} failed: {trial.stop_reason or 'no report'}")
            self._console.print(why, markup=False, highlight=False, soft_wrap=True)
        self._draw()

    def picture(self) -> RenderableType:
        """All that is to be seen now, within the terminal's height."""
        standing, (width, height) = self._standing, self._console.size
        if not standing.records:
            return Text("")
        lines = [_one_line(line) for line in _headlines(standing, self._usage())]
        return Group(*lines, trials_table(standing.records, width, height - len(lines) - FRAME))

    def _draw(self) -> None:
        if self._live:
            self._live.refresh()


def _headlines(standing: Standing, usage: str) -> list[str]:
    """Counts and time, the best with its settings, what the machines do."""
    best = standing.best
    lines = ["", f"{standing.ended} of {standing.trials} trials ended, {_best_so_far(best)}",
             "; ".join([f"Time    {duration(standing.elapsed_s)} so far", *_left(standing)])]  # fmt: skip
    if best:
        growth = sparkline(standing.growth[-LONGEST_LINE:])
        lines.append(" ".join(filter(None, ["Best   ", growth, describe(best.params)])))
    return [*lines, f"In use  {usage}"] if usage else lines


def _left(standing: Standing) -> list[str]:
    left_s, after = standing.left_s, standing.after.in_words
    if left_s is None:
        return []
    return [f"about {duration(left_s)} left" + (f", with {after}" if after else "")]


def trials_table(records: Sequence[TrialRecord], width: int, most: int = MOST_ROWS) -> Table:
    """The trials so far, a line each, the best marked.

    Args:
        width: of the terminal, in characters.
        most: rows; where there are more, those with the lowest scores that have ended make room.
    """
    best, bounds = best_of(records), _bounds(records)
    table = _empty_table(width)
    for record in _kept(records, best, max(1, most)):
        name, status, *numbers, settings = _cells(record)
        growth = [Text(_by_rung(record, bounds))] if width >= WIDE else []
        cells = [_one_line(name), _one_line(status), *map(Text, numbers), *growth, _one_line(settings)]
        table.add_row(*cells, style="bold green" if record is best else None)
    return table


def _kept(records: Sequence[TrialRecord], best: TrialRecord | None, most: int) -> list[TrialRecord]:
    """The best and what is under way first, then new seeds, then others by their scores; told as they began."""
    order = sorted(
        records,
        key=lambda record: (record is not best and record.status != "running", counts(record), -record.score),
    )
    return sorted(order[:most], key=lambda record: (not counts(record), record.number))


def _one_line(text: str) -> Text:
    return Text(shown(text).replace("\n", " ").expandtabs(1), no_wrap=True, overflow="ellipsis")


def _empty_table(width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("trial", no_wrap=True)
    table.add_column("status", min_width=STATUS)
    for column in ("images", "score", "held-out\nloss", "similarity"):
        table.add_column(column, justify="right", no_wrap=True)
    if width >= WIDE:
        table.add_column("score\nby rung", no_wrap=True)
    table.add_column("settings")
    return table


def _by_rung(record: TrialRecord, bounds: tuple[float, float] | None) -> str:
    """A block for each rung that the trial was measured at; of one height in all rows for one score."""
    return sparkline([report["score"] for report in record.history], *(bounds or (None, None)))


def _bounds(records: Sequence[TrialRecord]) -> tuple[float, float] | None:
    """Lowest and highest score of all reports that are shown, but for those far below all others."""
    scores = [report["score"] for record in records for report in record.history if math.isfinite(report["score"])]
    fence = fence_of(scores)
    near = [score for score in scores if score >= fence]
    return (min(near), max(near)) if near else None


def _cells(record: TrialRecord) -> list[str]:
    report = record.best
    digits = {"score": 3, "holdout_loss": 4, "sample_similarity": 3}
    numbers = [f"{report[key]:.{places}f}" if report else "" for key, places in digits.items()]
    status = record.stop_reason or record.status.replace("_", " ")
    name = f"{record.trial_id} guide" if record.is_baseline else record.trial_id
    what = f"{record.confirms} again, seed {record.params['seed']}" if record.confirms else describe(record.params)
    return [name, status, f"{record.images_seen:,}", *numbers, what]


def _best_so_far(best: TrialRecord | None) -> str:
    return f"best score so far {best.score:.3f} ({best.trial_id})" if best else "no score so far"


@contextmanager
def view(
    console: Console,
    trials: int,
    earlier: Sequence[TrialRecord] = (),
    usage: Usage = _nothing,
    after: After = After(),
) -> Iterator[Listener]:
    """The right view for where the output goes, while the block lasts.

    Args:
        earlier: trials of the same search before it was interrupted.
        usage: asked in a thread of its own; it may take its time.
        after: what the search does once its trials have ended.
    """
    standing = Standing(trials, earlier, after=after)
    with Refreshed(usage, DRAWN_EVERY_S) as latest:
        if not can_redraw(console):
            yield PlainView(console, standing, latest)
            return
        table = TableView(console, standing, latest)
        with Live(console=console, get_renderable=table.picture, refresh_per_second=1 / DRAWN_EVERY_S) as live:
            table.drawn_by(live)
            yield table
