"""A server of MLflow's that is too slow for its clients, or away for a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException

Trouble = Callable[[Callable[..., Any]], Callable[..., Any]]


def losing_answers(make: Callable[..., Any]) -> Callable[..., Any]:
    """What a client calls to have something made, where no answer but the last comes in time: it sends its request as
    often as it may, and each is heeded."""

    def call(*arguments: Any, **more: Any) -> Any:
        for _ in range(MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()):
            make(*arguments, **more)
        return make(*arguments, **more)

    return call


def refused_once(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same of a server that isn't there the first time."""
    return _failing_once(make, is_heeded=False)


def cut_off_once(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same of a server that heeds the first request and is gone before it answers."""
    return _failing_once(make, is_heeded=True)


def _failing_once(make: Callable[..., Any], is_heeded: bool) -> Callable[..., Any]:
    calls: list[str] = []

    def call(*arguments: Any, **more: Any) -> Any:
        calls.append("made")
        made = make(*arguments, **more) if is_heeded or len(calls) > 1 else None
        if len(calls) == 1:
            raise MlflowException("no answer came")
        return made

    return call


any_trouble = pytest.mark.parametrize("trouble", [losing_answers, refused_once, cut_off_once])
