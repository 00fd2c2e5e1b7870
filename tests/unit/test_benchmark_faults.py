"""What the fault runs count, and that their schedules follow from a seed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

from benchmarks.faults.counting import Step, again_of, read_steps
from benchmarks.faults.disturb import AWAY_S, KINDS, QUIET_STEPS, Schedule


def steps(process: str, *points: int, rate: float = 0.1) -> list[Step]:
    return [Step(rate, process, since, until) for since, until in pairwise(points)]


def test_a_search_in_peace_trains_nothing_again() -> None:
    found = again_of([*steps("a", 0, 2, 4), *steps("a", 0, 2, rate=0.2), *steps("a", 4, 6)], interval=4)
    assert found == {"images": 8, "restarts": 0, "again": 0, "trained_twice": 0}


def test_a_trial_may_repeat_an_interval_each_time_that_it_is_broken_off() -> None:
    log = [*steps("a", 0, 2, 4, 6), *steps("b", 4, 6, 8, 10), *steps("a", 6, 8, 10, 12)]
    assert again_of(log, interval=4) == {"images": 18, "restarts": 2, "again": 6, "trained_twice": 0}
    assert again_of(log, interval=3)["trained_twice"] == 1


def test_what_goes_back_in_the_same_process_has_begun_again_too() -> None:
    assert again_of([*steps("a", 0, 2, 4, 6), *steps("a", 0, 2)], interval=4)["trained_twice"] == 2


def test_a_trial_that_an_abandoned_process_still_trains_is_trained_twice() -> None:
    """Its steps lie between those of the process that goes on."""
    log = [*steps("a", 0, 2, 4), *steps("b", 0, 2, 4), *steps("a", 4, 6), *steps("b", 4, 6)]
    assert again_of(log, interval=1) == {"images": 12, "restarts": 3, "again": 6, "trained_twice": 4}


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('[0.1, "a", 0, 2]\n[0.1, "a", 2\n[0.1, "b", 0, 2]\n')
    assert read_steps(tmp_path / "log") == [Step(0.1, "a", 0, 2), Step(0.1, "b", 0, 2)]


def test_faults_follow_from_the_seed_and_are_of_all_kinds() -> None:
    first = list(Schedule(3, 2 * len(KINDS)))
    assert first == list(Schedule(3, 2 * len(KINDS))) != list(Schedule(4, 2 * len(KINDS)))
    assert Counter(kind for kind, _, _ in first) == dict.fromkeys(KINDS, 2)
    assert all(QUIET_STEPS[0] <= steps <= QUIET_STEPS[1] for _, steps, _ in first)
    assert all(AWAY_S[0] <= away <= AWAY_S[1] for _, _, away in first)
