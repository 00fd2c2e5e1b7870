"""A server of MLflow's that is too slow for its clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES


def losing_answers(make: Callable[..., Any]) -> Callable[..., Any]:
    """What a client calls to have something made, where no answer but the last comes in time: it sends its request as
    often as it may, and each is heeded."""

    def call(*arguments: Any, **more: Any) -> Any:
        for _ in range(MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()):
            make(*arguments, **more)
        return make(*arguments, **more)

    return call
