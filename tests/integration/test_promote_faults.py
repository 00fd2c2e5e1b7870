"""`raylora promote` where something was broken off, moved or lost: no alias goes to what can't be served."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import load_base
from raylora.execution.outputs import EXPERIMENT_NAME, OutFolder
from raylora.execution.promoting import NEW_STORE
from raylora.execution.registering import base_folder, how_it_ended, log_winner
from raylora.tracking import registry
from raylora.tracking.entry import ENTRY_NAME, read_entry
from raylora.tracking.registry import Placed, Registered, place
from tests.preparing import command_line
from tests.registries import finished
from tests.results import Result

Promote = Callable[[str], Result]


@pytest.fixture
def search(tmp_path: Path, base: BaseModel, store: str) -> OutFolder:
    return finished(tmp_path / "my search", base, store, 1.1)


@pytest.fixture
def predicting(tmp_path: Path, base: BaseModel, store: str) -> OutFolder:
    """Of a base model that MLflow samples otherwise, unless it gets a folder that says how."""
    return finished(tmp_path / "predicting", base, store, 1.1, settings={"model.prediction_type": "v_prediction"})


@pytest.fixture
def promote(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Promote:
    run = command_line(monkeypatch, capsys, tmp_path)

    def call(line: str) -> Result:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it to what it was last told
        return run(f"promote {line}")

    return call


def quoted(out: OutFolder) -> str:
    return shlex.quote(str(out.root))


def run_of(out: OutFolder) -> str:
    return str(out.read_state()["parent_run_id"])


def names(client: MlflowClient) -> set[str]:
    return {model.name for model in client.search_registered_models()}


def base_in(client: MlflowClient, name: str, version: str = "1") -> str:
    """What MLflow would load for a version."""
    model = mlflow.diffusers.load_model(client.get_model_version(name, version).source)
    return str(model.base_model)


def refuse(*_: object, **__: object) -> None:
    raise MlflowException("the disk of the store is full")


def test_a_base_model_that_mlflow_samples_otherwise_is_made_a_folder_first(
    promote: Promote, client: MlflowClient, predicting: OutFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, where = run_of(predicting), f"--tracking-uri {client.tracking_uri}"
    entry = read_entry(predicting.root / ENTRY_NAME)
    logged = log_winner(predicting, client.tracking_uri, run_id, entry, as_folder=False)  # as without --register
    done = promote(f"{run_id} --name byrun {where}")
    assert done.status == 2
    assert "MLflow would sample it without its model.prediction_type, v_prediction" in done.stderr
    assert "give the search's output folder" in done.stderr
    client.create_registered_model("byhand")
    client.create_model_version("byhand", logged, run_id)
    done = promote(f"models:/byhand/1 --force {where}")
    assert done.status == 2 and "gets no alias, since MLflow alone can't serve it as it was trained" in done.stderr
    with monkeypatch.context() as patched:
        patched.setattr(mlflow.diffusers, "save_model", refuse)
        assert promote(f"{predicting.root} --name byout").status == 2
    assert base_folder(predicting).is_dir()  # of which the model that is logged knows nothing
    assert names(client).isdisjoint({"byrun", "byout"}) and not client.get_registered_model("byhand").aliases
    assert promote(f"{predicting.root} --name byout").status == 0
    assert base_in(client, "byout") == str(base_folder(predicting))
    told = json.loads((base_folder(predicting) / "scheduler" / "scheduler_config.json").read_text())
    assert told["prediction_type"] == "v_prediction"
    assert not list(predicting.root.glob(".base_model*"))
    done = promote(f"{run_id} --name byrun {where}")  # the newest that can be served
    assert done.status == 0 and base_in(client, "byrun") == str(base_folder(predicting))
    shutil.rmtree(base_folder(predicting))
    assert promote(f"{predicting.root} --name byout").status == 1  # the same score, logged and registered anew
    assert base_folder(predicting).is_dir()


def test_a_folder_of_a_base_model_is_there_whole_or_not_at_all(
    promote: Promote, predicting: OutFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Any, folder: Path, **_: Any) -> None:
        folder.mkdir()
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr("diffusers.StableDiffusionPipeline.save_pretrained", interrupted)
    assert promote(f"{predicting.root} --name half").status == 1
    assert not [path for path in predicting.root.iterdir() if "base_model" in path.name]


def test_a_model_whose_upload_was_broken_off_is_nobodys_champion(
    promote: Promote, client: MlflowClient, search: OutFolder
) -> None:
    run_id, where = run_of(search), f"--tracking-uri {client.tracking_uri}"
    experiment = client.get_run(run_id).info.experiment_id
    tags = dict(read_entry(search.root / ENTRY_NAME).tags)
    pending = client.create_logged_model(experiment, "lora", run_id, tags=tags)
    done = promote(f"{run_id} --name pending {where}")
    assert done.status == 2
    assert "its upload never came to its end (MLflow calls it PENDING); give the search's output folder" in done.stderr
    client.create_registered_model("half")
    client.create_model_version("half", f"models:/{pending.model_id}", run_id)
    assert promote(f"models:/half/1 {where} --force").status == 2
    assert "pending" not in names(client) and not client.get_registered_model("half").aliases
    assert promote(f"{quoted(search)} --name pending").status == 0
    assert client.get_model_version("pending", "1").source != f"models:/{pending.model_id}"


def test_the_searchs_run_keeps_its_status_and_its_times(
    promote: Promote, client: MlflowClient, search: OutFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = client.get_run(run_of(search)).info
    with monkeypatch.context() as patched:
        patched.setattr(mlflow.diffusers, "save_model", refuse)
        done = promote(f"{quoted(search)} --name times")
    assert done.status == 2 and "the disk of the store is full" in done.stderr
    assert f"tracking URI {client.tracking_uri}:" in done.stderr
    for _ in range(2):
        info = client.get_run(run_of(search)).info
        assert (info.status, info.start_time, info.end_time) == ("FINISHED", before.start_time, before.end_time)
        assert promote(f"{quoted(search)} --name times").status == 0
    models = client.search_logged_models([before.experiment_id], f"source_run_id = '{run_of(search)}'")
    assert sorted(str(model.status) for model in models) == ["FAILED", "READY"]
    (ready,) = [model for model in models if str(model.status) == "READY"]
    assert ready.tags["raylora.score"] == "1.1"


def test_a_folder_that_was_moved_is_promoted_by_the_command_that_is_told(
    promote: Promote, search: OutFolder, store: str, tmp_path: Path, empty_store: Path
) -> None:
    own = Path(shutil.copy(store.removeprefix("sqlite:///"), search.root / "mlflow.db"))
    search.write_state("finished", tracking_uri=f"sqlite:///{own}")
    moved = shutil.move(search.root, tmp_path / "moved to")
    done = promote(f"{shlex.quote(str(moved))} --name 'my LoRA'")
    assert done.status == 2
    assert "was the folder moved or copied?" in done.stderr and str(own) in done.stderr
    (command,) = re.findall("`raylora promote (.*)`", done.stderr)
    shutil.copy(empty_store, Path(moved) / NEW_STORE)  # MLflow takes seconds to make one
    done = promote(command)
    assert (done.status, done.stdout) == (0, "Registered: models:/my LoRA@champion (version 1)\n")


def test_commands_that_are_told_can_be_typed() -> None:
    registered = Registered(name="my LoRA", version="2", alias=None)
    told = how_it_ended(Placed(registered, "1", "why"), "/data/my out")
    assert told is not None and "`raylora promote '/data/my out' --name 'my LoRA' --force`" in told


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("summary.json", "{", "summary.json: is damaged, and without it"),
        ("summary.json", '{"best": {}}', "summary.json: is damaged, and without it"),
        ("summary.json", None, "summary.json: is gone"),
        (ENTRY_NAME, "{", "registry.json: is damaged; put back a copy of it, or remove it"),
        ("split.json", None, "split.json: is gone"),
        ("split.json", "[]", "split.json: is damaged"),
        ("best/pytorch_lora_weights.safetensors", None, "pytorch_lora_weights.safetensors: is gone"),
        (f"best/{EXPERIMENT_NAME}", None, f"{EXPERIMENT_NAME}: is gone"),
    ],
)
def test_what_is_lost_or_damaged_is_named(
    name: str, content: str | None, told: str, promote: Promote, search: OutFolder, tmp_path: Path
) -> None:
    if name == "split.json":
        (search.root / ENTRY_NAME).unlink()  # which needs no split
    (search.root / name).unlink() if content is None else (search.root / name).write_text(content)
    done = promote(f"{quoted(search)} --name lost --tracking-uri sqlite:///{tmp_path}/team.db")
    assert (done.status, done.stdout) == (2, "")
    assert told in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "team.db").exists()


def test_a_run_that_was_deleted_is_told_with_how_to_restore_it(
    promote: Promote, client: MlflowClient, search: OutFolder
) -> None:
    client.delete_run(run_of(search))
    for line in (quoted(search), f"{run_of(search)} --tracking-uri {client.tracking_uri}"):
        done = promote(f"{line} --name deleted")
        assert done.status == 2
        assert (
            f"`mlflow runs restore --run-id {run_of(search)}`" in done.stderr and "start the server" not in done.stderr
        )
    client.restore_run(run_of(search))
    assert promote(f"{quoted(search)} --name deleted").status == 0


def test_another_store_gets_neither_real_pictures_nor_paths(
    promote: Promote, search: OutFolder, tmp_path: Path, empty_store: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'team.db')}"
    assert promote(f"{quoted(search)} --name team --tracking-uri {uri}").status == 0
    team = MlflowClient(uri, uri)
    sent = files_in(tmp_path / "mlartifacts" / team.get_model_version("team", "1").run_id / "artifacts" / "best")
    assert files_in(search.best) - sent == {"samples/grid.png", "experiment.yaml"} and sent <= files_in(search.best)
    assert not [path for path in (tmp_path / "mlartifacts").rglob("*") if path.is_symlink()]


def test_another_store_gets_nothing_where_the_base_model_is_gone(
    promote: Promote, tmp_path: Path, tiny_base_folder: Path, empty_store: Path
) -> None:
    gone = shutil.copytree(tiny_base_folder, tmp_path / "gone")
    own, team = (f"sqlite:///{shutil.copy(empty_store, tmp_path / name)}" for name in ("own.db", "team.db"))
    search = finished(tmp_path / "of it", load_base(str(gone)), own, 1.1, settings={"model.base_model": str(gone)})
    shutil.rmtree(gone)
    done = promote(f"{quoted(search)} --name team --tracking-uri {team}")
    assert (done.status, str(gone) in done.stderr) == (2, True), done.stderr
    assert not MlflowClient(team, team).search_experiments(filter_string="name = 'raylora'")


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_variable_of_mlflow_names_the_store_of_what_lies_there_alone(
    search: OutFolder, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    run = command_line(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'nowhere.db'}")
    assert run(f"promote {quoted(search)} --name variable").status == 0  # a search's own store is its own
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    assert run(f"promote {run_of(search)} --name variable").status == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    done = run("promote models:/variable/1 --alias staging")
    assert (done.status, done.stdout) == (0, "Registered: models:/variable@staging (version 1)\n")


def test_mlflow_says_nothing_of_its_own(promote: Promote, search: OutFolder, base: BaseModel, store: str) -> None:
    assert promote(f"{quoted(search)} --name quiet").stderr == "Writing the LoRA to MLflow …\n"
    other = finished(search.root.parent / "other", base, store, 1.2)
    assert promote(f"{other.root} --name quiet").stderr == "Writing the LoRA to MLflow …\n"
    assert promote(f"{quoted(search)} --name quiet").stderr.count("\n") == 1  # compared, and told in a line


@pytest.fixture(scope="module")
def rivals(tmp_path_factory: pytest.TempPathFactory, base: BaseModel, store: str) -> str:
    """A name with four versions, each better than the one before."""
    from raylora.execution.promoting import Promotion, promote

    for score in (1.0, 1.1, 1.2, 1.3):
        out = finished(tmp_path_factory.mktemp("rivals") / "out", base, store, score)
        promote(Promotion(str(out.root), "rivals", "champion", None), print)
    return "rivals"


@pytest.mark.parametrize("rival", ["2", "4"])
@pytest.mark.parametrize("comes", ["while both are compared", "right after"])
def test_two_promotions_at_once_leave_the_better_one_champion(
    comes: str, rival: str, rivals: str, store: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 3 takes the place of the first, and so does its rival."""
    client.set_registered_model_alias(rivals, "champion", "1")
    give, came = MlflowClient.set_registered_model_alias, list[str]()

    def racing(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            answer = step(*arguments)
            if not came:
                came.append(rival)
                give(client, rivals, "champion", rival)
            return answer

        return call

    if comes == "right after":
        monkeypatch.setattr(MlflowClient, "set_registered_model_alias", racing(give))
    else:
        monkeypatch.setattr(registry, "_why_not", racing(registry._why_not))
    placed = place(store, rivals, "3")
    assert came
    winner = max(rival, "3")
    assert str(client.get_model_version_by_alias(rivals, "champion").version) == winner
    assert placed.registered["alias"] == ("champion" if winner == "3" else None)
    assert (placed.holder, bool(placed.why_not)) == (rival, winner == rival)
