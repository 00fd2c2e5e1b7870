"""MLflow is tried by writing to it, and nothing of that stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from raylora.errors import TrackingError
from raylora.tracking.check import Written, try_writing
from tests.lost_answers import Trouble, any_trouble


def experiments(uri: str) -> list[str]:
    return sorted(found.name for found in MlflowClient(uri).search_experiments(view_type=ViewType.ACTIVE_ONLY))


def test_a_store_that_was_not_there_is_gone_again(tmp_path: Path) -> None:
    written = try_writing(f"sqlite:///{tmp_path}/mlflow.db", "raylora")
    assert written == Written((tmp_path / "mlartifacts").as_uri())
    assert list(tmp_path.iterdir()) == []


def test_a_store_stays_as_it_was(uri: str, tmp_path: Path) -> None:
    try_writing(uri, "raylora")
    assert experiments(uri) == ["Default"]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    MlflowClient(uri).create_experiment("raylora")  # which a deleted one of that name would forbid


@any_trouble
def test_an_experiment_is_used_and_deleted_whatever_becomes_of_answers(
    trouble: Trouble, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for again, it is there already."""
    monkeypatch.setattr(MlflowClient, "create_experiment", trouble(MlflowClient.create_experiment))
    try_writing(uri, "raylora")
    assert experiments(uri) == ["Default"]


@any_trouble
def test_a_run_is_no_second_one_whatever_becomes_of_answers(
    trouble: Trouble, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which nobody would delete."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("raylora")
    monkeypatch.setattr(MlflowClient, "create_run", trouble(MlflowClient.create_run))
    try_writing(uri, "raylora")
    assert len(client.search_runs([experiment], run_view_type=ViewType.ALL)) == 1
    assert client.search_runs([experiment]) == []


def test_the_searchs_own_experiment_is_tried_where_there_is_one(uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    kept = tmp_path / "elsewhere"
    made = client.create_experiment("raylora", artifact_location=kept.as_uri())
    run = client.create_run(made)
    client.log_text(run.info.run_id, "kept", "kept.txt")
    before = sorted(kept.rglob("*"))
    try_writing(uri, "raylora")
    assert [found.info.run_id for found in client.search_runs([made])] == [run.info.run_id]
    assert sorted(kept.rglob("*")) == before
    assert experiments(uri) == ["Default", "raylora"]


def test_files_that_cannot_go_where_they_should_are_told(uri: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    client = MlflowClient(uri)
    made = client.create_experiment("raylora", artifact_location=(tmp_path / "file" / "below").as_uri())
    with pytest.raises(TrackingError, match=r"can be reached, but not written \(Not a directory.*artifact store"):
        try_writing(uri, "raylora")
    assert client.search_runs([made]) == []


class Refusing(LocalArtifactRepository):  # type: ignore[misc]
    """Deletes nothing and says so, as the stores of Azure Data Lake and Databricks do."""

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        raise NotImplementedError("not supported")


class Deaf(LocalArtifactRepository):  # type: ignore[misc]
    """Deletes nothing and doesn't say so, as whatever has MLflow's own method alone."""

    delete_artifacts = ArtifactRepository.delete_artifacts


@pytest.mark.parametrize(("kind", "reason"), [(Refusing, "not supported"), (Deaf, None)])
def test_a_file_that_cannot_be_deleted_is_named(
    kind: type[LocalArtifactRepository], reason: str | None, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search needs no deleting."""
    monkeypatch.setitem(
        _artifact_repository_registry._registry,
        "kept",
        lambda place, *_, **__: kind(place.replace("kept:", "file:", 1)),
    )
    client = MlflowClient(uri)
    made = client.create_experiment("raylora", artifact_location=f"kept:{tmp_path}/kept")
    written = try_writing(uri, "raylora")
    [left] = (path for path in (tmp_path / "kept").rglob("*") if path.is_file())
    assert written == Written(f"kept:{tmp_path}/kept", f"kept:{left}", reason)
    assert client.search_runs([made]) == []


def test_a_deleted_experiment_is_told(uri: str) -> None:
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("raylora"))
    with pytest.raises(TrackingError, match="was deleted"):
        try_writing(uri, "raylora")


def test_a_server_that_does_not_answer_is_told() -> None:
    with pytest.raises(TrackingError, match="can't be reached"):
        try_writing("http://127.0.0.1:9", "raylora")
