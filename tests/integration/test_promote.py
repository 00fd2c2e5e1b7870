"""`raylora promote` against a real registry: what is registered once, and when an alias moves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from raylora.diffusion.base import BaseModel
from raylora.execution.model_card import CARD_NAME
from raylora.execution.outputs import OutFolder
from raylora.execution.registering import describe
from raylora.tracking.entry import ENTRY_NAME
from tests.bad_world import Result, Run
from tests.lost_answers import Trouble, any_trouble
from tests.registries import finished, job_of
from tests.report_world import training

NAME = "faces"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, base: BaseModel, store: str) -> OutFolder:
    """A search that found something good; which one holds an alias is each test's own."""
    return finished(tmp_path_factory.mktemp("a") / "good", base, store, 1.1)


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory, base: BaseModel, store: str) -> OutFolder:
    return finished(tmp_path_factory.mktemp("a") / "better", base, store, 1.2)


def promoted(run: Run, line: str) -> tuple[Result, dict[str, Any]]:
    done = run(f"promote {line} --json")
    return done, json.loads(done.stdout) if done.stdout else {}


def versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    return [version for version in client.search_model_versions() if version.name == name]


def champion(client: MlflowClient, name: str) -> str:
    return str(client.get_model_version_by_alias(name, "champion").version)


def test_the_first_gets_the_alias_and_is_registered_once(run: Run, client: MlflowClient, good: OutFolder) -> None:
    done, told = promoted(run, f"{good.root} --name once")
    assert done.status == 0, done.stderr
    assert told == {
        "name": "once", "version": "1", "alias": "champion", "previous": None, "why_not": None, "forced": None,
    }  # fmt: skip
    done = run(f"promote {good.root} --name once")
    assert (done.status, done.stdout) == (0, "Registered: models:/once@champion (version 1), which had it already\n")
    (version,) = versions(client, "once")
    state = json.loads(good.state_file.read_text())
    assert version.run_id == state["parent_run_id"]
    assert state["state"] == "finished"


@any_trouble
def test_a_model_and_a_version_are_made_once_whatever_becomes_of_answers(
    trouble: Trouble, run: Run, client: MlflowClient, base: BaseModel, store: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    name = trouble.__name__
    slow = finished(tmp_path / "slow", base, store, 1.1)
    for make in ("create_logged_model", "_create_model_version"):
        monkeypatch.setattr(MlflowClient, make, trouble(getattr(MlflowClient, make)))
    done = run(f"promote {slow.root} --name {name}")
    assert done.status == 0, done.stderr
    run_id = json.loads(slow.state_file.read_text())["parent_run_id"]
    experiment = client.get_run(run_id).info.experiment_id
    assert len(client.search_logged_models([experiment], f"source_run_id = '{run_id}'")) == 1
    assert [version.version for version in versions(client, name)] == [1]


def test_a_version_tells_what_it_is(run: Run, client: MlflowClient, good: OutFolder, base: BaseModel) -> None:
    promoted(run, f"{good.root} --name told")
    (version,) = versions(client, "told")
    wanted = {
        "base_model": base.reference, "family": "sd15", "trigger": "sks", "strength": "0.8", "score": "1.1",
        "score_seeds": "2", "refit": "true", "trial": "t001", "images": "12",
    }  # fmt: skip
    assert {name: version.tags.get(f"raylora.{name}") for name in wanted} == wanted
    assert {"raylora.version", "raylora.dataset", "raylora.held_out", "raylora.judged_by"} <= set(version.tags)
    assert version.description.startswith("A LoRA for Stable Diffusion 1.5")
    assert "score 1.100, the mean of 2 trainings with new seeds" in version.description
    run_tags = client.get_run(version.run_id).data.tags
    assert run_tags["raylora.score"] == "1.1" and run_tags["mlflow.note.content"] == version.description
    there = [file.path for file in client.list_logged_model_artifacts(version.source.removeprefix("models:/"))]
    assert {"model_card.md", "samples", "raylora", "MLmodel"} <= set(there)
    below = client.list_logged_model_artifacts(version.source.removeprefix("models:/"), "samples")
    assert "samples/sample_00.png" in [file.path for file in below]
    assert "samples/grid.png" not in [file.path for file in below]  # real images are on it


def test_without_a_refit_the_files_have_learned_what_the_trial_has(good: OutFolder) -> None:
    summary, job = json.loads(good.summary.read_text()), job_of(read(good))
    assert [describe(good, job, {**summary, "refit": refit}).learned for refit in (True, False)] == [12, 9]


def test_a_better_one_takes_the_alias_and_a_worse_one_does_not(
    run: Run, client: MlflowClient, good: OutFolder, better: OutFolder
) -> None:
    promoted(run, f"{good.root} --name step")
    done, told = promoted(run, f"{better.root} --name step")
    assert (done.status, told["alias"], told["previous"]) == (0, "champion", "1")
    done, told = promoted(run, f"{good.root} --name step")
    assert (done.status, told["version"], told["alias"]) == (1, "1", None)
    assert told["why_not"] == "its score 1.100 is not above the 1.200 of version 2, by the same measures and images"
    assert "raylora: failed: champion stays with version 2 of step: its score 1.100" in done.stderr
    assert "--force" in done.stderr
    assert champion(client, "step") == "2"
    done, told = promoted(run, f"models:/step/1 --force --tracking-uri {client.tracking_uri}")
    assert (done.status, told["alias"], told["previous"]) == (0, "champion", "2")
    assert "not above" in told["forced"] and "warning: --force: version 2 had champion" in done.stderr
    assert champion(client, "step") == "1"
    assert len(versions(client, "step")) == 2


def test_a_run_is_promoted_from_the_registry_alone(
    run: Run, client: MlflowClient, good: OutFolder, better: OutFolder, tmp_path: Path
) -> None:
    """As from another machine: nothing of the output folder is looked at, and scores compare all the same."""
    promoted(run, f"{good.root} --name first")
    promoted(run, f"{better.root} --name other")
    run_id = json.loads(better.state_file.read_text())["parent_run_id"]
    done, told = promoted(run, f"{run_id} --name first --tracking-uri {client.tracking_uri}")
    assert (done.status, told["version"], told["alias"], told["previous"]) == (0, "2", "champion", "1")
    one, other = (next(v for v in versions(client, name) if v.run_id == run_id) for name in ("first", "other"))
    assert (one.tags, one.description) == (other.tags, other.description)


def test_a_search_is_promoted_in_another_store_once(
    run: Run, better: OutFolder, tmp_path: Path, empty_store: Path
) -> None:
    """The team's registry, where the search itself wrote beside its output."""
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'team.db')}"
    for _ in range(2):
        done, told = promoted(run, f"{better.root} --name team --tracking-uri {uri}")
        assert (done.status, told["version"], told["alias"]) == (0, "1", "champion")
    client = MlflowClient(uri, uri)
    (version,) = versions(client, "team")
    found = client.get_run(version.run_id)
    assert found.info.status == "FINISHED" and found.data.metrics["best.score"] == 1.2
    assert [file.path for file in client.list_artifacts(found.info.run_id, "best") if file.path.endswith("card.md")]


