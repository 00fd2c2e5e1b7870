"""The report's page of folders written by hand: what it says, and what it lets through."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raylora.cli import app
from raylora.errors import OutputError
from raylora.execution.outputs import OutFolder
from raylora.execution.tradeoffs import weighed
from raylora.report.page import render, write_report
from raylora.report.reading import read_work
from raylora.report.search_charts import tradeoffs
from raylora.search.tradeoffs import pareto_front
from raylora.tracking.recorder import TrialRecord
from tests.report_page import Page, page_of
from tests.report_world import Made, report_at, rewrite

ATTACK = """</script></style><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'"`&amp;"""


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "portraits")


def test_the_answer_and_how_sure_it_is(made: Made) -> None:
    text = page_of(made.write()).text
    assert "t001 is the best of 4 trials: +0.360 over the guide’s own settings" in text
    assert "Its score is 1.170 on 2 new seeds, the guide’s 0.810 on 2 new seeds." in text
    assert "standard error of 0.028 and is surely real: if neither were better, fewer than 1 of 100" in text
    assert "Of 4 trials, 2 finished, 1 stopped early and 1 failed; they saw 900 images. It took 13 min in all." in text
    assert "Lost workers" not in text


def test_what_else_a_search_can_end_with(made: Made) -> None:
    out = made.write()
    told = json.loads(out.summary.read_text())
    for change, words in (
        ({"baseline": None}, "t001 is the best of 4 trials, with score 1.170"),
        (
            {"baseline": {**told["best"], "over_limits": ""}},
            "The guide’s own settings won: none of 4 trials did better",
        ),
        ({"baseline": {**told["baseline"], "over_limits": "lora_mb 9"}}, "break a limit: lora_mb 9"),
        (
            {part: {**told[part], "new_seed_scores": []} for part in ("best", "baseline")},
            "Neither was trained again with new seeds, so the lead is partly the luck of being chosen",
        ),
        (
            {part: {**told[part], "new_seed_scores": [], "failed_seeds": 2} for part in ("best", "baseline")},
            "(with 2 new seeds it failed). Neither came to an end with a new seed, so the lead is partly",
        ),
    ):
        rewrite(out.summary, **{**told, **change})
        assert words in page_of(out).text


def test_a_mean_over_new_seeds_is_not_set_against_one_training(made: Made) -> None:
    """The guide's new seeds may all have failed, and the winner's not."""
    out = made.write()
    told = json.loads(out.summary.read_text())
    guide = {**told["baseline"], "score": 0.8, "new_seed_scores": [], "failed_seeds": 2, "spread": None}
    rewrite(out.summary, baseline=guide, confirmed=[{**told["best"], "failed_seeds": 1}, guide])
    text = page_of(out).text
    assert "t001 is the best of 4 trials, with score 1.170" in text and "over the guide’s own settings" not in text
    assert "the guide’s 0.800 in the search (with 2 new seeds it failed). Only one of them has a mean" in text
    assert "Failed: t001 with 1 new seed, t000 with 2 new seeds." in text
    rewrite(out.summary, best={**told["best"], "failed_seeds": 1})
    assert "1.170 on 2 new seeds (1 more failed)" in page_of(out).text
    assert "between 2 new seeds, 1 more failed" in page_of(out).text


def test_a_guides_trial_that_failed_unmeasured_is_told_with_its_reason(made: Made) -> None:
    made = replace(made, scores=((), *made.scores[1:]))
    out = made.write()
    rewrite(out.summary, baseline=None)
    text = page_of(out).text
    assert "guide’s own settings failed before they were measured (diverged: the loss is no number), so there" in text
    assert "no first point" not in text
    rewrite(out.trials / "t000" / "trial.json", is_baseline=False)
    assert "The search space has no first point" in page_of(out).text


