"""Conditions of a search space: which settings some combination of values searches, and what can never hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from math import prod
from typing import Annotated, Any, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from raylora.config import Experiment
from raylora.config_files import in_words
from raylora.config_section import nearest
from raylora.search.parameter import Parameter, as_text, is_among, is_number, same

Parameters = Mapping[str, Parameter]
MOST_COMBINATIONS = 4096
"""Of the values that conditions ask for. Bundled spaces have 2; a space with more is taken at its word."""


class _AnythingElse:
    """A value that no condition asks for."""


ELSE = _AnythingElse()


def reachable(parameters: Parameters, own: Mapping[str, Any], is_fixed: bool = True) -> list[str]:
    """The paths that some combination of values searches.

    Args:
        own: the values of settings that aren't searched.
        is_fixed: whether these stay as they are; otherwise conditions may have them at any value.
    """
    if not any(parameter.when for parameter in parameters.values()):
        return list(parameters)
    candidates = {path: _candidates(path, parameters, own, is_fixed) for path in _asked_for(parameters)}
    if prod(len(values) for values in candidates.values()) > MOST_COMBINATIONS:
        but_for = parameters if is_fixed else candidates
        return [path for path, parameter in parameters.items() if not parameter.unmet(own, but_for)]
    found: set[str] = set()
    for values in product(*candidates.values()):
        found |= set(_searched(parameters, own, dict(zip(candidates, values, strict=True))))
    return [path for path in parameters if path in found]


def _asked_for(parameters: Parameters) -> list[str]:
    """The settings that conditions are on."""
    return list(dict.fromkeys(path for parameter in parameters.values() for path in parameter.when))


def _candidates(path: str, parameters: Parameters, own: Mapping[str, Any], is_fixed: bool) -> list[Any]:
    """Values of a setting that conditions tell apart."""
    asked = [value for parameter in parameters.values() for value in parameter.when.get(path, ())]
    parameter = parameters.get(path)
    if parameter is None:
        return [own[path]] if is_fixed else [*asked, ELSE]
    if parameter.choices and not parameter.is_scaled:
        return list(parameter.choices)
    return [*(value for value in asked if _may_be(value, parameter)), ELSE]


def _searched(parameters: Parameters, own: Mapping[str, Any], chosen: Mapping[str, Any]) -> Iterator[str]:
    """The paths that one combination searches."""
    values = {path: own[path] for parameter in parameters.values() for path in parameter.when}
    values |= {path: value for path, value in chosen.items() if path not in parameters}
    for path, parameter in parameters.items():
        if parameter.holds(values):
            yield path
            values[path] = chosen.get(path, ELSE)
        elif parameter.otherwise is not None:
            values[path] = parameter.otherwise


def _may_be(value: Any, parameter: Parameter) -> bool:
    """Whether a parameter can come to that value; of one that is scaled, any number may."""
    if parameter.is_scaled:
        return is_number(value)
    if parameter.choices:
        return is_among(value, parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    return (
        is_number(value)
        and parameter.low <= value <= parameter.high
        and not (parameter.is_whole and value != int(value))
    )


def condition_faults(parameters: Parameters, own: Mapping[str, Any]) -> list[str]:
    """What can never hold in a space: a value that the other setting can't have, conditions that exclude each other.

    Args:
        own: the values of settings that aren't searched.
    """
    faults = [
        f"{path}: {what} → {other}: {fault}"
        for path, parameter in parameters.items()
        for what, other, value in _mentioned_values(parameter)
        if (fault := _fault(value, other, parameters, own))
    ]
    if faults:
        return faults
    found = reachable(parameters, own, is_fixed=False)
    return [
        f"{path}: is never searched, since no combination of values meets all of its conditions on "
        f"{' and '.join(parameter.when)}; mend them, or take it out"
        for path, parameter in parameters.items()
        if path not in found
    ]


def _mentioned_values(parameter: Parameter) -> Iterator[tuple[str, str, Any]]:
    """The key, the other setting and each value of it that a parameter names."""
    for other, values in parameter.when.items():
        for value in values:
            yield "when", other, value
    for other, factors in parameter.scale.items():
        for text in factors:
            yield "scale", other, text


def _fault(value: Any, other: str, parameters: Parameters, own: Mapping[str, Any]) -> str | None:
    """Why another setting never has a value, if so."""
    parameter = parameters.get(other)
    shown = as_text(value)
    if fault := _no_value_of(other, value):
        return f"{shown} is no value of it, which {fault}"
    if parameter is None or parameter.is_scaled:
        return None
    elsewhere = [] if not parameter.when else [own[other] if parameter.otherwise is None else parameter.otherwise]
    texts = [as_text(one) for one in [*(parameter.choices or ()), *elsewhere]]
    if any(same(value, one) for one in elsewhere) or shown in texts or _may_be(_as_typed(value), parameter):
        return None
    if parameter.choices:
        return f"it is never {shown}, but {' or '.join(texts)}{nearest(shown, texts)}"
    return f"it is never {shown}, but {parameter.low:g} to {parameter.high:g}"


def _as_typed(value: Any) -> Any:
    """Keys of `scale` are text, also where they are numbers."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@cache
def _adapter(path: str) -> TypeAdapter[Any]:
    """What reads a setting by itself, the rules between settings left out."""
    *sections, name = path.split(".")
    section: type[BaseModel] = Experiment
    for each in sections:
        section = cast(type[BaseModel], section.model_fields[each].annotation)
    field = section.model_fields[name]
    kind: Any = field.annotation
    return TypeAdapter(Annotated[kind, *field.metadata] if field.metadata else kind)


def _no_value_of(path: str, value: Any) -> str | None:
    """Why the configuration takes no such value of a setting, if so, in one line."""
    try:
        _adapter(path).validate_python(value)
    except ValidationError as error:
        told = in_words(dict(error.errors()[0]))
        return told + nearest(str(value), re.findall("'(.*?)'", told))
    return None
