"""A search space that the user brings as a function: `(optuna.Trial) -> dict`, named as `package.module:function`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import optuna

from raylora.errors import ConfigError, first_line
from raylora.own_code import load_named, unended

SpaceFunction = Callable[[optuna.trial.BaseTrial], dict[str, Any]]


def load_function(name: str) -> SpaceFunction:
    """The function that `package.module:function` names.

    Raises:
        ConfigError: it can't be imported, or is no function.
    """
    try:
        function: SpaceFunction = load_named(name)
    except Exception as error:  # whatever the module raises while it is imported
        raise ConfigError(
            f"search space {name}: can't be imported ({first_line(error)}); expected package.module:function"
        ) from None
    if not callable(function):
        raise ConfigError(f"search space {name}: expected package.module:function")
    return function


def ask_function(name: str, function: SpaceFunction, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """The point that a user's function gives for a trial.

    Raises:
        ConfigError: the function fails, or gives something else than settings by dotted path.
    """
    try:
        point = unended(lambda: function(trial))
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(
            f"search space {name}: fails ({type(error).__name__}: {first_line(error)}); mend the function"
        ) from error
    if fault := _fault(point):
        raise ConfigError(
            f"search space {name}: gives {fault}; let it give a dict such as {{'lora.rank': 8}}, whose values are "
            "plain numbers, text, lists or dicts"
        )
    return point


def _fault(point: object) -> str | None:
    """What is wrong with a function's answer, if anything; the journal and MLflow keep it as JSON."""
    if not isinstance(point, dict):
        return repr(point) if point is None else f"a {type(point).__name__}"
    for path, value in point.items():
        if not isinstance(path, str):
            return f"a setting called {path!r}"
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            return f"a {type(value).__name__} for {path}"
    return None
