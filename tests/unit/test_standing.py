"""How a search stands while it runs."""

from __future__ import annotations

import math

import pytest

from raylora.report.standing import Standing, duration, sparkline
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


def test_time_left_is_that_of_as_many_images_at_the_pace_so_far() -> None:
    clock = Clock()
    standing = Standing(6, clock=clock)
    standing.end(record(0, 800, status="finished"))
    assert standing.left_s is None  # of one trial, the guide's, nothing can be told
    standing.end(record(1, 400, status="stopped_early"))
    standing.hear(record(2, 500))
    standing.hear(record(3, 700))  # sees more than others did: nothing of it is left that we know of
    clock.now = 240.0  # ten images a second
    assert standing.elapsed_s == 240
    assert standing.left_s == pytest.approx((2 * 600 + 100) / 10)


def test_what_was_seen_before_an_interruption_tells_how_much_and_not_how_fast() -> None:
    clock = Clock()
    earlier = [record(0, 800, status="finished"), record(1, 400, status="stopped_early"), record(2, 200)]
    standing = Standing(4, earlier, clock)
    clock.now = 10.0
    assert (standing.ended, standing.left_s) == (2, None)
    standing.hear(record(2, 400))
    assert standing.left_s == pytest.approx((600 + 200) / 20)


def test_nothing_is_left_once_all_have_ended() -> None:
    clock = Clock()
    standing = Standing(2, clock=clock)
    for number in range(2):
        standing.end(record(number, 100, status="finished"))
    clock.now = 5.0
    assert standing.left_s is None
    again = record(0, 100)
    again.trial_id, again.confirms = "c000", "t000"
    standing.end(again)
    assert standing.ended == 2


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


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3540, "59 min"), (3599, "1 h 00 min"), (11100, "3 h 05 min"),
     (187200, "2 d 04 h")],
)  # fmt: skip
def test_durations_as_people_say_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told
