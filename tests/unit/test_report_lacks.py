"""What the page does without: work that is not at its end, and folders that lack something or are damaged."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from raylora.dataset.split import Split, write_splits
from raylora.execution.outputs import LOCK_NAME, write_json, write_trials_csv
from raylora.report.reading import read_work
from raylora.report.samples import make_album
from raylora.tracking.recorder import read_records
from tests.report_page import mean_of, page_of
from tests.report_world import HELD_OUT, SIZE, Made, colour, report_at, rewrite, training


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "portraits")


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
