"""What is shown of a search while it runs."""

from __future__ import annotations

import io
import threading
import time
from typing import Any, cast

import pytest
from rich.console import Console

from raylora.report import live
from raylora.report.live import TableView, trials_table, view
from raylora.report.refreshed import Refreshed
from raylora.report.standing import MOST_ROWS, After, Standing, best_of
from raylora.tracking.recorder import Status, TrialRecord


class Terminal(io.StringIO):
    """A file that is one."""

    def isatty(self) -> bool:
        return True


def console_on(is_terminal: bool, text: io.StringIO | None = None, height: int = 40, **environment: str) -> Console:
    file = text or (Terminal() if is_terminal else io.StringIO())
    return Console(file=file, width=160, height=height, _environ=environment)


def report(score: float, images: int) -> dict[str, Any]:
    return {"score": score, "holdout_loss": 0.1, "sample_similarity": 0.5, "images_seen": images}


def record(number: int, score: float, status: Status = "running", reason: str | None = None) -> TrialRecord:
    trial = TrialRecord(f"t{number:03d}", number, {"lora.rank": 8}, is_baseline=number == 0, folder="")
    trial.status, trial.stop_reason, trial.history = status, reason, [report(score, 100)]
    return trial


def shown(is_terminal: bool, earlier: list[TrialRecord], ended: TrialRecord) -> str:
    """All that a search of 5 trials printed when one more of its trials ended."""
    console = console_on(is_terminal)
    with view(console, 5, earlier) as listener:
        listener.trial_started(ended)
        listener.trial_reported(ended)
        listener.trial_ended(ended)
    return told_on(console)


def told_on(console: Console) -> str:
    return cast(io.StringIO, console.file).getvalue()


@pytest.mark.parametrize("is_terminal", [True, False], ids=["table", "lines"])
def test_trials_before_a_resume_count(is_terminal: bool) -> None:
    earlier = [record(0, 1.5, "finished"), record(1, 0.5, "stopped_early", "asha"), record(2, 0.25)]
    told = shown(is_terminal, earlier, record(3, 1.25, "finished"))
    assert (
        "3 of 5 trials ended, best score so far 1.500 (t000)" if is_terminal else "3 of 5, best score so far 1.500"
    ) in told


def test_lines_tell_what_was_stopped_and_why() -> None:
    lines = shown(False, [], record(4, 0.75, "stopped_early", "overfit")).splitlines()
    assert "t004 goes on from 100 images: rank 8" in lines[0]
    assert "t004 at 100 images: score 0.750, held-out loss 0.1000, similarity 0.500" in lines[1]
    assert "t004 stopped early (overfit); 1 of 5, best score so far 0.750" in lines[2]


def test_a_new_trial_is_said_to_start_and_one_with_reports_to_go_on() -> None:
    new, kept = record(4, 0.75), record(5, 0.75)
    new.history = []
    console = console_on(False)
    with view(console, 5) as listener:
        listener.trial_started(new)
        listener.trial_started(kept)
    first, second = told_on(console).splitlines()
    assert "t004 started: rank 8" in first
    assert "t005 goes on from 100 images: rank 8" in second


def test_the_table_names_the_guides_own_trial_and_a_reason() -> None:
    table = shown(True, [record(0, 1.0, "finished")], record(1, 0.5, "stopped_early", "asha"))
    assert "t000 guide" in table
    assert "asha" in table


def test_a_trial_takes_one_line_of_a_narrow_terminal() -> None:
    text = io.StringIO()
    trials = [record(number, 0.5, "stopped_early", "forecast at 100 images") for number in range(5)]
    for trial in trials:
        trial.params = {"optimizer.unet_lr": 0.001, "lora.rank": 16, "lora.alpha": 8, "lr_scheduler.name": "cosine"}
    console = Console(file=text, width=80, _environ={})
    console.print(trials_table(trials, console.width))
    assert len(text.getvalue().splitlines()) == live.FRAME + len(trials)
    assert "forecast at 100 im" in text.getvalue()