def test_which_lora_it_is_stands_where_its_use_does(made: Made) -> None:
    out = made.write()
    assert "The LoRA in best/ has learned all images, with the winner’s settings." in page_of(out).text
    rewrite(out.summary, refit=False)
    assert "is the winner’s own trial’s, which has not learned the held-out images: training on all images failed" in (
        page_of(out).text
    )
    out = made.with_settings(search__refit=False).write()
    rewrite(out.summary, refit=False)
    assert "held-out images: search.refit is off." in page_of(out).text


def test_lost_workers_are_one_line(made: Made) -> None:
    out = made.write()
    rewrite(out.trials / "t001" / "trial.json", losses=["node", "memory"])
    assert "Lost workers: 1 with a node, 1 as memory ran out (t001); their trials went on" in page_of(out).text


def test_every_trial_has_its_row_its_verdict_and_its_cures(made: Made) -> None:
    page = page_of(made.write())
    assert {attributes.get("id") for tag, attributes in page.elements if tag == "tbody" and attributes.get("id")} == {
        f"trial-t{number:03d}" for number in range(4)
    }
    assert "stopped early: forecast at 100 images" in page.text
    assert "failed: diverged: the loss is no number" in page.text
    assert "lora.rank=8 lora.alpha=8" in page.text  # against underfitting: twice the rank, with its alpha


def test_charts_show_every_trial_and_mark_what_stopped(made: Made) -> None:
    page = page_of(made.write())
    charts = {attributes.get("id") for attributes in page.classed("chart")}
    assert {
        "chart-history",
        "chart-parallel",
        "chart-new-seeds",
        "chart-tradeoff-lora_mb",
        "chart-curve-train",
    } <= charts
    assert {"chart-slice-optimizer.unet_lr", "chart-slice-lora.rank", "chart-curve-holdout_loss_ratio"} <= charts
    for shape, count in (("stopped_early", 6), ("failed", 1)):  # history, trade-off, three slices, curves
        marks = [one for one in page.classed(shape) if one.get("data-trial")]
        assert len(marks) >= count
        assert {one["data-trial"] for one in marks} == {"t002" if shape == "stopped_early" else "t003"}
    assert "can’t tell" in page.text and "62%" in page.text


@pytest.mark.parametrize("state", ["interrupted", "finished"])
def test_a_front_is_of_those_that_can_be_on_it(made: Made, state: str) -> None:
    """A trial that was cut off is cheap for that: it is drawn pale, and ringed neither before the end nor after."""
    made = made.with_settings(search__tradeoffs=("score", "train_s"))
    out = made.write(state)
    if state == "finished":
        front = pareto_front(weighed(made.records(), ("score", "train_s")), ("score", "train_s"))
        rewrite(out.summary, tradeoffs={"trials": [{"trial_id": name} for name in front]})
    (chart,) = tradeoffs(read_work(out))
    assert [mark.title for mark in chart.marks if mark.role == "front"] == ["t001"]
    assert [mark.trial for mark in chart.marks if mark.role == "pale"] == ["t002"]
    assert "Pale ones don’t count" in chart.note


def test_where_less_is_better_the_far_too_high_stands_at_the_upper_end(made: Made) -> None:
    scores = tuple((0.1 * number,) for number in range(8))
    made = replace(made, scores=scores).with_settings(search__tradeoffs=("holdout_loss", "lora_mb"))
    out = made.write("interrupted")
    record = out.trials / "t000" / "trial.json"
    rewrite(record, history=[{**report_at(100, 0.0), "holdout_loss": 1e6, "lora_mb": 1.0}])
    (chart,) = tradeoffs(read_work(out))
    heights = {mark.trial: mark.y for mark in chart.marks if mark.trial}
    assert len(set(heights.values())) >= 7  # the others are not one line at the bottom
    assert heights["t000"] == min(heights.values())


