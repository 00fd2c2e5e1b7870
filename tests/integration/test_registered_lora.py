"""Pictures of a LoRA in MLflow's registry, brought from a real store."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.models import Model

from raylora.config import LoraConfig
from raylora.diffusion.adapters import Adapter
from raylora.diffusion.families import load_base
from raylora.diffusion.lora_file import LoraCard, webui_hash, write_diffusers
from raylora.diffusion.places import DIFFUSERS_NAME
from raylora.errors import ConfigError, ModelError, TrackingError
from raylora.tracking import registered
from raylora.tracking.logged_lora import files_at, logged_model
from raylora.tracking.mlflow_runs import MlflowTracker
from raylora.tracking.registered import fetch
from raylora.tracking.registry import Handed, log_lora
from tests.infotexts import read_picture
from tests.preparing import command_line


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path, empty_store: Path) -> Path:
    """A folder with MLflow's store, in which `mine` is registered twice."""
    root = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{shutil.copy(empty_store, root)}"
    adapter = Adapter(
        load_base(str(tiny_base_folder)), LoraConfig(rank=2, alpha=2), "a", train_text_encoder=True, seed=0
    )
    write_diffusers(adapter, root, "fp16", LoraCard("mine", (64, 64), 8, trigger="sks"))
    tracker = MlflowTracker(uri, "raylora")
    tracker.start("search", {}, {})
    handed = Handed(root / DIFFUSERS_NAME, str(tiny_base_folder), (64, 64), 2, 3.0)
    model = log_lora(uri, tracker.parent_run_id, handed)
    client = MlflowClient(uri, uri)
    for alias in ("champion", "trial"):
        version = mlflow.register_model(model, "mine").version
        client.set_registered_model_alias("mine", alias, version)
    client.set_model_version_tag("mine", "1", "raylora.strength", "0.6")
    return root


@pytest.fixture
def uri(store: Path) -> str:
    return f"sqlite:///{store / 'mlflow.db'}"


@pytest.mark.parametrize(("reference", "version"), [("models:/mine@champion", "1"), ("models:/mine/2", "2")])
def test_a_version_is_found_by_alias_and_number(
    reference: str, version: str, uri: str, store: Path, tmp_path: Path, tiny_base_folder: Path
) -> None:
    mlflow.set_registry_uri("sqlite:////nowhere/of-the-process.db")  # which another store's user may have left
    try:
        found = fetch(reference, uri, tmp_path)
    finally:
        mlflow.set_registry_uri(uri)
    assert (found.name, found.version, found.base_model) == ("mine", version, str(tiny_base_folder))
    assert found.settings == {"sampling.steps": 2, "sampling.guidance_scale": 3.0, "dataset.resolution": [64, 64]}
    assert found.strength == {"1": 0.6, "2": None}[version]
    assert found.file.is_relative_to(tmp_path)
    assert found.file.read_bytes() == (store / DIFFUSERS_NAME).read_bytes()


def test_a_base_model_on_the_hub_is_loaded_at_the_commit_that_it_was_trained_on(store: Path, tmp_path: Path) -> None:
    """MLflow by itself takes the newest."""
    handed = Handed(store / DIFFUSERS_NAME, "some/base", (64, 64), 2, 3.0, revision="0" * 40)
    handed.save_model(str(tmp_path / "model"), Model())
    flavours = Model.load(str(tmp_path / "model")).flavors
    assert flavours["diffusers"]["base_model"] == "some/base"
    assert flavours["diffusers"]["base_model_revision"] == "0" * 40


def test_its_model_says_how_pictures_are_made(
    uri: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = command_line(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    result = run("generate models:/mine@champion --prompt '{trigger} in fog' --seed 3 --out out")
    assert result.status == 0, result.stderr
    assert "Downloading" not in result.stderr
    read = read_picture(tmp_path / "out" / "00000-3.png")
    assert read.prompt == "sks in fog <lora:mine:0.6>"
    told = {name: read.values[name] for name in ("Steps", "CFG scale", "Size", "Lora hashes")}
    digest = webui_hash(store / DIFFUSERS_NAME)
    assert told == {"Steps": "2", "CFG scale": "3", "Size": "64x64", "Lora hashes": f"mine: {digest[:12]}"}


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("models:/mime@champion", "nothing is registered as mime; did you mean mine? (there: mine)"),
        ("models:/mine@chanpion", "mine has no alias chanpion; did you mean champion? (there: champion, trial)"),
        ("models:/mine/7", "mine has no version 7 (there: 2, 1)"),
        ("models:/mine/latest", "give models:/NAME/VERSION or models:/NAME@ALIAS"),
        ("models:/it's@champion", "nothing is registered as it's"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(reference: str, told: str, uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        fetch(reference, uri, tmp_path)
    assert told in str(refused.value)
    assert str(refused.value).startswith(reference)


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="there is no such file"):
        fetch("models:/mine@champion", f"sqlite:///{tmp_path / 'none.db'}", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("flavors: {python_function: {}}", "has no flavour diffusers"),
        ("flavors: {diffusers: {adapter_weights: .., base_model: x}}", "names files in other places"),
        ("flavors: {diffusers: {adapter_weights: w, weight_name: ../x, base_model: x}}", "names files in other places"),
        ("!!python/object/apply:os.system [true]", "has no flavour diffusers"),
        ("flavors: {diffusers: {adapter_weights: gone, base_model: x}}", "can't be brought"),
    ],
)
def test_a_model_that_is_no_lora_is_refused(
    text: str, told: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(uri, uri)
    logged = logged_model(client, client.get_model_version("mine", "1"))
    assert logged is not None
    changed = tmp_path / "model"
    shutil.copytree(logged.artifact_location.removeprefix("file://"), changed)
    (changed / "MLmodel").write_text(text)
    monkeypatch.setattr(registered, "files_of", lambda *_: files_at(client, changed.as_uri()))
    with pytest.raises((ModelError, TrackingError)) as refused:
        fetch("models:/mine/1", uri, tmp_path)
    assert told in str(refused.value)