def test_the_table_is_drawn_when_something_changes_and_not_all_the_time() -> None:
    """Drawing takes the processor from the trials."""
    text = Terminal()
    with view(console_on(True, text), 5) as listener:
        listener.trial_started(record(0, 1.0))
        drawn = text.tell()
        time.sleep(0.6)
        assert text.tell() == drawn > 0


@pytest.mark.parametrize("is_terminal", [True, False], ids=["table", "lines"])
def test_brackets_in_a_reason_are_shown_as_they_are(is_terminal: bool) -> None:
    told = shown(is_terminal, [], record(1, 0.5, "failed", "[enforce fail at x] no [/x]"))
    assert "[enforce fail at x] no [/x]" in told


@pytest.mark.parametrize("is_terminal", [True, False], ids=["table", "lines"])
def test_a_trial_that_broke_a_limit_is_not_the_best_so_far(is_terminal: bool) -> None:
    """Its first scores came before it did."""
    over, others = record(1, 2.5, "stopped_early", "limit: train_s 9 > 5"), [record(0, 1.5, "finished")]
    over.over_limits = {"train_s": 9.0}
    told = shown(is_terminal, others, over)
    assert "best score so far 1.500 (t000)" in told
    assert "limit: train_s 9 > 5" in told


@pytest.mark.parametrize("is_terminal", [True, False], ids=["table", "lines"])
def test_before_any_score_none_is_told(is_terminal: bool) -> None:
    console = console_on(is_terminal)
    failed = TrialRecord("t000", 0, {"lora.rank": 8}, is_baseline=True, folder="", status="failed")
    with view(console, 5) as listener:
        listener.trial_ended(failed)
    assert "no score so far" in told_on(console)
    assert "inf" not in told_on(console)


@pytest.mark.parametrize("is_terminal", [True, False], ids=["table", "lines"])
def test_new_seeds_are_shown_and_not_counted(is_terminal: bool) -> None:
    ours = record(0, 9.0, "finished")
    ours.trial_id, ours.confirms, ours.params = "c000", "t001", {"lora.rank": 8, "seed": 3}
    told = shown(is_terminal, [record(1, 1.5, "finished")], ours)
    assert "t001 again, seed 3" in told
    assert "c000" in told
    assert "2 of 5" not in told
    assert "best score so far 9" not in told


@pytest.mark.parametrize("is_terminal", [True, False], ids=["table", "lines"])
def test_of_many_trials_all_are_counted_the_best_is_told_and_few_are_kept(is_terminal: bool) -> None:
    console, scores = console_on(is_terminal), [9.0, *[number / 100 for number in range(1, 3 * MOST_ROWS)]]
    over = record(len(scores), 99.0, "stopped_early", "limit: train_s 9 > 5")
    over.over_limits = {"train_s": 9.0}
    with view(console, 99) as listener:
        for ended in [*(record(number, score, "finished") for number, score in enumerate(scores)), over]:
            listener.trial_ended(ended)
        kept = cast(Any, listener)._standing.records
    assert f"{len(scores) + 1} of 99" in told_on(console)
    best = best_of(kept)
    assert best is not None and best.trial_id == "t000"
    assert len(kept) <= MOST_ROWS + 1


