"""Stopping at rungs: hand-written scores in, decisions out."""

from __future__ import annotations

import pytest

from raylora.search.stopping import Rungs, above_median, best_share


def decisions(scores: list[float], reduction_factor: float, images: int = 100) -> list[bool]:
    """What becomes of trials that reach the first rung one after another."""
    rule = Rungs(100, reduction_factor, best_share(reduction_factor))
    return [rule.goes_on(trial, images, score) for trial, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("scores", "reduction_factor", "expected"),
    [
        ([0.5], 3, [True]),
        ([0.5, 0.4], 3, [True, False]),
        ([0.5, 0.4, 0.45], 3, [True, False, False]),  # third: above the median of the others, but not the best
        ([0.1, 0.2, 0.3, 0.4], 3, [True, True, True, True]),
        ([0.9, 0.1, 0.1, 0.1, 0.1, 0.5], 3, [True, False, False, False, False, True]),  # second best of six
        ([0.9, 0.1, 0.1, 0.1, 0.1, 0.5], 4, [True, False, False, False, False, False]),  # but not in the best quarter
        ([0.9, 0.1, 0.1, 0.5], 2, [True, False, False, True]),
        ([0.5, 0.5], 3, [True, True]),
    ],
)
def test_the_best_share_goes_on(scores: list[float], reduction_factor: float, expected: list[bool]) -> None:
    assert decisions(scores, reduction_factor) == expected


def test_before_the_first_rung_all_go_on() -> None:
    assert decisions([0.5, 0.1, 0.1], 3, images=99) == [True, True, True]


def test_a_trial_is_judged_once_at_a_rung() -> None:
    rule = Rungs(100, 2, best_share(2))
    assert rule.goes_on(0, 100, 0.5)
    assert rule.goes_on(1, 100, 0.6)
    assert rule.goes_on(0, 104, 0.5)  # would be stopped if judged again


def test_a_verdict_stays() -> None:
    rule = Rungs(100, 2, best_share(2))
    assert rule.goes_on(0, 100, 0.5)
    assert not rule.goes_on(1, 100, 0.4)
    assert not rule.goes_on(1, 100, 0.4)
    assert not rule.goes_on(1, 150, 0.6)  # which is no later rung


def test_a_trial_that_went_on_before_is_not_judged_again() -> None:
    rule = Rungs(100, 2, best_share(2))
    assert [rule.enter(0, images, 0.9) for images in (99, 100, 250)] == [0, 100, 200]
    assert rule.enter(1, 100, 0.4) == 100
    assert rule.goes_on(1, 100, 0.4, has_gone_on=True)
    assert rule.goes_on(1, 104, 0.4)
    assert not rule.goes_on(1, 200, 0.8)


def test_a_score_that_was_entered_alone_is_judged_when_it_is_heard_again() -> None:
    rule = Rungs(100, 2, best_share(2))
    rule.enter(0, 100, 0.5)
    rule.enter(1, 100, 0.4)
    assert not rule.goes_on(1, 100, 0.4)
    assert rule.goes_on(0, 100, 0.5)


def test_each_rung_has_its_own_scores() -> None:
    rule = Rungs(100, 2, best_share(2))
    assert rule.goes_on(0, 100, 0.5)
    assert rule.goes_on(0, 200, 0.9)
    assert rule.goes_on(1, 100, 0.6)
    assert not rule.goes_on(1, 200, 0.8)


def test_a_shorter_trial_counts_at_later_rungs_with_its_best() -> None:
    rule = Rungs(100, 2, best_share(2))
    assert rule.goes_on(0, 100, 0.1)
    rule.ends(0, 0.7)
    assert rule.goes_on(1, 100, 0.5)  # at the rung that both reached, what it had there counts
    assert not rule.goes_on(1, 200, 0.6)
    assert rule.goes_on(2, 100, 0.6)
    assert rule.goes_on(2, 200, 0.8)


def test_the_median_rule_stops_the_lower_half() -> None:
    rule = Rungs(100, 2, above_median)
    scores = [0.5, 0.4, 0.45, 0.44, 0.9]  # the fourth is below the median of 0.445, the third is it
    assert [rule.goes_on(trial, 100, score) for trial, score in enumerate(scores)] == [True, False, True, False, True]