def test_scores_that_do_not_compare_move_nothing(
    run: Run, client: MlflowClient, good: OutFolder, base: BaseModel, store: str, tmp_path: Path
) -> None:
    promoted(run, f"{good.root} --name apart")
    other = finished(tmp_path / "other", base, store, 9.0, job_of(read(good), held_out=(2, 3, 4)))
    done, told = promoted(run, f"{other.root} --name apart")
    assert (done.status, told["alias"]) == (1, None)
    assert "its trials have learned 2 of the 3 images that version 1 was judged by" in told["why_not"]
    assert "--split" in told["why_not"]
    assert champion(client, "apart") == "1"


def test_what_an_earlier_raylora_left_is_not_compared(
    run: Run, client: MlflowClient, good: OutFolder, base: BaseModel, store: str, tmp_path: Path
) -> None:
    older = finished(tmp_path / "older", base, store, 9.0)
    (older.root / ENTRY_NAME).unlink()
    card = (older.best / CARD_NAME).read_bytes()
    done, told = promoted(run, f"{older.root} --name older")
    assert (done.status, told["alias"]) == (0, "champion")
    assert (older.best / CARD_NAME).read_bytes() == card  # it tells more than is known now
    (version,) = versions(client, "older")
    assert version.tags["raylora.score"] == "9" and "raylora.judged_by" not in version.tags
    assert "Digest" not in version.description
    done, told = promoted(run, f"{good.root} --name older")
    assert (done.status, told["alias"]) == (1, None)
    assert told["why_not"].startswith("nothing says what version 1 was judged by")
    assert champion(client, "older") == "1"


def read(out: OutFolder) -> Any:
    from raylora.config_files import read_experiment

    return read_experiment(out.best / "experiment.yaml")


def test_what_is_not_there_is_told_in_one_message(
    run: Run, client: MlflowClient, good: OutFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(run, f"{good.root} --name portraits")
    where = f"--tracking-uri {client.tracking_uri}"
    run_id = json.loads(good.state_file.read_text())["parent_run_id"]
    training(tmp_path / "alone", holds_out=True)
    running = OutFolder(shutil.copytree(good.root, tmp_path / "running"))
    running.write_state("interrupted")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it to what it was last told
    for line, words in (
        (f"models:/portrait/1 {where}", "nothing is registered as portrait; did you mean portraits?"),
        (f"models:/portraits/7 {where}", "portraits has no version 7 (there: 1)"),
        (f"models:/portraits/{10**19} {where}", "names no version"),
        (f"models:/portraits@champoin {where}", "portraits has no alias champoin; did you mean champion?"),
        (f"models:/portraits/1 {where} --name faces", "is a version of portraits; leave --name out"),
        ("models:/portraits/1", "give --tracking-uri"),
        (f"models:/portraits {where}", "names no version; give models:/NAME/VERSION"),
        (f"{run_id[:-1]}{'0' if run_id[-1] != '0' else '1'} --name x {where}", f"did you mean {run_id}?"),
        (f"nowhere --name x {where}", "nowhere: there is no such folder, and no run is called so"),
        (f"{good.root}", "say under which name it is to be registered; give --name"),
        (f"{good.root} --name a/b", "--name: tracking.register_name: must be a name that MLflow can register"),
        (f"{good.root} --name x --alias v3", "--alias v3: is none that MLflow takes"),
        (f"{good.root} --name x --tracking-uri http://u:p@host", "must not hold a password"),
        (f"models:/portraits/1 --tracking-uri sqlite:///{tmp_path}/gone.db", "there is no such file"),
        (f"{tmp_path / 'alone'} --name x", "holds a training"),
        (f"{running.root} --name x", "isn't finished; go on by `raylora resume"),
    ):
        done = run(f"promote {line}")
        assert (done.status, done.stdout) == (2, ""), (line, done.stderr)
        assert words in done.stderr, (line, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "gone.db").exists()
    assert versions(client, "x") == []
