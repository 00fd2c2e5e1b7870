"""`--warm-start` on the command line: what is told, and what is refused."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from raylora.config_files import read_experiment, write_experiment
from raylora.dataset.folder import read_folder
from raylora.dataset.split import split_folds, split_pictures, write_splits
from raylora.diffusion.base_digest import base_digest
from raylora.execution.cluster import Share
from raylora.execution.outputs import OutFolder
from raylora.search.space import load_space
from raylora.search.study import EARLIER_NAME, SOURCE_KEY, Outcome, SearchStudy, read_trials
from tests.bad_world import Result, Run
from tests.reports import same_length

TUNE = "tune good.yaml --dry-run --space small.yaml --out out"


def make_search(world: Path, root: Path, trials: int = 4) -> Path:
    """An interrupted search of `small.yaml` with `trials` ended trials and one that was running."""
    out = OutFolder(root)
    root.mkdir()
    experiment = read_experiment(world / "good.yaml")
    absolute = {"dataset.path": str(world / "pictures"), "model.base_model": str(world / "base")}
    write_experiment(experiment.with_params(absolute), out.experiment)
    shutil.copy(world / "small.yaml", out.space)
    pictures = read_folder(world / "pictures")
    write_splits([split_pictures(pictures, experiment.dataset.holdout_fraction)], out.split)
    out.write_state("interrupted", tracking_uri="", parent_run_id="1")
    study = SearchStudy(out.study, load_space(str(world / "small.yaml")), experiment, same_length)
    for _ in range(trials):
        number, _ = study.ask()
        study.report(number, 100, 0.5)
        study.tell(number, Outcome.FINISHED, 0.5)
    study.ask()
    return root


def refused(result: Result, *fragments: str) -> None:
    assert result.status == 2
    assert "Traceback" not in result.stderr
    message = result.stderr[result.stderr.index("raylora: error: ") :]
    for fragment in fragments:
        assert fragment in message, message


def test_a_dry_run_tells_what_is_taken(run: Run, bad_world: Path, tmp_path: Path) -> None:
    search = make_search(bad_world, tmp_path / "search")
    before = {path: path.read_bytes() for path in search.rglob("*")}
    told = run(f"{TUNE} --warm-start {search}")
    assert told.status == 0
    assert f"Warm start  4 of 5 trials of {search} (1 left out: 1 without a score)" in told.stderr
    assert "warning" not in told.stderr
    assert {path: path.read_bytes() for path in search.rglob("*")} == before


def test_several_searches_are_taken_each_once(run: Run, bad_world: Path, tmp_path: Path) -> None:
    one, two = make_search(bad_world, tmp_path / "one"), make_search(bad_world, tmp_path / "two", trials=2)
    told = run(f"{TUNE} --warm-start {one} --warm-start {two} --warm-start {one}").stderr
    assert [line.split(" trials")[0] for line in told.splitlines() if line.startswith("Warm start")] == [
        "Warm start  4 of 5",
        "Warm start  2 of 3",
    ]


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--set training.epochs=9", "training.epochs differs"),
        ("--dataset seven_more", "the dataset's pictures differs"),
        ("--set evaluation.noises=2 --dataset seven_more", "the dataset's pictures, evaluation.noises differ "),
        ("--set search.optuna_sampler=random", "has no effect"),
    ],
)
def test_it_is_warned_of(option: str, named: str, run: Run, bad_world: Path, tmp_path: Path) -> None:
    search = make_search(bad_world, tmp_path / "search")
    told = run(f"{TUNE} {option} --warm-start {search}")
    assert told.status == 0
    (warning,) = (line for line in told.stderr.splitlines() if line.startswith("warning: --warm-start"))
    assert named in warning


@pytest.mark.parametrize(
    ("folds", "named"), [(4, "earlier: dataset.folds differs"), (2, "earlier: the dataset's pictures, dataset.folds")]
)
def test_the_same_folds_hold_out_the_same_pictures(
    folds: int, named: str, run: Run, bad_world: Path, tmp_path: Path
) -> None:
    """Of an earlier search by four folds, whose settings don't say so."""
    search = make_search(bad_world, tmp_path / "earlier")
    write_splits(split_folds(read_folder(bad_world / "pictures"), 4), search / "split.json")
    assert named in run(f"{TUNE} --set dataset.folds={folds} --warm-start {search}").stderr