def test_a_large_search_is_read_in_one_go(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of all trials is found once, not once for each."""
    asked = 0
    score = TrialRecord.score.fget
    assert score is not None

    def counted(record: TrialRecord) -> float:
        nonlocal asked
        asked += 1
        return score(record)

    count = 60
    out = replace(made, scores=tuple((0.01 * number,) for number in range(count))).write("running", with_samples=False)
    monkeypatch.setattr(TrialRecord, "score", property(counted))
    render(read_work(out))
    assert asked < 60 * count


# What it lets through


def test_hostile_texts_are_shown_and_do_nothing(tmp_path: Path) -> None:
    hostile = Made(tmp_path / ATTACK.replace("/", ":"), captions=(ATTACK,) * 3, stop_reason=ATTACK, failure=ATTACK)
    hostile = hostile.with_settings(dataset__trigger=ATTACK, model__base_model=ATTACK, sampling__prompts=(ATTACK,))
    out = hostile.write()
    rewrite(out.summary, importance=[{"setting": ATTACK, "share": None, "low": 0, "high": 1, "verdict": "can't tell"}])
    out.space.write_text(json.dumps({"name": ATTACK, "parameters": {ATTACK: {"choices": [ATTACK]}}}))
    for trial in ("t001", "t002"):
        record = json.loads((out.trials / trial / "trial.json").read_text())
        rewrite(out.trials / trial / "trial.json", params={**record["params"], "lr_scheduler.name": ATTACK + trial})
    page = page_of(out)
    assert page.count("script") == page.count("style") == 1
    assert page.text.count(ATTACK) >= 4
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert tag not in ("iframe", "object", "embed", "form", "base")
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/webp;base64,")


def test_nothing_is_fetched_from_anywhere(made: Made) -> None:
    text = render(read_work(made.write()))
    page = Page(text)
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "xlink:href"):
            assert re.match(r"#|data:|$", attributes.get(name) or ""), attributes
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_no_password_is_in_it(made: Made) -> None:
    secret = "hunter2"
    made = replace(made, captions=(f"https://me:{secret}@host/x",) * 3, stop_reason=f"s3://key:{secret}@bucket gone")
    made = made.with_settings(model__base_model=f"https://user:{secret}@host/model?token={secret}")
    text = render(read_work(made.write()))
    assert secret not in text
    assert "***@host" in text


# The command


def test_the_command_writes_it_anew_and_needs_no_heavy_libraries(made: Made) -> None:
    out = made.write()
    program = f"""
import sys
from raylora.cli import main
sys.argv = ["raylora", "report", {str(out.root)!r}]
try:
    main()
except SystemExit as ended:
    print(ended.code, *[name for name in ("torch", "ray", "mlflow", "diffusers", "sklearn") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(out.report), "0"]
    assert out.report.read_text().endswith("</html>\n") or out.report.read_text().rstrip().endswith("</html>")
    assert out.report.stat().st_size < 300_000


def test_a_folder_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert "holds no search and no training" in str(done.exception)
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_fails_costs_no_answer(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from raylora.cli_output import reporting

    def fail(out: OutFolder, seconds: float) -> str:
        raise RuntimeError("a bug")

    out, told = made.write(), list[str]()
    monkeypatch.setattr("raylora.report.page.write_report", fail)
    with reporting(out, told.append):
        pass
    with pytest.raises(KeyboardInterrupt), reporting(out, told.append):
        raise KeyboardInterrupt
    assert told == [f"report.html was not written (a bug); `raylora report {out.root}` tries again"] * 2


def test_work_that_broke_off_has_its_page(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    from raylora.cli_output import reporting

    out = made.write("interrupted")
    with pytest.raises(KeyboardInterrupt), reporting(out, print):
        raise KeyboardInterrupt
    assert f"a report of what there is: {out.report}" in capsys.readouterr().err
    write_report(out)
    assert "Interrupted" in out.report.read_text()


def test_a_folder_where_the_page_has_to_be_is_told(made: Made) -> None:
    out = made.write()
    out.report.mkdir()
    with pytest.raises(OutputError, match=r"report\.html: is a folder where the page has to be; move it elsewhere"):
        write_report(out)
