"""`raylora train` and `raylora evaluate` from end to end on a tiny base model, in this process."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from raylora import cli
from raylora.config import Experiment
from raylora.config_files import read_experiment, write_experiment
from raylora.dataset.folder import read_folder
from raylora.training.trainer import Trainer
from tests.integration.test_train_resume import without_costs

ROUNDING = 1e-3
"""LoRA files are written in fp16."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "using-the-search.md"


@dataclass(frozen=True)
class Result:
    status: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Result:
    """The command line in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", ["raylora", *map(str, arguments)])
        cli.main()
    return Result(int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue())


def finished(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.status == 0, result.stderr
    return result


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path, pictures_folder: Path) -> Path:
    """An experiment file: rungs at 8 and 16 images, 32 in all."""
    experiment = Experiment().with_params(
        {
            "dataset.path": str(pictures_folder),
            "dataset.resolution": 64,
            "model.base_model": str(tiny_base_folder),
            "lora.rank": 4,
            "lora.alpha": 4,
            "lora.dropout": 0.1,
            "optimizer.learning_rate": 5e-3,
            "training.repeats": 1,
            "training.epochs": 4,
            "training.batch_size": 2,
            "evaluation.encoder": "demo",
            "evaluation.timesteps": (200, 800),
            "sampling.seeds": (0, 1),
            "sampling.steps": 2,
            "search.grace_period": 8,
        }
    )
    file = tmp_path_factory.mktemp("settings") / "experiment.yaml"
    write_experiment(experiment, file)
    return file


@pytest.fixture(scope="module")
def on_all(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("on_all") / "out"
    finished("train", settings, "--out", out)
    return out


@pytest.fixture(scope="module")
def measured(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("measured") / "out"
    finished("train", settings, "--holdout", "--out", out)
    return out


@pytest.fixture(scope="module")
def held_out(measured: Path, pictures_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images that the split held out."""
    folder = tmp_path_factory.mktemp("held_out")
    digests = {row["digest"] for row in read_json(measured / "split.json")["holdout"]}
    for picture in read_folder(pictures_folder):
        if picture.digest in digests:
            shutil.copy(picture.path, folder)
            shutil.copy(picture.path.with_suffix(".txt"), folder)
    return folder


def metrics_of(lora: Path, dataset: Path, *arguments: object) -> dict[str, Any]:
    result = finished("evaluate", lora, "--dataset", dataset, "--json", *arguments)
    metrics: dict[str, Any] = json.loads(result.stdout)["metrics"]
    return metrics


@pytest.mark.parametrize("kind", ["on_all", "measured"])
def test_training_writes_everything_that_users_get(kind: str, request: pytest.FixtureRequest) -> None:
    out: Path = request.getfixturevalue(kind)
    assert read_json(out / "state.json")["state"] == "finished"
    best = read_json(out / "summary.json")["best"]
    assert Path(best["lora_kohya"]) == out / "best" / "lora.safetensors"
    assert Path(best["lora_diffusers"]) == out / "best" / "pytorch_lora_weights.safetensors"
    for name in ("lora_kohya", "lora_diffusers"):
        weights = load_file(best[name])
        assert any("text_model" in key for key in weights) and any("down_blocks" in key for key in weights)
        assert all(value.isfinite().all() for value in weights.values())
    assert read_experiment(out / "best" / "experiment.yaml").lora.rank == 4
    assert (out / "trials.csv").read_text().count("\n") == 2
    _, _, told = PAGE.read_text(encoding="utf-8").partition("`raylora train` leaves ")
    left = {f"`{path.name}{'/' * path.is_dir()}" for path in out.iterdir() if not path.name.startswith(".")}
    assert [name for name in sorted(left) if name not in told.partition("\n\n")[0]] == []


def test_the_grid_has_rows_of_the_real_pictures_the_base_model_and_the_lora(measured: Path) -> None:
    with Image.open(measured / "best" / "samples" / "grid.png") as grid:
        assert grid.size == (4 * 66 + 2, 3 * 66 + 2)
    assert len(list((measured / "best" / "samples").glob("sample_*.png"))) == 4


def test_the_grid_of_training_on_all_images_has_rows_of_real_pictures_and_samples(on_all: Path) -> None:
    with Image.open(on_all / "best" / "samples" / "grid.png") as grid:
        assert grid.size == (8 * 66 + 2, 2 * 66 + 2)


