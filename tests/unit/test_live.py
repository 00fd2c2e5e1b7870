"""What is shown of a search while it runs."""

from __future__ import annotations

import io
import time
from typing import Any, cast

import pytest
from rich.console import Console

from raylora.report.live import trials_table, view
from raylora.report.standing import MOST_ROWS, best_of
from raylora.tracking.recorder import Status, TrialRecord


def report(score: float, images: int) -> dict[str, Any]:
    return {"score": score, "holdout_loss": 0.1, "sample_similarity": 0.5, "images_seen": images}


def record(number: int, score: float, status: Status = "running", reason: str | None = None) -> TrialRecord:
    trial = TrialRecord(f"t{number:03d}", number, {"lora.rank": 8}, is_baseline=number == 0, folder="")
    trial.status, trial.stop_reason, trial.history = status, reason, [report(score, 100)]
    return trial


def shown(is_terminal: bool, earlier: list[TrialRecord], ended: TrialRecord) -> str:
    """All that a search of 5 trials printed when one more of its trials ended."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=is_terminal, width=160, _environ={})
    with view(console, 5, earlier) as listener:
        listener.trial_started(ended)
        listener.trial_reported(ended)
        listener.trial_ended(ended)
    return text.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False], ids=["table", "lines"])
def test_trials_before_a_resume_count(is_terminal: bool) -> None:
    earlier = [record(0, 1.5, "finished"), record(1, 0.5, "stopped_early", "asha"), record(2, 0.25)]
    told = shown(is_terminal, earlier, record(3, 1.25, "finished"))
    assert (
        "3 of 5 trials ended, best score so far 1.500 (t000)" if is_terminal else "3 of 5, best score so far 1.500"
    ) in told


def test_lines_tell_what_was_stopped_and_why() -> None:
    lines = shown(False, [], record(4, 0.75, "stopped_early", "overfit")).splitlines()
    assert "t004 started: rank 8" in lines[0]
    assert "t004 at 100 images: score 0.750, held-out loss 0.1000, similarity 0.500" in lines[1]
    assert "t004 stopped early (overfit); 1 of 5, best score so far 0.750" in lines[2]


def test_the_table_names_the_guides_own_trial_and_a_reason() -> None:
    table = shown(True, [record(0, 1.0, "finished")], record(1, 0.5, "stopped_early", "asha"))
    assert "t000 guide" in table
    assert "asha" in table


def test_a_trial_takes_no_more_than_two_lines_of_a_narrow_terminal() -> None:
    text = io.StringIO()
    trials = [record(number, 0.5, "stopped_early", "forecast at 100 images") for number in range(5)]
    for trial in trials:
        trial.params = {"optimizer.unet_lr": 0.001, "lora.rank": 16, "lora.alpha": 8, "lr_scheduler.name": "cosine"}
    console = Console(file=text, width=80, _environ={})
    console.print(trials_table(trials, console.width))
    assert len(text.getvalue().splitlines()) <= 6 + 2 * len(trials)


def test_the_table_is_drawn_when_something_changes_and_not_all_the_time() -> None:
    """Drawing takes the processor from the trials."""
    text = io.StringIO()
    with view(Console(file=text, force_terminal=True, width=160, _environ={}), 5) as listener:
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
    text = io.StringIO()
    failed = TrialRecord("t000", 0, {"lora.rank": 8}, is_baseline=True, folder="", status="failed")
    with view(Console(file=text, force_terminal=is_terminal, width=160, _environ={}), 5) as listener:
        listener.trial_ended(failed)
    assert "no score so far" in text.getvalue()
    assert "inf" not in text.getvalue()


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
    text, scores = io.StringIO(), [9.0, *[number / 100 for number in range(1, 3 * MOST_ROWS)]]
    over = record(len(scores), 99.0, "stopped_early", "limit: train_s 9 > 5")
    over.over_limits = {"train_s": 9.0}
    with view(Console(file=text, force_terminal=is_terminal, width=160, _environ={}), 99) as listener:
        for ended in [*(record(number, score, "finished") for number, score in enumerate(scores)), over]:
            listener.trial_ended(ended)
        kept = cast(Any, listener)._standing.records
    assert f"{len(scores) + 1} of 99" in text.getvalue()
    best = best_of(kept)
    assert best is not None and best.trial_id == "t000"
    assert len(kept) <= MOST_ROWS + 1
