"""Bad input: one message that names the thing and the mend, exit status 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from raylora.config_files import read_experiment, write_experiment
from raylora.dataset.folder import read_folder
from raylora.dataset.split import Split, write_splits
from tests.bad_world import Result, Run

OUT = "--out out"
"""Where commands would write; each test has an `out` of its own that must not come to be."""


def assert_refused(result: Result, tmp_path: Path, *fragments: str) -> None:
    """Status 2 and one message, last on stderr, that holds every fragment; nothing on stdout or on disk."""
    assert result.status == 2, result.stderr
    assert "Traceback" not in result.stderr
    start = "" if result.stderr.startswith("raylora: error: ") else "\n"
    assert result.stderr.count(f"{start}raylora: error: ") == 1
    message = result.stderr[result.stderr.index(f"{start}raylora: error: ") :]
    for fragment in fragments:
        assert fragment in message
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


SETTINGS = [
    ("train good.yaml --set lora.rnak=8", "--set: lora.rnak", "did you mean lora.rank?"),
    ("train good.yaml --set optimizer.unet_rl=1", "optimizer.unet_rl", "did you mean optimizer.unet_lr?"),
    ("train misspelt.yaml", "misspelt.yaml: lora.rnak", "lora.rank?", "optimizer.nmae", "optimizer.name?",
     "lr_schedular", "lr_scheduler"),
    ("tune misspelt.yaml --dry-run --set seed=-1", "misspelt.yaml: lora.rnak", "--set: seed", "found -1"),
    ("tune good.yaml --set model.family=sdxl", "--space sdxl-character or --space sdxl-style"),
    ("train pictures", "pictures: is a folder", "--dataset"),
    ("train good.yaml --dataset ''", "--dataset: dataset.path", "must not be empty"),
    ("tune good.yaml --set search.tradeoffs=[scor,lora_mb]", "search.tradeoffs", "no measure scor", "mean score?"),
    ("tune good.yaml --set search.tradeoffs=[score,prompt_alignment] --set evaluation.encoder=silent_faces:Faces",
     "search.tradeoffs: prompt_alignment", "encoder silent_faces:Faces", "CLIP or SigLIP"),
    ("tune good.yaml --set search.tradeoffs=[score,prompt_alignment] --set evaluation.encoder=dino --dry-run",
     "search.tradeoffs: prompt_alignment", "encoder dino", "CLIP or SigLIP"),
    ("tune good.yaml --set search.tradeoffs=[score,score]", "--set: search.tradeoffs", "each measure once"),
    ("tune good.yaml --set 'evaluation.score={w_loss: 0, w_sim: 0}'", "--set: evaluation.score.w_loss", "all 0"),
    ("tune good.yaml --set search.tradeoffs=[]", "--set: search.tradeoffs", "1 or more entries"),
    ("tune good.yaml --set search.limits.lora_mb=0", "--set: search.limits.lora_mb", "above 0"),
    ("tune good.yaml --set search.limits.train=9", "search.limits.train", "did you mean search.limits.train_s?"),
    ("tune good.yaml --set search.limits=9", "--set: search.limits", "is a section", "set search.limits.lora_mb="),
    ("train good.yaml --set lora.rank=0", "--set: lora.rank", "at least 1", "found 0"),
    ("train good.yaml --set lora.rank=many", "--set: lora.rank", "whole number", "'many'"),
    ("train good.yaml --set lora.rank=1.5", "--set: lora.rank", "whole number", "1.5"),
    ("train good.yaml --set lora=3", "--set: lora", "found 3"),
    ("train good.yaml --set lora.rank.x=3", "--set: lora.rank"),
    ("train good.yaml --set optimizer.name=sgd", "--set: optimizer.name", "'adamw'", "'lion'", "'sgd'"),
    ("train good.yaml --set optimizer.learning_rate=.inf", "optimizer.learning_rate", "finite"),
    ("train good.yaml --set optimizer.name=prodigy --set optimizer.unet_lr=1", "Prodigy", "set both to 1: --set"),
    ("tune good.yaml --dry-run --space anime --set optimizer.name=prodigy", "--set optimizer.unet_lr=1 --set"),
    ("train good.yaml --set training.repeats=1000000000000", "20,000,000,000,000 images", "lower it"),
    ("train good.yaml --set lora.rank=true", "lora.rank", "whole number"),
    ("tune good.yaml --dry-run --space small.yaml --set lora.dropout=0", "small", "nothing to search", "--space"),
    ("train good.yaml --set dataset.resolution=500", "dataset.resolution", "multiples of 64", "use 512x512"),
    ("train good.yaml --set dataset.resolution=0", "dataset.resolution"),
    ("train good.yaml --set dataset.resolution=-64", "dataset.resolution"),
    ("train good.yaml --set dataset.resolution=64x64x64", "dataset.resolution"),
    ("train good.yaml --set seed=99999999999999", "seed"),
    ("train good.yaml --set evaluation.timesteps=[1000]", "evaluation.timesteps", "below 1000"),
    ("train good.yaml --set model.clip_skip=99", "model.clip_skip 99", "layers; give 1 to"),
    ("train good.yaml --set loss.multires_noise_iterations=6", "multires_noise_discount"),
    ("train good.yaml --set lr_scheduler.num_restarts=4", "num_restarts", "cosine"),
    ("train good.yaml --set lora.block_ranks.down_blocks.9=4", "lora.block_ranks", "down_blocks.9", "mid_block"),
    ("train good.yaml --set optimizer.name=nowhere:Class", "nowhere:Class"),
    ("train good.yaml --set optimizer.arguments.betaz=1", "betaz"),
    ("train good.yaml --set dataset.regularization=nowhere", "nowhere", "no such folder"),
    ("train good.yaml --set training.epochs", "--set training.epochs", "section.field=value"),
    ("train good.yaml --set lora.rank=[1", "--set lora.rank=[1", "not valid YAML"),
    ("tune good.yaml --dry-run --trials 0", "search.trials", "at least 1"),
    ("tune good.yaml --dry-run --gpus-per-trial 0", "--gpus-per-trial: search.gpus_per_trial", "above 0"),
    ("tune good.yaml --dry-run --gpus-per-trial 1.5", "--gpus-per-trial: search.gpus_per_trial", "whole number", "1.5"),
    ("tune good.yaml --dry-run --register mine/best", "--register: tracking.register_name", "no / or :", "'mine/best'"),
    ("train broken.yaml", "broken.yaml", "valid YAML", "line 2"),
    ("train list.yaml", "list.yaml", "`section:`", "list"),
    ("train number.yaml", "number.yaml: lora", "found 5"),
    ("train missing.yaml", "missing.yaml", "no such file"),
    ("train no_base.yaml", "no base model", "--base-model"),
    ("train no_dataset.yaml", "no dataset", "--dataset"),
    ("train", "no base model", "no dataset", "--demo stands for both"),
    ("tune", "no base model", "no dataset", "--demo stands for both"),
]  # fmt: skip
SPACES = [
    ("tune good.yaml --dry-run --space realistc", "realistc", "anime", "did you mean realistic?"),
    ("train good.yaml --space sdxl-charakter", "sdxl-charakter", "did you mean sdxl-character?"),
    ("tune good.yaml --dry-run --space bad_key_space.yaml", "lora.rank", "whne", "did you mean when?"),
    ("tune good.yaml --dry-run --space bad_path_space.yaml", "lora.rnak", "did you mean lora.rank?"),
    ("tune good.yaml --dry-run --space bad_value_space.yaml", "bad_value_space", "lora.dropout", "below 1"),
    ("tune good.yaml --space own_optimizer_space.yaml", "nowhere:Class", "can't be imported", "install its package"),
    ("tune good.yaml --dry-run --space measuring_space.yaml", "evaluation.noises", "can't be searched"),
    ("tune good.yaml --dry-run --space nowhere:function", "nowhere:function", "package.module:function"),
    ("tune good.yaml --dry-run --space broken_space:ranks", "broken_space:ranks", "can't be imported"),
    ("tune good.yaml --dry-run --space own_spaces:failing", "own_spaces:failing", "RuntimeError: no such luck"),
    ("tune good.yaml --space own_spaces:failing", "own_spaces:failing", "RuntimeError: no such luck"),
    ("tune good.yaml --space own_spaces:silent", "own_spaces:silent", "gives None", "a dict such as"),
    ("tune good.yaml --space sdxl-character", "model.family is sdxl", "realistic or anime"),
    ("train good.yaml --space sdxl-style", "model.family is sdxl", "--set model.family=sd15"),
]
DATASETS = [
    ("train good.yaml --dataset empty", "empty", "0 usable images", "at least 8"),
    ("train good.yaml --dataset missing", "missing", "no such folder"),
    ("train good.yaml --dataset good.yaml", "good.yaml", "no such folder"),
    ("train good.yaml --dataset seven", "seven", "7 usable images", "at least 8"),
    ("train good.yaml --dataset unreadable", "picture_03.png", "can't be read", "--skip-bad-images"),
    ("train good.yaml --dataset cut_off", "picture_03.png", "can't be read", "--skip-bad-images"),
    ("train good.yaml --dataset uncaptioned", "picture_00.png", "picture_00.txt", "--set dataset.trigger=WORD"),
    ("train good.yaml --dataset latin", "picture_03.txt", "UTF-8"),
    ("train good.yaml --dataset indexed", "metadata.jsonl, line 2", "file_name"),
    ("train good.yaml --dataset outside", "metadata.jsonl, line 1", "../good.yaml", "outside"),
    ("train good.yaml --dataset binary_index", "metadata.jsonl", "UTF-8"),
    ("train good.yaml --dataset copies --holdout", "copies", "near-duplicates"),
    (
        "tune good.yaml --dry-run --set dataset.regularization=pictures",
        "20 of 20 images are in dataset.regularization",
        "picture_",
    ),
    ("train good.yaml --set dataset.regularization=pictures", "20 of 20 images are in dataset.regularization"),
    ("tune good.yaml --dataset seven_more --set dataset.folds=9", "16 images are too few", "dataset.folds=8 or less"),
    ("train good.yaml --holdout --set dataset.folds=2", "dataset.folds 2", "dataset.folds=1", "raylora tune"),
    ("tune good.yaml --set dataset.folds=3 --set search.refit=false", "search.refit false", "leave search.refit at"),
    ("tune good.yaml --split folds.json", "folds.json: has 2 folds, and dataset.folds is 1", "dataset.folds=2"),
    ("train good.yaml --split folds.json", "folds.json: has 2 folds", "or leave --split out"),
    ("tune good.yaml --set dataset.folds=2 --split no_folds.json", "no_folds.json", "not a split file"),
    ("train good.yaml --split missing.json", "missing.json", "split.json of an output folder"),
    ("train good.yaml --split not_split.json", "not_split.json", "not a split file"),
    ("train good.yaml --split other_split.json", "other_split.json: is of other data", "none of the 1"),
    ("train good.yaml --split empty_split.json", "empty_split.json"),
    ("train good.yaml --split whole_split.json", "whole_split.json"),
]
MODELS = [
    ("train good.yaml --base-model missing", "missing", "no such base model", "hub id"),
    ("train good.yaml --base-model nobody/nothing", "nobody/nothing", "no such path", "HF_HUB_OFFLINE"),
    ("tune good.yaml --base-model nobody/nothing", "nobody/nothing", "no such path", "HF_HUB_OFFLINE"),
    ("tune good.yaml --set evaluation.encoder=nobody/nothing", "evaluation.encoder nobody/nothing", "HF_HUB_OFFLINE"),
    ("tune good.yaml --dry-run --base-model models/sd15.safetensors", "models/sd15.safetensors", "no such file"),
    ("tune good.yaml --dry-run --base-model full/mine", "full/mine", "no such file"),
    ("train good.yaml --set evaluation.encoder=full/mine", "evaluation.encoder full/mine", "no such folder"),
    ("train good.yaml --base-model model.ckpt", "model.ckpt", "pickled", "run any code", ".safetensors"),
    ("train good.yaml --base-model model.pt", "model.pt", "pickled", "run any code", ".safetensors"),
    ("train good.yaml --base-model MODEL.CKPT", "MODEL.CKPT", "pickled", "run any code", ".safetensors"),
    ("train good.yaml --base-model broken.safetensors", "broken.safetensors", "not a readable", "again"),
    ("train good.yaml --base-model lora.safetensors", "lora.safetensors", "is a LoRA, not a base model"),
    ("train good.yaml --base-model sdxl.safetensors", "sdxl.safetensors", "SDXL"),
    ("train good.yaml --base-model resnet.safetensors", "resnet.safetensors", "not a Stable Diffusion checkpoint"),
    ("train good.yaml --base-model inpainting.safetensors", "inpainting.safetensors", "4 latent channels"),
    ("train good.yaml --base-model pictures", "pictures", "not a diffusers folder", "model_index.json"),
    ("train good.yaml --base-model good.yaml", "good.yaml", "not a .safetensors file"),
    ("train good.yaml --base-model sdxl", "sdxl", "Stable Diffusion XL", "--set model.family=sdxl"),
    ("train good.yaml --base-model with_code", "with_code", "['own_code', 'Evil'] for 'unet'", "came with the model"),
    ("train good.yaml --base-model elsewhere", "names '../../elsewhere.weights'", "no file beside it"),
    (
        "tune good.yaml --tracking-uri http://me:hunter2@host",
        "--tracking-uri: tracking.uri",
        "MLFLOW_TRACKING_PASSWORD",
        "http://***@host",
    ),
    ("train good.yaml --base-model inpainting", "inpainting", "SD1.5-shaped", "4 latent channels"),
    ("train good.yaml --base-model two_widths", "two_widths", "SD1.5-shaped"),
    ("tune good.yaml --dry-run --base-model sample", "sample", "predicts sample", "epsilon or v_prediction"),
    ("train good.yaml --base-model no_scheduler", "no_scheduler", "scheduler_config.json", "missing or unreadable"),
    ("train good.yaml --base-model list_unet", "list_unet/unet/config.json", "missing or unreadable"),
    ("train good.yaml --base-model no_unet", "no_unet", "missing or unreadable"),
    ("train good.yaml --base-model no_weights", "no_weights", "unet"),
    ("train good.yaml --set evaluation.encoder=./missing", "evaluation.encoder ./missing"),
    ("train good.yaml --holdout --set evaluation.encoder=base", "evaluation.encoder base"),
    ("tune good.yaml --set evaluation.encoder=nowhere:Faces", "encoder nowhere:Faces", "package.module:Class"),
    ("train good.yaml --set evaluation.encoder=nowhere:Faces", "encoder nowhere:Faces", "package.module:Class"),
    ("tune good.yaml --set evaluation.encoder=long_faces:Faces", "encoder long_faces:Faces", "lengths", "length 1"),
    ("tune good.yaml --dry-run --set evaluation.encoder=long_faces:Faces", "long_faces:Faces", "lengths", "length 1"),
    ("train good.yaml --holdout --set evaluation.encoder=long_faces:Faces", "long_faces:Faces", "lengths", "length 1"),
    ("tune good.yaml --dry-run --set evaluation.encoder=./dinos_weights", "dinos_weights", "another model's"),
    ("tune good.yaml --set evaluation.encoder=./dinos_weights", "dinos_weights", "another model's"),
    ("train good.yaml --holdout --set evaluation.encoder=./dinos_weights", "dinos_weights", "another model's"),
    ("train good.yaml --dry-run --set evaluation.encoder=./cut_encoder", "cut_encoder", "model.safetensors is cut off"),
    ("train good.yaml --set evaluation.encoder=./good.yaml", "evaluation.encoder ./good.yaml: is a file", "the folder"),
    (r"tune good.yaml --set 'evaluation.encoder=C:\models\clip'", r"encoder C:\models\clip", "path of a folder"),
]
PLACES = [
    (
        "tune good.yaml --tracking-uri http://127.0.0.1:9",
        "http://127.0.0.1:9",
        "(Connection refused); start the server",
    ),
    ("tune good.yaml --address head-node", "--address 'head-node'", "give auto, local, HOST:PORT or ray://"),
    ("tune good.yaml --gpus-per-trial 4096", "search.gpus_per_trial 4096", "only"),
    ("tune good.yaml --address 127.0.0.1:9", "--address 127.0.0.1:9", "no Ray cluster"),
    ("tune good.yaml --tracking-uri mlruns", "mlruns", "file store", "sqlite:///mlruns.db"),
    ("tune good.yaml --tracking-uri file:///mlruns", "file:///mlruns", "--tracking-uri"),
    ("tune good.yaml --tracking-uri nonsense://server", "nonsense://server", "--tracking-uri"),
]


@pytest.mark.parametrize(
    ("line", "fragments"),
    [pytest.param(line, fragments, id=line) for line, *fragments in SETTINGS + SPACES + DATASETS + MODELS + PLACES],
)
def test_it_is_refused(line: str, fragments: list[str], run: Run, tmp_path: Path) -> None:
    assert_refused(run(f"{line} {OUT}"), tmp_path, *fragments)


EVALUATIONS = [
    ("evaluate missing.safetensors", "missing.safetensors", "no such LoRA file"),
    ("evaluate pictures", "pictures", "holds no LoRA", "best/"),
    ("evaluate lora.pt", "lora.pt", "pickled", "run any code", ".safetensors"),
    ("evaluate broken.safetensors", "broken.safetensors", "not a readable"),
    ("evaluate base/unet/diffusion_pytorch_model.safetensors", "holds no LoRA weights"),
    ("evaluate lora.safetensors", "no base model", "--base-model"),
    ("evaluate lora.safetensors --base-model model.ckpt", "model.ckpt", "pickled"),
    ("evaluate narrow.safetensors --base-model base", "narrow.safetensors", "does not fit the base model"),
    ("evaluate elsewhere.safetensors --base-model base", "elsewhere.safetensors", "does not fit the base model"),
    ("evaluate odd.safetensors --base-model base", "odd.safetensors: lora_unet_mid_block_attentions_0_proj_in.alpha"),
    ("evaluate flux.safetensors --base-model base", "flux.safetensors", "does not fit the base model"),
    ("evaluate lora.safetensors --base-model base --set evaluation.encoder=./missing", "evaluation.encoder ./missing"),
    ("evaluate lora.safetensors --base-model base --set lora.rnak=1", "did you mean lora.rank?"),
]


@pytest.mark.parametrize(
    ("line", "fragments"), [pytest.param(line, fragments, id=line) for line, *fragments in EVALUATIONS]
)
def test_a_lora_that_cannot_be_judged_is_refused(line: str, fragments: list[str], run: Run, tmp_path: Path) -> None:
    settings = "--set evaluation.encoder=demo" if "encoder" not in line else ""
    line = f"{line} --dataset seven {settings} --set dataset.resolution=64 --set sampling.steps=1"
    assert_refused(run(line), tmp_path, *fragments)


def test_a_missing_judging_folder_is_refused(run: Run, tmp_path: Path) -> None:
    line = "evaluate lora.safetensors --base-model base --dataset missing"
    assert_refused(run(line), tmp_path, "missing", "no such folder")


RESUMES = [
    ("resume missing", "missing", "no such folder", "--out"),
    ("resume pictures", "pictures", "holds no search", "--out"),
    ("resume list_state", "list_state", "holds no search"),
    ("resume empty_state", "empty_state", "holds no search"),
    ("resume trained", "trained", "holds no search"),
    ("resume finished", "finished", "summary.json"),
]


@pytest.mark.parametrize(
    ("line", "fragments"), [pytest.param(line, fragments, id=line) for line, *fragments in RESUMES]
)
def test_a_folder_that_cannot_go_on_is_refused(line: str, fragments: list[str], run: Run, tmp_path: Path) -> None:
    assert_refused(run(line), tmp_path, *fragments)


def test_a_search_does_not_go_on_without_its_tracking_server(
    run: Run, bad_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    search = tmp_path / "search"
    search.mkdir()
    uri = "http://127.0.0.1:9"
    absolute = {
        "dataset.path": str(bad_world / "pictures"),
        "model.base_model": str(bad_world / "base"),
        "tracking.uri": uri,
    }
    write_experiment(read_experiment(bad_world / "good.yaml").with_params(absolute), search / "experiment.yaml")
    shutil.copy(bad_world / "small.yaml", search / "space.yaml")
    pictures = read_folder(bad_world / "pictures")
    write_splits([Split(train=tuple(pictures[5:]), holdout=tuple(pictures[:5]))], search / "split.json")
    state = json.dumps({"state": "interrupted", "tracking_uri": uri, "parent_run_id": "1"})
    (search / "state.json").write_text(state)
    assert_refused(run(f"resume {search}"), tmp_path, uri, "start the server")
    assert (search / "state.json").read_text() == state


USAGE = [
    ("tune good.yaml --dry-rn", "--dry-rn", "--dry-run"),
    ("tune good.yaml --trials many", "--trials", "integer"),
    ("train good.yaml other.yaml", "other.yaml"),
    ("tun good.yaml", "'tun'", "'tune'"),
    ("resume", "OUT"),
    ("evaluate lora.safetensors", "--dataset"),
]


@pytest.mark.parametrize(("line", "fragments"), [pytest.param(line, rest, id=line) for line, *rest in USAGE])
def test_wrong_usage_is_told(line: str, fragments: list[str], run: Run) -> None:
    result = run(line)
    assert result.status == 2
    assert "Traceback" not in result.stderr
    for fragment in fragments:
        assert fragment.lower() in result.stderr.lower()


@pytest.mark.parametrize("line", [line for line, *_ in PLACES])
def test_a_dry_run_looks_at_places_too(line: str, run: Run, tmp_path: Path) -> None:
    assert_refused(run(f"{line} --dry-run {OUT}"), tmp_path)


@pytest.mark.parametrize("command", ["tune", "train"])
def test_a_dry_run_looks_at_its_output_folder(command: str, run: Run, tmp_path: Path) -> None:
    result = run(f"{command} good.yaml --dry-run --out full")
    assert_refused(result, tmp_path, "full", "not empty")


@pytest.mark.parametrize("command", ["tune", "train"])
def test_a_folder_in_use_is_left_alone(command: str, run: Run, bad_world: Path, tmp_path: Path) -> None:
    result = run(f"{command} good.yaml --out full")
    assert_refused(result, tmp_path, str(bad_world / "full"), "not empty", "--out")
    assert [path.name for path in (bad_world / "full").iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("command", ["tune", "train"])
def test_a_file_as_output_folder_is_refused(command: str, run: Run, tmp_path: Path) -> None:
    assert_refused(run(f"{command} good.yaml --out full/kept.txt"), tmp_path, "kept.txt", "is a file", "--out")


@pytest.mark.parametrize("command", ["tune", "train"])
def test_no_room_on_disk_is_told_first(command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert_refused(run(f"{command} good.yaml {OUT}"), tmp_path, "needs about 0.", "the disk has 0.0 GiB", "free some")


def test_an_absent_database_folder_is_told_at_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow tries such a database again and again, waiting longer each time, for more than an hour."""
    monkeypatch.setattr("mlflow.store.db.utils.time.sleep", lambda _: pytest.fail("MLflow waits"))
    uri = f"sqlite:///{tmp_path}/missing/mlflow.db"
    assert_refused(run(f"tune good.yaml {OUT} --tracking-uri {uri}"), tmp_path, uri)