def drawn(table: TableView, console: Console) -> list[str]:
    """The picture's lines as they stand now, without the spaces at their ends."""
    with console.capture() as captured:
        console.print(table.picture())
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_lines_above_the_table_tell_counts_time_the_best_and_what_is_in_use() -> None:
    now = [0.0]
    standing = Standing(4, clock=lambda: now[0], after=After(trainings=2, has_refit=True))
    console = console_on(False)
    table = TableView(console, standing, lambda: "3 of 4 GPUs; here 97% busy, 21.3 of 24.0 GiB")
    assert drawn(table, console) == [""]
    for number, score in ((0, 0.5), (1, 0.75)):
        trial = record(number, score)
        reports, trial.history = trial.history, []
        table.trial_started(trial)
        now[0] += 50
        trial.history = reports
        table.trial_reported(trial)
        trial.status = "finished"
        table.trial_ended(trial)
    assert drawn(table, console)[:5] == [
        "",
        "2 of 4 trials ended, best score so far 0.750 (t001)",
        "Time    100 s so far; about 4 min left, with new seeds and the training on all images",
        "Best    ▁█ rank 8",
        "In use  3 of 4 GPUs; here 97% busy, 21.3 of 24.0 GiB",
    ]


@pytest.mark.parametrize("height", [13, 24])
def test_what_runs_is_seen_on_a_low_terminal(height: int) -> None:
    """What doesn't fit, the terminal would cut off below: there stands what began last."""
    standing, console = Standing(99), console_on(False, height=height)
    table = TableView(console, standing, lambda: "2 of 2 GPUs")
    for number in range(30):
        standing.end(record(number, number / 100, "finished"))
    standing.hear(record(30, 0.001))
    again = record(0, 0.1)
    again.trial_id, again.confirms, again.params = "c000", "t029", {"lora.rank": 8, "seed": 1}
    standing.hear(again)
    lines = drawn(table, console)
    assert len(lines) <= height
    rows = [line.split()[0] for line in lines[-height:] if line.strip()]
    assert {"t029", "t030", "c000"} <= set(rows)
    assert height < 24 or sum(name.startswith("t0") for name in rows) > 8


@pytest.mark.parametrize("is_terminal", [True, False], ids=["table", "lines"])
def test_nothing_that_is_told_steers_the_terminal_or_opens_a_store(is_terminal: bool) -> None:
    hostile = record(1, 0.5, "failed", "s3://key:hunter2@bucket \x1b[2J\x07 gone\nnext")
    hostile.params = {"lr_scheduler.name": "\x1b]0;title\x07"}
    told = shown(is_terminal, [record(0, 1.0, "finished")], hostile)
    assert "hunter2" not in told and "s3://***@bucket" in told
    assert "\x1b[2J" not in told and "\x07" not in told and "\x1b]0" not in told
    assert "\\x1b[2J" in told


@pytest.mark.parametrize(
    ("is_terminal", "environment", "is_table"),
    [(True, {"TERM": "xterm"}, True), (True, {"TERM": "dumb"}, False), (False, {"FORCE_COLOR": "1"}, False)],
)
def test_a_table_is_drawn_where_lines_can_be_drawn_over(
    is_terminal: bool, environment: dict[str, str], is_table: bool
) -> None:
    console = console_on(is_terminal, **environment)
    with view(console, 5) as listener:
        assert isinstance(listener, TableView) == is_table
        listener.trial_ended(record(0, 1.0, "finished"))
        assert "1 of 5" in told_on(console)  # before its end


def test_one_diverged_trial_does_not_flatten_the_others() -> None:
    trials = [record(number, 1 + number / 10, "finished") for number in range(6)]
    trials.append(record(6, -1e6, "stopped_early", "forecast"))
    console = console_on(False)
    console.print(trials_table(trials, 160))
    blocks = [sign for sign in told_on(console) if sign in "▁▂▃▄▅▆▇█"]
    assert len(set(blocks)) >= 5


def test_what_is_slow_to_ask_holds_nobody_up_and_is_asked_again() -> None:
    asked, may_answer = threading.Semaphore(0), threading.Semaphore(0)

    def ask() -> str:
        asked.release()
        may_answer.acquire()
        return "busy"

    with Refreshed(ask, every_s=0) as latest:
        assert asked.acquire(timeout=30)
        assert latest() == ""  # and no waiting
        may_answer.release()
        assert asked.acquire(timeout=30)
        assert latest() == "busy"
    may_answer.release(2)
