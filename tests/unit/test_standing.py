"""How a search stands while it runs."""

from __future__ import annotations

import math

import pytest

from raylora.config import SearchConfig
from raylora.report.pace import makespan
from raylora.report.standing import After, Standing, best_of, sparkline
from raylora.tracking.recorder import Status, TrialRecord


class Clock:
    """Seconds, as somebody says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(number: int, images: int, score: float = 1.0, status: Status = "running") -> TrialRecord:
    trial = TrialRecord(f"t{number:03d}", number, {"lora.rank": 8}, is_baseline=number == 0, folder="")
    trial.status, trial.history = status, [{"score": score, "images_seen": images}]
    return trial


def hear(standing: Standing, clock: Clock, at_s: float, number: int, images: int, status: Status = "running") -> None:
    """A trial begins (at 0 images), reports, or ends."""
    clock.now = at_s
    trial = record(number, images, status=status)
    earlier = next((one.history for one in standing.records if one.number == number), [])
    trial.history = [*earlier, *trial.history] if images else []
    standing.hear(trial) if status == "running" else standing.end(trial)


def two_ended(trials: int, after: After = After()) -> tuple[Standing, Clock]:
    """A minute of set-up, then two trials at once, each at five images a second: 400 and 800 images."""
    clock = Clock()
    standing = Standing(trials, clock=clock, after=after)
    for number in (0, 1):
        hear(standing, clock, 60.0, number, 0)
    hear(standing, clock, 140.0, 1, 400)
    hear(standing, clock, 140.0, 1, 400, "stopped_early")
    assert standing.left_s is None  # of one trial nothing can be told
    hear(standing, clock, 220.0, 0, 800)
    hear(standing, clock, 220.0, 0, 800, "finished")
    return standing, clock


def test_time_left_is_that_of_as_many_images_at_the_pace_of_a_trial_without_the_set_up() -> None:
    standing, _ = two_ended(6)
    assert standing.elapsed_s == 220
    assert standing.left_s == pytest.approx(2 * 600 / 5)  # four trials of 600 images, two at once


def test_a_trial_that_came_further_than_most_is_seen_to_the_end_of_those_that_went_beyond() -> None:
    """Not to the mean of all that ended, which it has passed: that would be no time at all."""
    standing, clock = two_ended(3)
    hear(standing, clock, 220.0, 2, 0)
    hear(standing, clock, 360.0, 2, 700)
    assert standing.left_s == pytest.approx(100 / 5)
    hear(standing, clock, 600.0, 2, 1900)  # beyond all: up to its next report
    assert standing.left_s == pytest.approx(1200 / 5)


def test_between_reports_time_goes_on_and_what_is_late_is_not_done() -> None:
    standing, clock = two_ended(3)
    hear(standing, clock, 220.0, 2, 0)
    hear(standing, clock, 300.0, 2, 400)
    assert standing.left_s == pytest.approx(400 / 5)
    clock.now = 350.0
    assert standing.left_s == pytest.approx(150 / 5)
    clock.now = 900.0
    assert standing.left_s == pytest.approx(400 / 10 / 5)


def test_the_last_trials_run_at_the_pace_of_one() -> None:
    """Half of the places are empty then."""
    standing, clock = two_ended(3)
    hear(standing, clock, 220.0, 2, 0)
    assert standing.left_s == pytest.approx(600 / 5)


def test_new_seeds_and_the_training_on_all_images_are_in_it() -> None:
    standing, _ = two_ended(2, After(trainings=3, has_refit=True))
    assert standing.left_s == pytest.approx((2 * 600 + 600) / 5)  # three trainings, two at once, and one alone
    again = record(0, 0)
    again.trial_id, again.confirms, again.history = "c000", "t000", []
    again.params = {"training.stop_at": 100}
    standing.hear(again)
    assert standing.left_s == pytest.approx((100 + 600 + 600) / 5)
    for number in range(3):
        again = record(0, 100, status="finished")
        again.trial_id, again.confirms = f"c00{number}", "t000"
        standing.end(again)
    assert (standing.ended, standing.left_s) == (2, None)  # the one on all images tells nothing on its way


def test_what_follows_the_trials_is_what_the_settings_say() -> None:
    assert After.of(SearchConfig()) == After(8, True)
    assert After.of(SearchConfig(confirm_trials=0, refit=False)) == After()
    assert After.of(SearchConfig()).in_words == "new seeds and the training on all images"


def test_what_was_seen_before_an_interruption_tells_how_much_and_not_how_fast() -> None:
    clock = Clock()
    earlier = [record(0, 800, status="finished"), record(1, 400, status="stopped_early"), record(2, 200)]
    standing = Standing(4, earlier, clock)
    assert (standing.ended, standing.left_s) == (2, None)
    hear(standing, clock, 30.0, 2, 200)
    hear(standing, clock, 40.0, 2, 300)
    assert standing.left_s == pytest.approx((300 + 600) / 10)


def test_new_seeds_that_ended_before_an_interruption_are_not_to_come() -> None:
    again = [record(number, 100, status=status) for number, status in ((0, "finished"), (1, "failed"), (2, "running"))]
    for one in again:
        one.trial_id, one.confirms, one.params = f"c{one.number:03d}", "t000", {"training.stop_at": 200}
    clock = Clock()
    ended = [record(number, 200, status="finished") for number in (0, 1)]
    standing = Standing(2, [*ended, *again], clock, After(trainings=3))
    standing.hear(again[2])
    clock.now = 10.0
    again[2].history.append({"score": 1.0, "images_seen": 150})
    standing.hear(again[2])
    assert standing.left_s == pytest.approx(50 / 5)


def test_nothing_is_left_once_all_have_ended() -> None:
    assert two_ended(2)[0].left_s is None


def test_lengths_are_laid_out_in_their_turn() -> None:
    assert makespan([3, 1, 1, 1], 2) == 3
    assert makespan([1, 1, 1, 3], 2) == 4
    assert makespan([], 2) == 0


def test_a_trial_that_failed_is_not_the_best_whatever_it_had_reached() -> None:
    trials = [record(0, 100, 0.5, "finished"), record(1, 100, 9.0, "failed")]
    assert best_of(trials) is trials[0]
    assert best_of(trials[1:]) is None


def test_the_best_score_grows() -> None:
    standing = Standing(9)
    for number, score in enumerate([-math.inf, 0.5, 0.25, 1.5]):
        standing.end(record(number, 100, score, "finished"))
    assert standing.growth == [0.5, 0.5, 1.5]


@pytest.mark.parametrize(
    ("values", "bounds", "line"),
    [
        ([0, 1], (), "▁█"),
        ([3, 3, 3], (), "▁▁▁"),
        ([0, 7, 3.4, math.nan, 5], (), "▁█▄ ▆"),
        ([0.5, 9, -9], (0.0, 1.0), "▅█▁"),
        ([math.nan, -math.inf], (), ""),
        ([], (), ""),
    ],
)
def test_a_sparkline_has_a_block_for_each_value(values: list[float], bounds: tuple[float, ...], line: str) -> None:
    assert sparkline(values, *bounds) == line
