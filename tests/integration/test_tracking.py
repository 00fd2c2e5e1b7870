"""What MLflow gets of a search: real clients and real stores, also where they fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_model_name
from pydantic import ValidationError

from raylora.config import Experiment
from raylora.errors import TrackingError
from raylora.tracking.mlflow_runs import MlflowTracker, tracking_uri


@pytest.mark.parametrize(
    "name", ["mine", "my LoRA, v1.2", ".hidden", "a..b", "..", ".", "..mine", "mine/best", "x:y", "", " \t"]
)
def test_a_name_is_refused_where_mlflow_would_refuse_it(name: str) -> None:
    try:
        _validate_model_name(name)
    except MlflowException:
        with pytest.raises(ValidationError, match="MLflow can register"):
            Experiment().with_params({"tracking.register_name": name})
    else:
        assert Experiment().with_params({"tracking.register_name": name}).tracking.register_name == name


def test_a_search_in_a_deleted_experiment_does_not_go_on(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(TrackingError, match=r"experiment gone was deleted; .*restore"):
        MlflowTracker(uri, "gone")


def test_the_files_of_a_sqlite_store_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow would put them into `mlruns` of the working directory."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tracker = MlflowTracker(tracking_uri("sqlite:///../store/x.db", tmp_path / "out"), "raylora")
    tracker.start("search", {}, {})
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "lora.safetensors").write_bytes(b"lora")
    tracker.finish({}, tmp_path / "best")
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"x.db", "mlartifacts"}
    assert [path.name for path in (tmp_path / "store" / "mlartifacts").rglob("*.safetensors")] == ["lora.safetensors"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
