"""The report's page of folders written by hand: what it says, what it does without, and what it lets through."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from raylora.cli import app
from raylora.dataset.split import Split, write_splits
from raylora.errors import OutputError
from raylora.evaluation.grid import sample_grid
from raylora.execution.outputs import LOCK_NAME, OutFolder, write_json, write_trials_csv
from raylora.execution.tradeoffs import weighed
from raylora.report.certainty import lead_of
from raylora.report.page import render, write_report
from raylora.report.pictures import Grid, read_grid
from raylora.report.reading import read_work
from raylora.report.samples import make_album
from raylora.report.scales import Scale, fenced, of_setting, tick_label
from raylora.report.search_charts import tradeoffs
from raylora.report.usage import usages
from raylora.report.words import duration, measure, short_names
from raylora.search.tradeoffs import pareto_front
from raylora.tracking.recorder import TrialRecord, read_records
from tests.report_world import HELD_OUT, SIZE, Made, colour, report_at, rewrite, training

VOID = {"meta", "link", "img", "input", "br", "wbr"}
ATTACK = """</script></style><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'"`&amp;"""


class Page(HTMLParser):
    """A page taken apart as a browser would."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def count(self, tag: str) -> int:
        return sum(tag == found for found, _ in self.elements)

    def classed(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if name in (attributes.get("class") or "").split()]


def page_of(out: OutFolder) -> Page:
    return Page(render(read_work(out)))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "portraits")


# What it says


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


def test_pictures_are_of_the_right_rows_and_steps(made: Made) -> None:
    out = made.write()
    album = make_album(read_work(out))
    first = album.comparisons[0]
    assert first.caption == "sks, a cat"
    assert [name for name, _ in first.pictures] == ["real", "base", "guide", "winner"]
    for row, (_, picture) in enumerate(first.pictures):
        assert mean_of(picture.uri) == pytest.approx(colour(100 * row).mean(axis=(0, 1)), abs=6)
    assert album.steps == [100, 200, 400]
    assert [(strips.trial.trial_id, len(strips.steps)) for strips in album.strips] == [
        ("t001", 3),
        ("t000", 3),
        ("t002", 1),
    ]
    assert [at for at, _ in album.strengths] == ["0.4", "0.6", "0.8", "1", "1.2"]


def mean_of(uri: str) -> Any:
    head, _, code = uri.partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(code))) as image:
        return np.asarray(image.convert("RGB")).mean(axis=(0, 1))


def test_the_users_own_prompts_are_shown_with_each_step(made: Made) -> None:
    made = made.with_settings(sampling__prompts=("sks at sea", "sks in snow"))
    out = made.write()
    columns = 2 * len(made.experiment.sampling.seeds)
    picture = sample_grid([[colour(900 + column) for column in range(columns)]])
    Image.fromarray(picture).save(out.trials / "t001" / "samples" / "prompts_000200.png")
    strips = make_album(read_work(out)).strips[0]
    assert [step.prompts is not None for step in strips.steps] == [False, True, False]
    shown = strips.steps[1].prompts
    assert shown is not None and (shown.width, shown.height) == (2 * SIZE + 2, SIZE)  # one seed of each prompt
    assert page_of(out).text.count("sks, a cat") >= 1


def test_a_large_search_stays_within_bounds(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylora.report.samples.MOST_STRIPS", 4)
    album = make_album(read_work(made.write()))
    assert [strips.trial.trial_id for strips in album.strips] == ["t001"]
    assert album.left_out == 2


def test_too_many_pixels_are_not_read(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_grid = (3 * (SIZE + 2) + 2) ** 2
    monkeypatch.setattr("raylora.report.samples.MOST_PIXELS", 4 * of_a_grid)
    album = make_album(read_work(made.write()))
    assert ([strips.trial.trial_id for strips in album.strips], album.left_out) == (["t001"], 2)


def test_in_a_hurry_samples_of_trials_wait_for_the_command(made: Made) -> None:
    out = made.write("interrupted")
    write_report(out, seconds=0)
    page = Page(out.report.read_text())
    assert "3 trials with the lowest scores left out" in page.text
    assert f"raylora report {out.root} adds them" in page.text
    assert "best so far" in page.text and page.count("img") == 3 * 4 + 2  # compared, real ones and the base model's
    write_report(out)
    assert "adds them" not in out.report.read_text() and Page(out.report.read_text()).count("img") == 3 * 4 + 2 + 7


def test_how_to_use_it_names_file_trigger_and_strength(made: Made) -> None:
    made = made.with_settings(model__clip_skip=2)
    diffusers, comfy, a1111 = usages(read_work(made.write()))
    code = diffusers.pieces[0].text
    compile(code, "usage", "exec")
    for part in (
        "from_pretrained('some/base')",
        repr(str(made.out.best)),
        "set_adapters('portraits', 0.8)",
        "clip_skip=1",
    ):
        assert part in code
    assert "'sks, a cat'" in code
    assert '"strength_model": 0.8' in comfy.pieces[1].text and "at -2" in comfy.hint
    assert a1111.pieces[0].text == f"cp {made.out.best / 'lora.safetensors'} models/Lora/portraits.safetensors"
    assert a1111.pieces[1].text == "sks, a cat <lora:portraits:0.8>"


@pytest.mark.parametrize(("shared", "winners"), [(True, False), (False, True)])
def test_the_text_encoder_is_used_as_the_winner_was_trained(made: Made, shared: bool, winners: bool) -> None:
    """It may be searched: what all trials share says otherwise then."""
    made = made.with_settings(model__train_text_encoder=shared)
    out = made.write()
    best = made.summary()["best"]
    rewrite(out.summary, best={**best, "params": {**best["params"], "model.train_text_encoder": winners}})
    comfy = usages(read_work(out))[1]
    assert f'"strength_clip": {0.8 if winners else 0.0}' in comfy.pieces[1].text


def test_prompts_weigh_nothing_and_are_drawn_as_the_samples_were(made: Made) -> None:
    made = replace(made, captions=(r"sks (day), [art] \(x\)",) * 3)
    made = made.with_settings(sampling__negative_prompt="(blurry)", sampling__seeds=(7, 8))
    diffusers, comfy, a1111 = usages(read_work(made.write()))
    assert [piece.text for piece in comfy.pieces[2:]] == [r"sks \(day\), [art] \\(x\\)", r"\(blurry\)"]
    assert a1111.pieces[1].text.startswith(r"sks \(day\), \[art\] \\\(x\\\) <lora:")
    assert a1111.pieces[2].text == r"\(blurry\)"
    code = diffusers.pieces[0].text
    compile(code, "usage", "exec")
    assert "negative_prompt='(blurry)'" in code and "manual_seed(7)" in code


def test_what_is_copied_is_what_was_written(made: Made) -> None:
    """Joiners are parts of words and of emoji; what turns a line is shown, or it would read as another."""
    family, turned = "\U0001f468\u200d\U0001f469", "\u202eevil"
    long = "word " * 600
    page = page_of(replace(made, captions=(f"{family} {turned} {long}",) * 3).write())
    assert f"{family} \\u202eevil {long.strip()} <lora:portraits:0.8>" in page.text


def test_a_file_of_weights_and_v_prediction_are_loaded_as_such(made: Made) -> None:
    sdxl = {"model__family": "sdxl", "model__base_model": "/x/m.safetensors", "model__prediction_type": "v_prediction"}
    made = made.with_settings(**sdxl, model__train_text_encoder=False, model__clip_skip=2)
    diffusers, comfy, _ = usages(read_work(made.write()))
    code = diffusers.pieces[0].text
    assert "StableDiffusionXLPipeline.from_single_file('/x/m.safetensors')" in code
    assert "prediction_type='v_prediction'" in code and "clip_skip" not in code
    assert '"strength_clip": 0.0' in comfy.pieces[1].text


# What it does without


@pytest.mark.parametrize(
    ("state", "head"), [("interrupted", "Interrupted"), ("running", "Under way"), ("failed", "Broken off")]
)
def test_work_without_an_answer_says_how_it_stands(made: Made, state: str, head: str) -> None:
    out = made.write(state)
    with out.locked() if state == "running" else nullcontext():
        page = page_of(out)
    assert f"{head}: 4 of 4 trials ended" in page.text
    assert "Best so far is t001 with score 1.200; the guide’s own settings have 0.800" in page.text
    names = [name for name, _ in make_album(read_work(out)).comparisons[0].pictures]
    assert names == ["real", "base", "guide", "best so far"]
    assert (f"raylora resume {made.root}" in page.text) == (state != "running")
    assert "<lora:" not in page.text


def test_work_that_was_killed_can_go_on(made: Made) -> None:
    """It had no time to say how it ended, but nobody holds its folder any more."""
    out = made.write("running")
    rewrite(out.trials / "t002" / "trial.json", status="running", stop_reason=None)
    with out.locked():
        assert "Under way: 3 of 4 trials ended" in page_of(out).text
    for _ in range(2):  # with the lock file that a killed process leaves, and without
        text = page_of(out).text
        assert "Interrupted: 3 of 4 trials ended" in text and f"Go on with raylora resume {made.root}" in text
        assert "1 failed and 1 unfinished" in text
        (out.root / LOCK_NAME).unlink(missing_ok=True)


def test_without_the_base_models_samples_the_page_says_so(made: Made) -> None:
    out = made.write("interrupted")
    shutil.rmtree(out.cache)
    page = page_of(out)
    assert "The base model’s samples, which lay in cache/, are not there." in page.text
    assert page.count("img") > 5


def test_a_search_that_has_only_begun(made: Made) -> None:
    out = replace(made, scores=()).write("running")
    with out.locked():
        page = page_of(out)
    assert "Under way: 0 of 4 trials ended No trial has been measured yet" in page.text
    assert page.count("img") == 0


def test_a_search_of_which_all_trials_failed(made: Made) -> None:
    page = page_of(replace(made, scores=((), ())).write("failed", no_result="out of memory"))
    assert "No trial came to a result out of memory. Mend that" in page.text
    assert "raylora resume" not in page.text
    assert len(page.classed("chart")) == 0 and page.text.count("failed: diverged") == 2


def test_folds_show_the_first_ones_pictures_and_say_so(made: Made) -> None:
    made = made.with_settings(dataset__folds=3)
    out = made.write("interrupted")
    rewrite(out.split, folds=[json.loads(out.split.read_text())] * 3)
    for folder in out.trials.iterdir():
        (folder / "fold_0").mkdir()
        shutil.move(folder / "samples", folder / "fold_0" / "samples")
    page = page_of(out)
    assert page.count("img") > 5
    assert "Of the first fold." in page.text and "each trained on 3 folds" in page.text


PROMPTS = ("sks at sea", "sks in snow", "sks", "a sks in {trigger}")


@pytest.mark.parametrize(
    ("holds_out", "prompts"), [(True, ()), (False, ()), *((False, PROMPTS[:count]) for count in (1, 2, 3, 4))]
)
def test_a_training_alone(tmp_path: Path, holds_out: bool, prompts: tuple[str, ...]) -> None:
    out = training(tmp_path / "out", holds_out, prompts)
    page = page_of(out)
    assert ("with score 1.000 on held-out images" in page.text) == holds_out
    assert ("Nothing was held out" in page.text) != holds_out
    pictures = 3 * HELD_OUT if holds_out else len(prompts) or 2 * 8
    assert page.count("img") == pictures + (2 + 3) * holds_out  # real ones and the base model's again, and three steps
    assert all(prompt.replace("{trigger}", "") in page.text for prompt in prompts) and "{trigger}" not in page.text
    for place, one in enumerate(make_album(read_work(out)).comparisons):
        _, last = one.pictures[-1]
        assert (last.width, last.height) == (SIZE, SIZE)
        mine = colour(100 * (2 if holds_out else 1) + place).mean(axis=(0, 1))
        assert mean_of(last.uri) == pytest.approx(mine, abs=6)
    assert "chart-curve-all" in {one.get("id") for one in page.classed("chart")} or holds_out


def test_what_was_deleted_is_told(made: Made) -> None:
    out = made.write()
    shutil.rmtree(out.best / "samples")
    first, *_ = make_album(read_work(out)).comparisons
    assert [name for name, _ in first.pictures] == ["real", "base", "guide", "winner"]  # the trials' own
    for folder in (out.trials, out.cache):
        shutil.rmtree(folder)
    page = page_of(out)
    assert "The folder trials/ is gone" in page.text and "best/samples are gone" in page.text
    assert "t001 is the best of 4 trials" in page.text
    assert page.count("img") == 0
    rows = [one for tag, one in page.elements if tag == "tbody" and one.get("id")]
    assert [row["data-trial"] for row in rows] == ["t001", "t000", "t002", "t003"]
    assert "lora.rank=8 lora.alpha=8" in page.text and "constant" in page.text


@pytest.mark.parametrize(
    "file", ["summary.json", "split.json", "experiment.yaml", "space.yaml", "trials/t001/trial.json"]
)
def test_a_damaged_file_costs_what_it_says_and_no_more(made: Made, file: str) -> None:
    out = made.write()
    (out.root / file).write_text("{")
    page = page_of(out)
    assert f"{Path(file).name} can’t be read" in page.text
    assert "t000" in page.text


BROKEN: list[tuple[str, str, Any]] = [
    ("summary.json", "importance", [{"setting": "lora.rank"}]),
    ("summary.json", "importance", [{"setting": 1, "share": "x", "low": 0, "high": 1, "verdict": "matters"}]),
    ("summary.json", "confirmed", [{"trial_id": "t001", "new_seed_scores": ["x"]}]),
    ("summary.json", "tradeoffs", {"trials": None}),
    ("summary.json", "tradeoffs", []),
    ("summary.json", "baseline", {"trial_id": "t000"}),
    ("summary.json", "trials", 4),
    ("summary.json", "wall_s", "long"),
    ("summary.json", "best", {"trial_id": "t001", "score": "high", "params": {}, "metrics": {}}),
    ("space.yaml", "parameters", None),
    ("space.yaml", "parameters", [1]),
    ("space.yaml", "fixed", 3),
    ("trials/t001/trial.json", "history", [{**report_at(100, 1.0), "holdout_loss": "x"}]),
    ("trials/t001/trial.json", "history", [{**report_at(100, 1.0), "similarity_gain": None}]),
    ("trials/t001/trial.json", "history", [{**report_at(100, 1.0), "train_losses": [[1], 2]}]),
    ("trials/t001/trial.json", "losses", [[]]),
    ("split.json", "holdout", [{}]),
    ("split.json", "folds", []),
]


@pytest.mark.parametrize(("file", "part", "content"), BROKEN, ids=[f"{file}-{part}" for file, part, _ in BROKEN])
def test_what_is_of_another_form_costs_what_it_says_and_no_more(made: Made, file: str, part: str, content: Any) -> None:
    out = made.write()
    path = out.root / file
    write_json(path, {**yaml.safe_load(path.read_text()), part: content})
    page = page_of(out)
    assert f"{Path(file).name} can’t be read" in page.text
    assert "t000" in page.text


def test_a_state_with_a_text_for_its_seconds_is_none_the_worse(made: Made) -> None:
    out = made.write("interrupted")
    rewrite(out.state_file, state="finished", wall_s="long")
    assert "It took" not in page_of(out).text


@pytest.mark.parametrize(
    ("old", "new"),
    [("trial_id,", "name,"), ("finished,", "gone,"), ("0.8", "x"), (",400,", ",many,"), ("True", "True,")],
)
def test_a_damaged_table_costs_what_it_says_and_no_more(made: Made, old: str, new: str) -> None:
    out = made.write()
    shutil.rmtree(out.trials)
    table = out.trials_csv.read_text()
    assert old in table
    out.trials_csv.write_text(table.replace(old, new))
    page = page_of(out)
    assert "trials.csv can’t be read" in page.text
    assert "t001 is the best of 4 trials" in page.text


def test_a_table_has_the_last_measures_beside_the_best_and_no_curves(made: Made) -> None:
    over = "limit: train_s 912 > 600, lora_mb 9 > 5"
    made = replace(made, scores=((0.3, 0.8, 0.6), (0.5, 0.9, 1.2), (1.9,)), stop_reason=over)
    out = made.write("interrupted")
    write_trials_csv(out.trials_csv, made.records(), made.experiment)
    shutil.rmtree(out.trials)
    work = read_work(out)
    guide, best, stopped = work.trials
    assert work.best is best and stopped.over_limits == {"train_s": 912.0, "lora_mb": 9.0}
    assert (guide.score, guide.images_seen) == (0.8, 400)
    assert guide.last is not None and (guide.last["score"], guide.last["train_s"]) == (0.6, 40.0)
    page = page_of(out)
    charts = {one.get("id") for one in page.classed("chart")}
    assert "chart-history" in charts and not [name for name in charts if str(name).startswith("chart-curve")]


def test_a_training_whose_folder_is_gone_is_nobodys_baseline(tmp_path: Path) -> None:
    out = training(tmp_path / "out", holds_out=True)
    write_trials_csv(out.trials_csv, read_records(out.trials), read_work(out).experiment)
    shutil.rmtree(out.trials)
    work = read_work(out)
    assert [trial.is_baseline for trial in work.trials] == [False]
    assert "guide" not in page_of(out).text


def test_a_picture_that_is_none_leaves_a_gap(made: Made) -> None:
    out = made.write()
    (out.trials / "t001" / "samples" / "images_000400.png").write_bytes(b"no picture")
    Image.new("RGB", (31, 17)).save(out.best / "samples" / "strengths.png")
    album = make_album(read_work(out))
    assert [step.images for step in album.strips[0].steps] == [100, 200]
    assert not album.strengths


def test_captions_are_kept_with_the_split(tmp_path: Path, pictures_folder: Path) -> None:
    from raylora.dataset.folder import read_folder

    pictures = read_folder(pictures_folder)
    write_splits([Split(tuple(pictures[2:]), tuple(pictures[:2]))], tmp_path / "split.json")
    held_out = json.loads((tmp_path / "split.json").read_text())["holdout"]
    assert [row["caption"] for row in held_out] == [picture.caption for picture in pictures[:2]]


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


# The parts


def test_a_grid_is_cut_as_it_was_laid() -> None:
    rows = [[colour(10 * row + column) for column in range(3)] for row in range(2)]
    grid = Grid(Image.fromarray(sample_grid(rows)), rows=2, columns=3)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            assert np.array_equal(np.asarray(grid.cell(row, column)), picture)


def test_pictures_of_several_shapes_lose_the_white_around_them(tmp_path: Path) -> None:
    low = np.full((SIZE // 2, SIZE, 3), 90, np.uint8)
    white_top = low.copy()
    white_top[:3] = 255
    Image.fromarray(sample_grid([[colour(1), low], [colour(2), white_top]])).save(tmp_path / "grid.png")
    grid = read_grid(tmp_path / "grid.png", 2, 2, shares_shape=False)
    assert grid is not None
    assert np.array_equal(np.asarray(grid.cell(1, 1)), white_top)
    assert read_grid(tmp_path / "grid.png", 2, 5) is None


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
