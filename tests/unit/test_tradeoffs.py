"""The Pareto front of a search, and how it is told."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylora.cli_output import print_summary, trade_offs
from raylora.config import Experiment
from raylora.config_search import HIGHER_IS_BETTER
from raylora.execution.conclude import tradeoffs_of
from raylora.search.tradeoffs import pareto_front
from raylora.tracking.recorder import Status, TrialRecord

POINTS = {
    "large": {"score": 1.2, "lora_mb": 4.0},
    "worse": {"score": 1.1, "lora_mb": 4.0},
    "small": {"score": 0.9, "lora_mb": 0.5},
    "middle": {"score": 1.1, "lora_mb": 2.0},
    "dominated": {"score": 0.8, "lora_mb": 0.6},
}


def test_nobody_on_the_front_is_beaten_and_the_first_measures_best_comes_first() -> None:
    assert pareto_front(POINTS, ("score", "lora_mb")) == ["large", "middle", "small"]
    assert pareto_front(POINTS, ("lora_mb", "score")) == ["small", "middle", "large"]
    assert pareto_front(POINTS, ("score",)) == ["large"]


def test_equal_points_all_stay_and_ones_without_a_measure_do_not_count() -> None:
    points = {"one": {"score": 1.0}, "two": {"score": 1.0}, "other": {"copying": -9.0}}
    assert sorted(pareto_front(points, ("score",))) == ["one", "two"]
    assert pareto_front(points, ("score", "copying")) == []


@pytest.mark.parametrize(("measure", "higher"), HIGHER_IS_BETTER.items())
def test_each_measure_has_its_direction(measure: str, higher: bool) -> None:
    assert pareto_front({"low": {measure: 0.1}, "high": {measure: 0.2}}, (measure,)) == ["high" if higher else "low"]
    assert higher == (measure in {"score", "similarity_gain", "sample_similarity", "prompt_alignment", "diversity"})


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_everybody_off_the_front_is_beaten_by_somebody_on_it(gains: list[tuple[int, int, int]]) -> None:
    names = ("score", "diversity", "similarity_gain")
    points = {str(place): dict(zip(names, map(float, gain), strict=True)) for place, gain in enumerate(gains)}

    def beats(one: str, other: str) -> bool:
        pairs = [(points[one][name], points[other][name]) for name in names]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    front = pareto_front(points, names)
    assert not any(beats(one, other) for one, other in itertools.product(front, repeat=2))
    assert all(any(beats(one, other) for one in front) for other in points.keys() - set(front))


def trial(number: int, *points: tuple[float, float], status: Status = "finished") -> TrialRecord:
    """A trial with these scores and held-out losses."""
    history = [{"score": score, "holdout_loss": loss} for score, loss in points]
    return TrialRecord(f"t{number:03d}", number, {}, False, "", status=status, history=history)


def told(trials: list[TrialRecord], said: list[str], *measures: str) -> dict[str, Any]:
    experiment = Experiment().with_params({"search.tradeoffs": measures})
    search = SimpleNamespace(job=SimpleNamespace(experiment=experiment), say=said.append)
    return tradeoffs_of(cast(Any, search), trials)


def test_trials_count_at_their_best_if_they_were_measured_and_kept_the_limits() -> None:
    over = trial(3, (9.0, 0.0), status="stopped_early")
    over.over_limits = {"train_s": 9.0}
    trials = [
        trial(0, (0.5, 0.1), (0.9, 0.3), (0.6, 0.2)),
        trial(1, (0.8, 0.2), status="stopped_early"),
        trial(2, (9.0, 0.0), status="failed"),
        over,
        trial(4, status="stopped_early"),
    ]
    said: list[str] = []
    assert told(trials, said, "score", "holdout_loss") == {
        "measures": ["score", "holdout_loss"],
        "trials": [
            {"trial_id": "t000", "score": 0.9, "holdout_loss": 0.3},
            {"trial_id": "t001", "score": 0.8, "holdout_loss": 0.2},
        ],
    }
    assert said == []


def test_a_trial_that_was_cut_off_is_not_the_cheapest() -> None:
    """What grows with training is low wherever a trial was stopped."""
    trials = [trial(0, (0.9, 0.3)), trial(1, (0.8, 0.2), status="stopped_early")]
    for record, seconds in zip(trials, (60.0, 8.0), strict=True):
        record.history[0]["train_s"] = seconds
    assert [row["trial_id"] for row in told(trials, [], "score", "train_s")["trials"]] == ["t000"]
    assert [row["trial_id"] for row in told(trials, [], "score", "holdout_loss")["trials"]] == ["t000", "t001"]


def test_a_measure_that_no_trial_has_is_told() -> None:
    said: list[str] = []
    assert told([trial(0, (0.5, 0.1))], said, "score", "prompt_alignment")["trials"] == []
    assert said == ["warning: search.tradeoffs can't be told, since no trial has prompt_alignment; leave that out"]


def test_costs_are_told_with_their_units() -> None:
    row = {"trial_id": "t009", "score": 1.2291, "lora_mb": 1.86, "train_s": 912.4, "peak_memory_gib": 7.25}
    assert trade_offs(list(row)[1:], [row, {**row, "trial_id": "t004"}]) == (
        "t009 (score 1.229, 1.9 MB, 912 s, 7.2 GiB), t004 (score 1.229, 1.9 MB, 912 s, 7.2 GiB)"
    )


def summary(rows: list[dict[str, Any]], over_limits: str = "") -> dict[str, Any]:
    """As much of one as is printed."""
    verdict = {"verdict": "good", "evidence": "it settled", "cure": ""}
    entry = {"trial_id": "t001", "score": 1.0, "params": {}, "lora_kohya": "", "lora_diffusers": "", **verdict}
    return {
        "best": entry,
        "baseline": {**entry, "trial_id": "t000", "over_limits": over_limits},
        "trials": {"finished": 2, "stopped_early": 0, "failed": 0},
        "tradeoffs": {"measures": ["score"], "trials": rows},
        "importance": [], "images_seen": 1, "wall_s": 1.0, "tracking_uri": None, "registered": None,
    }  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_front_of_one_is_no_trade_off(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summary([{"trial_id": f"t{number}", "score": 1.0} for number in range(count)]), Path(), False)
    line = "Trade-offs: t0 (score 1.000), t1 (score 1.000)\n"
    assert (line in capsys.readouterr().out) == (count > 1)


@pytest.mark.parametrize("over", ["", "train_s 912 > 600"])
def test_a_guide_that_broke_a_limit_is_said_to(over: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summary([], over), Path(), False)
    first = capsys.readouterr().out.splitlines()[0]
    expected = "Best: t001 with score 1.000; the guide's own settings reach 1.000"
    assert first == expected + (f", but break a limit: {over}" if over else "")


def test_the_guides_own_settings_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = summary([])
    again = [{"trial_id": name, "score": 1.0, "new_seed_scores": []} for name in ("t001", "t000", "t002")]
    print_summary({**told, "confirmed": again}, Path(), False)
    assert [line for line in capsys.readouterr().out.splitlines() if "next:" in line] == ["  next: t002 with 1.000"]
    told["baseline"]["trial_id"] = "t001"
    print_summary(told, Path(), False)
    assert capsys.readouterr().out.startswith("Best: t001 with score 1.000; these are the guide's own settings\n")


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        ({}, "Verdict: good, it settled\n"),
        ({"verdict": "underfit", "cure": "lora.rank=8"}, "Verdict: underfit, it settled; try lora.rank=8\n"),
        ({"verdict": "unknown", "evidence": "samples went astray"}, "Verdict: unknown, samples went astray\n"),
        ({"verdict": "unknown", "score": None}, ""),
    ],
)
def test_the_verdict_and_its_cure_are_told(
    verdict: dict[str, str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = summary([])
    told["best"] |= verdict
    print_summary(told, Path(), False)
    printed = capsys.readouterr().out
    assert line in printed and ("Verdict" in printed) == bool(line)


def test_the_number_of_images_says_what_it_counts(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summary([]), Path(), False)
    assert "they saw 1 images, repeats counted; 1 s in all" in capsys.readouterr().out
    print_summary({**summary([]), "confirmed": [{}], "refit": True}, Path(), False)
    assert "1 images, repeats counted, without new seeds and training on all images;" in capsys.readouterr().out


@pytest.mark.parametrize(("recommended", "ends"), [(1.0, "; the lead of 1.2 may be chance)"), (1.2, "1.300 at 1.2)")])
def test_a_higher_score_at_another_strength_is_said_to_be_chance(
    recommended: float, ends: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = summary([])
    told["best"] |= {"strength": recommended, "strength_scores": {"0.8": 1.0, "1": 1.2, "1.2": 1.3}}
    print_summary(told, Path(), False)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Best used at strength"))
    assert f" {recommended:g} (scores: 1.000 at 0.8, 1.200 at 1, 1.300 at 1.2" in line
    assert line.endswith(ends)