def test_all_images_are_learned_unless_some_are_held_out(on_all: Path, measured: Path) -> None:
    assert read_json(on_all / "summary.json")["images_seen"] == 12 * 4
    assert read_json(measured / "summary.json")["images_seen"] == 8 * 4
    assert not (on_all / "split.json").exists()
    assert len(read_json(measured / "split.json")["holdout"]) == 4


def test_measures_are_told_only_where_images_are_held_out(on_all: Path, measured: Path) -> None:
    assert set(read_json(on_all / "summary.json")["best"]["metrics"]) == {"train_loss"}
    best = read_json(measured / "summary.json")["best"]
    assert best["score"] == best["metrics"]["score"]
    assert 0 < best["metrics"]["holdout_loss_ratio"] < 1
    assert all(math.isfinite(value) for value in best["metrics"].values())


def test_the_summary_is_printed_as_json(settings: Path, tmp_path: Path) -> None:
    result = finished("train", settings, "--json", "--out", tmp_path / "out", "--set", "training.epochs=1")
    assert json.loads(result.stdout) == read_json(tmp_path / "out" / "summary.json")


def test_progress_is_told_at_every_rung(settings: Path, tmp_path: Path) -> None:
    result = finished("train", settings, "--holdout", "--out", tmp_path / "out")
    assert [line.split()[0] for line in result.stderr.splitlines() if " images: score " in line] == ["8", "16", "32"]
    assert str(tmp_path / "out" / "best" / "lora.safetensors") in result.stdout


def test_the_settings_beside_a_lora_give_the_same_lora_again(measured: Path, tmp_path: Path) -> None:
    finished("train", measured / "best" / "experiment.yaml", "--holdout", "--out", tmp_path / "again")
    first, again = (read_json(out / "summary.json")["best"] for out in (measured, tmp_path / "again"))
    assert without_costs(again["metrics"]) == without_costs(first["metrics"])
    weights, same = load_file(first["lora_kohya"]), load_file(again["lora_kohya"])
    assert all((same[key] == value).all() for key, value in weights.items())


def test_a_split_is_taken_again(measured: Path, settings: Path, tmp_path: Path) -> None:
    split = read_json(measured / "split.json")
    split["holdout"] = split["holdout"][:2]
    (tmp_path / "split.json").write_text(json.dumps(split))
    finished("train", settings, "--split", tmp_path / "split.json", "--out", tmp_path / "out")
    assert read_json(tmp_path / "out" / "split.json")["holdout"] == split["holdout"]
    assert read_json(tmp_path / "out" / "summary.json")["images_seen"] == 10 * 4


def test_evaluate_prints_every_measure(measured: Path, held_out: Path) -> None:
    metrics = metrics_of(measured, held_out)
    assert list(metrics) == ["score", "holdout_loss", "holdout_loss_ratio", "train_probe_loss", "sample_similarity",
                             "similarity_gain", "prompt_alignment", "diversity", "copying"]  # fmt: skip
    assert all(math.isfinite(value) for value in metrics.values())
    table = finished("evaluate", measured, "--dataset", held_out).stdout
    assert [line.split() for line in table.splitlines()] == [[name, f"{value:.4f}"] for name, value in metrics.items()]


def test_evaluate_agrees_with_the_measures_of_training(measured: Path, held_out: Path) -> None:
    metrics, trained = metrics_of(measured, held_out), read_json(measured / "summary.json")["best"]["metrics"]
    assert metrics["holdout_loss"] == pytest.approx(trained["holdout_loss"], rel=ROUNDING)
    assert metrics["holdout_loss_ratio"] == pytest.approx(trained["holdout_loss_ratio"], rel=ROUNDING)
    assert metrics["train_probe_loss"] == pytest.approx(trained["train_probe_loss"], rel=ROUNDING)
    assert metrics["sample_similarity"] == pytest.approx(trained["sample_similarity"], abs=ROUNDING)


@pytest.mark.parametrize("kind", ["on_all", "measured"])
def test_both_layouts_measure_the_same(kind: str, held_out: Path, request: pytest.FixtureRequest) -> None:
    best = request.getfixturevalue(kind) / "best"
    kohya = metrics_of(best / "lora.safetensors", held_out)
    assert kohya == metrics_of(best / "pytorch_lora_weights.safetensors", held_out)
    assert kohya["holdout_loss_ratio"] < 1


