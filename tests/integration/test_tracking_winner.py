"""The winner in MLflow: what one step can't write costs no other."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from raylora.config import Experiment, LoraConfig
from raylora.config_files import write_experiment
from raylora.diffusion.adapters import Adapter
from raylora.diffusion.families import load_base
from raylora.diffusion.lora_file import LoraCard, write_diffusers
from raylora.diffusion.places import DIFFUSERS_NAME
from raylora.execution.cluster import Share
from raylora.execution.conclude import _track_winner
from raylora.execution.model_card import CARD_NAME
from raylora.execution.outputs import EXPERIMENT_NAME, OutFolder, write_text
from raylora.execution.underway import Search
from raylora.tracking.claims import Claim, Fold
from raylora.tracking.entry import Entry
from raylora.tracking.mlflow_runs import MlflowTracker
from raylora.tracking.mlflow_store import DEFAULT_ARTIFACTS
from raylora.tracking.recorder import TrialRecord

ENTRY = Entry({"raylora.version": "1"}, "# A LoRA", Claim(0.5, 2, {}, [Fold({"a": "b"}, frozenset("c"))]))
REGISTERED = {"name": "mine", "version": "1", "alias": "champion"}


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def search(tiny_experiment: Experiment, tmp_path: Path, told: list[str], empty_store: Path) -> Search:
    """A search whose winner's files are written."""
    out = OutFolder(tmp_path / "out")
    assert tiny_experiment.model.base_model is not None
    adapter = Adapter(
        load_base(tiny_experiment.model.base_model), LoraConfig(rank=2, alpha=2), "a", train_text_encoder=True, seed=0
    )
    out.best.mkdir(parents=True)
    write_diffusers(adapter, out.best, "fp16", LoraCard("a", (64, 64), 8))
    write_text(out.best / CARD_NAME, "# A LoRA")
    tracker = MlflowTracker(f"sqlite:///{shutil.copy(empty_store, out.root)}", "raylora")
    tracker.start("out", {}, {})
    out.write_state("running", tracking_uri=tracker.uri, parent_run_id=tracker.parent_run_id)
    out.space.write_text("")
    experiment = tiny_experiment.with_params({"tracking.register_name": "mine"})
    write_experiment(experiment, out.best / EXPERIMENT_NAME)
    job = cast(Any, SimpleNamespace(experiment=experiment))
    return Search(job, out, tracker, cast(Any, None), told.append, Share(1, 0.0, 1, 1))


def winner(search: Search) -> TrialRecord:
    history = [{"score": 0.5, "images_seen": 8, "train_losses": []}]
    return TrialRecord("t000", 0, {}, True, str(search.out.trials / "t000"), history=history)


def assert_run_is_complete(search: Search) -> None:
    client = MlflowClient(search.tracker.uri)
    run = client.get_run(search.tracker.parent_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"best.score": 0.5}
    assert [file.path for file in client.list_artifacts(run.info.run_id, "best")]


def test_all_goes_well(search: Search, told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _track_winner(search, winner(search), 0.5, ENTRY) == REGISTERED
    assert_run_is_complete(search)
    assert told == []
    assert capsys.readouterr().out == ""


def test_a_resume_does_not_register_the_winner_again(search: Search) -> None:
    first, second = (_track_winner(search, winner(search), 0.5, ENTRY) for _ in range(2))
    assert first == second == REGISTERED
    assert len(MlflowClient(search.tracker.uri).search_model_versions("name='mine'")) == 1


def test_a_winner_that_is_no_better_is_registered_and_not_champion(search: Search, told: list[str]) -> None:
    """The champion was judged alike, and is better: nothing is lost, and a line says what moves the alias."""
    _track_winner(search, winner(search), 0.5, ENTRY)
    search.out.write_state("running", registered=None, model_uri=None)  # as of another search
    worse = replace(ENTRY, claim=replace(ENTRY.claim, score=0.4))  # type: ignore[type-var]
    wanted = {"name": "mine", "version": "2", "alias": None}
    assert _track_winner(search, winner(search), 0.4, worse) == wanted
    client = MlflowClient(search.tracker.uri, search.tracker.uri)
    assert str(client.get_model_version_by_alias("mine", "champion").version) == "1"
    assert len(told) == 1
    assert "its score 0.400 is not above the 0.500 of version 1" in told[0]
    assert f"`raylora promote {search.out.root} --name mine --force`" in told[0]


def forget_name(search: Search) -> None:
    """As of a search without `--register`."""
    unnamed = search.job.experiment.tracking.model_copy(update={"register_name": None})
    search.job.experiment = search.job.experiment.model_copy(update={"tracking": unnamed})  # type: ignore[misc]


def logged_models(search: Search) -> int:
    client = MlflowClient(search.tracker.uri)
    return len(client.search_logged_models([client.get_run(search.tracker.parent_run_id).info.experiment_id]))


def test_a_resume_does_not_log_the_winner_again(search: Search) -> None:
    forget_name(search)
    for _ in range(2):
        assert _track_winner(search, winner(search), 0.5, ENTRY) is None
        assert_run_is_complete(search)
    assert logged_models(search) == 1


def test_a_winner_that_was_logged_before_an_interruption_is_only_registered(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("raylora.tracking.registry.register", interrupted)
        _track_winner(search, winner(search), 0.5, ENTRY)
    assert _track_winner(search, winner(search), 0.5, ENTRY) == REGISTERED
    assert logged_models(search) == 1


def test_a_winner_that_cannot_be_registered_is_in_its_run(search: Search, told: list[str]) -> None:
    refused = search.job.experiment.tracking.model_copy(update={"register_name": "a/b"})
    experiment = search.job.experiment.model_copy(update={"tracking": refused})
    search.job.experiment = experiment  # type: ignore[misc]
    assert _track_winner(search, winner(search), 0.5, ENTRY) is None
    assert_run_is_complete(search)
    assert len(told) == 1


def test_a_winner_that_cannot_be_logged_as_a_model_is_in_its_run(search: Search, told: list[str]) -> None:
    (search.out.best / DIFFUSERS_NAME).rename(search.out.best / "elsewhere.safetensors")
    assert _track_winner(search, winner(search), 0.5, ENTRY) is None
    assert_run_is_complete(search)
    assert len(told) == 1
    assert told[0].endswith(f"; its files are there; `raylora promote {search.out.root} --name mine` does that")


def test_a_registered_winner_is_named_though_its_run_cannot_be_closed(search: Search, told: list[str]) -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            raise MlflowException("the server is away")

    search.tracker._client = Away()
    assert _track_winner(search, winner(search), 0.5, ENTRY) == REGISTERED
    assert len(told) == 1
    assert "the server is away" in told[0]


def test_files_that_cannot_be_sent_cost_neither_measures_nor_status(search: Search) -> None:
    (search.out.root / DEFAULT_ARTIFACTS).write_text("a file where the folder should be")
    with pytest.raises(OSError, match=DEFAULT_ARTIFACTS):
        search.tracker.finish({"best.score": 0.5}, search.out.best)
    run = MlflowClient(search.tracker.uri).get_run(search.tracker.parent_run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"best.score": 0.5})