def test_what_is_taken_is_in_the_journal_before_the_first_trial(
    run: Run, bad_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C as the first trial is about to start: the search can go on, and knows what it took."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    share = nullcontext(Share(cpus=1, gpus=0.0, workers=1, concurrent=1))
    monkeypatch.setattr("raylora.execution.tuner._cluster", lambda *_: share)
    monkeypatch.setattr("raylora.execution.tuner._search", interrupted)
    search = make_search(bad_world, tmp_path / "search")
    result = run(f"{TUNE} --warm-start {search}".replace("--dry-run", ""))
    out = OutFolder(tmp_path / "out")
    assert (result.status, out.read_unfinished()["state"]) == (130, "interrupted")
    assert f"raylora resume {out.root}" in result.stderr
    assert out.read_state()["base_digest"] == base_digest(str(bad_world / "base"), "sd15")
    taken = read_trials(out.study, EARLIER_NAME)
    assert [trial.user_attrs[SOURCE_KEY] for trial in taken] == [str(search)] * 4
    study = SearchStudy(out.study, load_space(str(out.space)), read_experiment(out.experiment), same_length)
    assert (study.asked, study.ask()[0]) == (0, 0)
    assert len(read_trials(out.study, EARLIER_NAME)) == 4


@pytest.mark.parametrize(
    ("folder", "fragments"),
    [
        ("missing", ("missing", "no such folder", "--out folder of an earlier search")),
        ("good.yaml", ("good.yaml", "no such folder")),
        ("pictures", ("pictures", "holds no search")),
        ("trained", ("trained", "holds no search")),
        ("finished", ("finished", "holds no search")),
    ],
)
def test_what_is_no_search_is_refused(folder: str, fragments: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    refused(run(f"{TUNE} --warm-start {folder}"), f"--warm-start {Path.cwd() / folder}", *fragments)
    assert list(tmp_path.iterdir()) == []


def test_a_training_is_refused(run: Run, tmp_path: Path) -> None:
    out = OutFolder(tmp_path / "trained")
    out.root.mkdir()
    shutil.copy("good.yaml", out.experiment)
    out.write_state("interrupted", holds_out=False, wall_s=0.0)
    refused(run(f"{TUNE} --warm-start {out.root}"), "holds a training", "leave --warm-start out")


def test_a_search_without_an_ended_trial_is_refused(run: Run, bad_world: Path, tmp_path: Path) -> None:
    search = make_search(bad_world, tmp_path / "search", trials=0)
    refused(run(f"{TUNE} --warm-start {search}"), "no trial of that search has ended", f"raylora resume {search}")


@pytest.mark.parametrize(
    "content", ["no\njournal\n", "[]\n", '{"op_code": 99}\n', '{"op_code": 5}\n', "5\n", "garbage", "\0" * 99]
)
def test_a_broken_journal_is_refused(content: str, run: Run, bad_world: Path, tmp_path: Path) -> None:
    search = make_search(bad_world, tmp_path / "search")
    (search / "study.journal").write_text(content)
    refused(
        run(f"{TUNE} --warm-start {search}"), "study.journal is damaged", "put back a copy", "leave --warm-start out"
    )


def test_a_search_of_which_nothing_fits_is_refused(run: Run, bad_world: Path, tmp_path: Path) -> None:
    search = make_search(bad_world, tmp_path / "search")
    (tmp_path / "space.yaml").write_text("parameters:\n  lora.dropout: {choices: [0.2, 0.3]}\n")
    result = run(f"{TUNE} --space {tmp_path}/space.yaml --warm-start {search}")
    refused(result, "none of its trials fits", "4 by lora.dropout", "widen the search space")


def test_a_search_for_another_base_model_is_refused_unless_forced(run: Run, bad_world: Path, tmp_path: Path) -> None:
    search = make_search(bad_world, tmp_path / "search")
    shutil.copytree(bad_world / "base", tmp_path / "other")
    ask = f"{TUNE} --set model.base_model={tmp_path}/other --warm-start {search}"
    refused(run(ask), f"searched for {bad_world}/base", f"this search is for {tmp_path}/other", "add --force")
    told = run(f"{ask} --force")
    assert told.status == 0
    assert "Warm start  4 of 5" in told.stderr
    assert "model.base_model differs" in told.stderr


def test_the_same_base_model_elsewhere_is_the_same(run: Run, bad_world: Path, tmp_path: Path) -> None:
    search = make_search(bad_world, tmp_path / "search")
    OutFolder(search).write_state("interrupted", base_digest=base_digest(str(bad_world / "base"), "sd15"))
    shutil.copytree(bad_world / "base", tmp_path / "moved")
    told = run(f"{TUNE} --set model.base_model={tmp_path}/moved --warm-start {search}")
    assert told.status == 0
    assert "Warm start  4 of 5" in told.stderr
    assert "differ" not in told.stderr


def test_another_base_model_in_the_same_place_is_another(run: Run, bad_world: Path, tmp_path: Path) -> None:
    search = make_search(bad_world, tmp_path / "search")
    OutFolder(search).write_state("interrupted", base_digest="of what lay there before")
    ask = f"{TUNE} --warm-start {search}"
    refused(run(ask), f"searched for {bad_world}/base with other weights than those that are there now", "add --force")
    assert "model.base_model differs" in run(f"{ask} --force").stderr


def test_a_base_model_is_known_by_its_weights(bad_world: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bad_world / "base", base)
    known = base_digest(str(bad_world / "base"), "sd15")
    assert base_digest(str(base), "sd15") == known != base_digest("demo", "sd15")
    (base / "unet" / "notes.txt").write_text("not a weight")
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file(tensors, weights, {"format": "pt", "note": "saved again"})
    assert base_digest(str(base), "sd15") == known
    save_file({name: tensor + 1e-3 for name, tensor in tensors.items()}, weights, {"format": "pt"})
    assert base_digest(str(base), "sd15") != known
    assert base_digest("nobody/nothing", "sd15") is None


def test_force_without_a_warm_start_is_refused(run: Run) -> None:
    refused(run(f"{TUNE} --force"), "--force: there is no --warm-start")
