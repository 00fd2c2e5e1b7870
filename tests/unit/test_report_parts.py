"""How sure a lead is, what stands on an axis, and how numbers are told."""

from __future__ import annotations

import pytest

from raylora.report.certainty import lead_of
from raylora.report.scales import Scale, fenced, of_setting, tick_label
from raylora.report.words import duration, measure, short_names


def test_a_lead_is_surer_the_more_seeds_agree() -> None:
    few = lead_of([1.0, 1.2], [0.8, 0.9], [[1.0, 1.2], [0.8, 0.9]], 1)
    more = lead_of([1.0, 1.2], [0.8, 0.9], [[1.0, 1.2], [0.8, 0.9], [0.5, 0.6], [0.7, 0.8]], 1)
    assert few.error is not None and few.chance is not None and more.chance is not None
    assert few.size == pytest.approx(0.25)
    assert few.error == pytest.approx((0.0125 * (1 / 2 + 1 / 2)) ** 0.5)  # mean of variances 0.02 and 0.005
    assert few.chance == pytest.approx(0.0777, abs=1e-3)  # Student's t, 2 degrees of freedom, t = 2.236
    assert more.chance < few.chance
    assert lead_of([1.0, 1.2], [0.8, 0.9], [[1.0, 1.2], [0.8, 0.9]], 3).chance == pytest.approx(3 * few.chance)
    alone = lead_of([1.2], [0.9], [[1.2], [0.9]], 1)
    assert alone.chance is None and "can’t tell how much" in alone.in_words
    assert "no lead" in lead_of([0.8, 0.9], [1.0, 1.2], [[1.0, 1.2], [0.8, 0.9]], 1).in_words


def test_axes() -> None:
    log = of_setting([1e-5, 1e-3], {"log": True})
    assert log.is_log and [tick.label for tick in log.ticks] == ["1e-5", "1e-4", "0.001"]
    assert log.place(1e-4) == pytest.approx(0.5)
    assert log.place("text") is None and log.place(-1.0) is None
    assert of_setting([4, 8, 8, 4, 16, 8], {}).levels == ("4", "8", "16")
    assert of_setting(["b", None, True], {"choices": []}).levels == ("True", "b", "null")
    assert of_setting([5.0], {}).place(5.0) == pytest.approx(0.5)
    assert fenced([1.0, 1.1, 1.2, 1.3, -1e9]).low > 0
    assert [tick.label for tick in Scale(-0.5, 3.5, is_whole=True).ticks] == ["0", "1", "2", "3"]
    for narrow in ((3.1e-4, 3.9e-4), (2.1, 4.4), (1.1e-5, 1.9e-5)):
        ticks = of_setting(narrow, {"log": True}).ticks
        assert 2 <= len(ticks) == len({tick.label for tick in ticks}) <= 6
    assert fenced([1.0, 1.1, 1.2, 1.3, 1e9, -5.0], higher_is_better=False).high < 2
    assert [tick_label(value) for value in (0.0, 0.25, 1200.0, 2e-5, -1.5)] == ["0", "0.25", "1,200", "2e-5", "−1.5"]


def test_numbers_have_as_many_digits_as_they_are_worth() -> None:
    told = [duration(seconds) for seconds in (0, 41.6, 119.4, 119.6, 754, 3570, 3599, 11_100, 172_000, 187_200, None)]
    assert told == ["0 s", "42 s", "119 s", "2 min", "13 min", "1 h 00 min", "1 h 00 min", "3 h 05 min", "2 d 00 h",
                    "2 d 04 h", "–"]  # fmt: skip
    told = [
        measure("score", 1.23456),
        measure("holdout_loss_ratio", 0.97123),
        measure("lora_mb", 0.0456),
        measure("x", None),
    ]
    assert told == ["1.235", "0.9712", "0.046", "–"]
    assert short_names(["lora.alpha", "lr_scheduler.name", "a.x", "b.x"]) == {
        "lora.alpha": "alpha", "lr_scheduler.name": "lr_scheduler", "a.x": "a.x", "b.x": "b.x",
    }  # fmt: skip
