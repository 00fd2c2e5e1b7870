"""Tracking URIs: which are kept, which are told apart at once, and that no password is in any of them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from raylora.config_files import build_experiment, parse_assignments
from raylora.errors import ConfigError, TrackingError
from raylora.tracking import mlflow_store
from raylora.tracking.mlflow_store import check_reachable, tracking_uri
from raylora.tracking.pages import run_page

SECRET = "hunter2"


@pytest.mark.parametrize(
    "uri",
    [
        f"http://user:{SECRET}@host:5000",
        f"https://{SECRET}@host",
        f"postgresql://user:{SECRET}@host/db",
        f"http://host/?token={SECRET}",
        f"user:{SECRET}@host/mlruns",
    ],
)
def test_a_password_is_refused_with_the_way_to_give_it_and_not_told(uri: str) -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as told:
        build_experiment([parse_assignments([f"tracking.uri={uri}"])])
    assert "--set: tracking.uri: must not hold a password" in str(told.value)
    assert SECRET not in str(told.value)


@pytest.mark.parametrize("value", [f"[http://user:{SECRET}@host]", f"{{a: 'http://user:{SECRET}@host'}}"])
def test_one_that_is_no_text_is_told_without_it(value: str) -> None:
    with pytest.raises(ConfigError) as told:
        build_experiment([parse_assignments([f"tracking.uri={value}"])])
    assert SECRET not in str(told.value)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "postgresql://mlflow@db/mlflow", "sqlite:////home/a@b/m.db"])
def test_one_without_is_kept(uri: str) -> None:
    assert build_experiment([parse_assignments([f"tracking.uri={uri}"])]).tracking.uri == uri


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:", "SQLite:memory:"])
def test_a_database_in_memory_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="names no file"):
        tracking_uri(uri, tmp_path)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="is a folder; give the path of a file in it"):
        check_reachable(f"sqlite:///{tmp_path}")


def test_a_place_where_nothing_can_be_made_is_told(tmp_path: Path) -> None:
    """As /proc, where even root can't."""
    for place in (tmp_path / "gone", Path("/proc")):
        with pytest.raises(TrackingError, match=f"{place} can't be written"):
            check_reachable(f"sqlite:///{place}/mlflow.db")


def test_looking_at_a_place_leaves_nothing(tmp_path: Path) -> None:
    check_reachable(f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql", "mssql"])
def test_an_absent_database_is_told_at_once(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself tries for an hour."""
    monkeypatch.setattr("mlflow.store.db.utils.time.sleep", lambda _: pytest.fail("MLflow waits"))
    with pytest.raises(TrackingError, match="Connection refused"):
        check_reachable(f"{scheme}://127.0.0.1:9/db")


def test_a_database_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that answers is no database yet."""
    pytest.importorskip("psycopg2")
    monkeypatch.setattr(mlflow_store, "REACH_S", 2)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(TrackingError, match=r"tracking URI postgresql.*timeout expired"),
    ):
        check_reachable(f"postgresql+psycopg2://127.0.0.1:{server.getsockname()[1]}/db")


def test_a_servers_run_is_a_link_and_a_files_a_command_too() -> None:
    assert run_page("https://host/mlflow/", "3", "abc") == "https://host/mlflow/#/experiments/3/runs/abc"
    told = run_page("sqlite:////tmp/my search/mlflow.db", "3", "abc")
    assert told.startswith("http://127.0.0.1:5000/#/experiments/3/runs/abc once this runs: mlflow ui ")
    assert told.endswith("--backend-store-uri 'sqlite:////tmp/my search/mlflow.db'")
