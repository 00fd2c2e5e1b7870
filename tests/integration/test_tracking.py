"""What MLflow gets of a search: real clients and real stores, also where they fail."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_model_name
from pydantic import ValidationError

from raylora.config import Experiment


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