def test_a_deleted_mlflow_experiment_is_told_before_anything_starts(run: Run, tmp_path: Path) -> None:
    """MLflow still finds it by its name, but makes no runs in it."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("raylora"))
    assert_refused(run(f"tune good.yaml {OUT} --tracking-uri {uri}"), tmp_path, "was deleted", "tracking.experiment=")


def test_nothing_is_left_where_something_else_is_wrong_too(run: Run, tmp_path: Path) -> None:
    """A tracking database that doesn't exist yet is not made for a search that can't start."""
    result = run(f"tune good.yaml --out full --tracking-uri sqlite:///{tmp_path}/mlflow.db")
    assert_refused(result, tmp_path, "not empty")
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_fails_where_trials_run_leaves_nothing(
    run: Run, bad_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one on the hub, of which only the configuration is looked at before."""
    monkeypatch.setenv("DRIVER", str(os.getpid()))
    result = run(f"tune good.yaml --space small.yaml --set evaluation.encoder=drivers_faces:Faces {OUT}")
    assert result.status == 2, result.stderr
    assert "evaluation.encoder drivers_faces:Faces: fails on " in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_lora_of_another_shape_gives_one_message(cli: Callable[..., Any], bad_world: Path) -> None:
    """In a process of its own: libraries write to stderr behind the back of a test in this one."""
    result = cli(
        "evaluate", bad_world / "narrow.safetensors", "--dataset", bad_world / "seven", "--base-model",
        bad_world / "base", "--set", "evaluation.encoder=demo", "--set", "dataset.resolution=64",
        "--set", "sampling.steps=1",
    )  # fmt: skip
    assert result.returncode == 2
    assert "size mismatch" not in result.stderr.partition("raylora: error:")[0]
    assert "narrow.safetensors: does not fit the base model" in result.stderr