def test_a_lora_alone_is_measured_on_the_base_model_that_is_named(
    measured: Path, held_out: Path, tiny_base_folder: Path, pictures_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(measured / "best" / "lora.safetensors", tmp_path)
    given = ["--base-model", tiny_base_folder, "--set", "dataset.resolution=64", "--set", "evaluation.encoder=demo"]
    given += ["--set", "evaluation.timesteps=[200, 800]", "--set", "sampling={seeds: [0, 1], steps: 2}"]
    alone = metrics_of(tmp_path / "lora.safetensors", held_out, *given)
    assert alone["train_probe_loss"] is None and alone["copying"] is None
    beside = metrics_of(measured, held_out)
    assert alone["holdout_loss"] == beside["holdout_loss"]
    learned = metrics_of(tmp_path / "lora.safetensors", held_out, *given, "--train-dataset", pictures_folder)
    assert learned == beside


def test_without_the_images_that_it_learned_a_lora_is_measured_all_the_same(
    measured: Path, held_out: Path, tmp_path: Path
) -> None:
    shutil.copytree(measured / "best", tmp_path / "best")
    experiment = read_experiment(tmp_path / "best" / "experiment.yaml").with_params({"dataset.path": "/elsewhere"})
    write_experiment(experiment, tmp_path / "best" / "experiment.yaml")
    result = finished("evaluate", tmp_path / "best", "--dataset", held_out, "--json")
    assert result.stderr.startswith("warning: /elsewhere: the images that it learned are not here")
    metrics = json.loads(result.stdout)["metrics"]
    beside = metrics_of(measured, held_out)
    assert metrics["train_probe_loss"] is None and metrics["copying"] is None
    assert metrics["similarity_gain"] == beside["similarity_gain"]


def test_a_lora_of_no_numbers_is_refused(measured: Path, held_out: Path, tmp_path: Path) -> None:
    shutil.copytree(measured / "best", tmp_path / "best")
    broken = {key: weight * math.nan for key, weight in load_file(tmp_path / "best" / "lora.safetensors").items()}
    save_file(broken, tmp_path / "best" / "lora.safetensors")
    result = run("evaluate", tmp_path / "best", "--dataset", held_out, "--json")
    assert result.status == 2
    assert "hold something that is no number; download or train it again" in result.stderr


@pytest.mark.parametrize("holdout", [True, False])
def test_an_interrupted_training_says_so(
    holdout: bool, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, calls = Trainer.advance, []

    def interrupted_at_the_second_call(trainer: Trainer, images: int, is_told_to_pause: Callable[[], bool]) -> None:
        calls.append(images)
        if len(calls) == 2:
            raise KeyboardInterrupt
        advance(trainer, images, is_told_to_pause)

    monkeypatch.setattr(Trainer, "advance", interrupted_at_the_second_call)
    result = run("train", settings, "--out", tmp_path / "out", *(["--holdout"] if holdout else []))
    assert result.status == 130
    assert len(calls) == 2
    assert read_json(tmp_path / "out" / "state.json")["state"] == "interrupted"
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (tmp_path / "out" / "best").exists()
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == f"interrupted; go on with: raylora resume {tmp_path / 'out'}"
    monkeypatch.setattr(Trainer, "advance", advance)
    finished("resume", tmp_path / "out")
    assert read_json(tmp_path / "out" / "state.json")["state"] == "finished"


def test_a_training_needs_no_cluster_to_go_on(settings: Path, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"state": "interrupted", "holds_out": False, "wall_s": 1.0}))
    shutil.copy(settings, tmp_path / "experiment.yaml")
    result = run("resume", tmp_path, "--address", "auto")
    assert result.status == 2
    assert "leave --address out" in result.stderr


def test_a_diverged_training_fails_in_one_line(settings: Path, tmp_path: Path) -> None:
    rates = ["--set", "optimizer.learning_rate=1e30", "--set", "optimizer.max_grad_norm=1e30"]
    result = run("train", settings, "--out", tmp_path / "out", *rates)
    assert result.status == 1
    assert result.stderr.splitlines()[-1].startswith("raylora: failed: the training loss stopped being a number")
    assert read_json(tmp_path / "out" / "state.json")["state"] == "failed"
    assert not (tmp_path / "out" / "summary.json").exists()
