"""One searched setting: its bounds or choices, and how its value follows from the one that Optuna proposes."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Mapping
from typing import Annotated, Any

import optuna
from pydantic import BeforeValidator, Field, model_validator

from raylora.config_section import Section
from raylora.errors import ConfigError


def _read_value(value: Any) -> Any:
    """YAML reads `1e-4`, without a point, as text. Lists and dicts stay as they are, if JSON can keep them."""
    if isinstance(value, str):
        value = _as_number(value)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no finite number, no text and no list of them") from None
    return value


def _as_number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _read_any_of(value: Any) -> Any:
    """One value or a list of such; a list as a value stands in a list of its own."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("is empty, and so never holds; name a value, or leave it out")
        return tuple(_read_value(one) for one in value)
    return (_read_value(value),)


Choice = Annotated[Any, BeforeValidator(_read_value)]
"""null, true or false, a number, text, or a list or dict of them. No union: pydantic would explain its every branch."""
AnyOf = Annotated[Any, BeforeValidator(_read_any_of)]


class Parameter(Section):
    """One searched setting: a range or a list of choices."""

    low: int | float | None = Field(None, description="Lower bound, included. Two whole bounds search whole numbers.")
    high: int | float | None = Field(None, description="Upper bound, included.")
    log: bool = Field(False, description="Search on a logarithmic scale.")
    choices: tuple[Choice, ...] | None = Field(None, description="The values to choose from, instead of a range.")
    ratio_of: str | None = Field(None, description="The value is this share of another setting's value.")
    when: dict[str, AnyOf] = Field(
        {}, description="Search it only where these settings have these values; elsewhere it keeps its own."
    )
    otherwise: Choice = Field(None, description="The value where `when` doesn't hold.")
    scale: dict[str, dict[str, float]] = Field(
        {}, description="Factors by another setting's value, such as a tenth of the rate for Lion."
    )

    @model_validator(mode="after")
    def _has_bounds_or_choices(self) -> Parameter:
        bounds = self.low is not None and self.high is not None
        if bounds == bool(self.choices):
            raise ValueError("needs either low and high or a list of choices")
        if self.low is not None and self.high is not None:
            if self.low >= self.high:
                raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
            if self.log and self.low <= 0:
                raise ValueError("a log scale needs low above 0")
        if self.otherwise is not None and not self.when:
            raise ValueError("otherwise is the value where `when` doesn't hold, and there is no `when`; add one")
        return self

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether it is searched, given the values so far."""
        return not self.unmet(params)

    def unmet(self, params: Mapping[str, Any], but_for: Container[str] = ()) -> list[str]:
        """The settings whose values keep it from being searched, whatever those of `but_for` are."""
        return [
            path for path, values in self.when.items() if path not in but_for and not is_among(params[path], values)
        ]

    def factor(self, params: Mapping[str, Any], where: str = "") -> float:
        """What Optuna's value is multiplied by to give the setting's.

        Args:
            where: names the parameter, for messages.
        """
        product = 1.0 if self.ratio_of is None else self._base(params, where)
        for path, factors in self.scale.items():
            product *= factors.get(str(params[path]), 1.0)
        return product

    def _base(self, params: Mapping[str, Any], where: str) -> float:
        assert self.ratio_of is not None
        base = params[self.ratio_of]
        if not is_number(base):
            raise ConfigError(
                f"{where}: is a ratio of {self.ratio_of}, which must be a number and is {as_text(base)}; set it in the "
                f"space's experiment: or with --set {self.ratio_of}=…, or search it above"
            )
        return float(base)

    @property
    def is_scaled(self) -> bool:
        return self.ratio_of is not None or bool(self.scale)

    @property
    def is_whole(self) -> bool:
        """Whether whole numbers are searched: both bounds are, and no factor makes fractions of them."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not self.is_scaled

    @property
    def varies(self) -> bool:
        """Whether there is more than one value to choose from."""
        return not self.choices or any(not same(choice, self.choices[0]) for choice in self.choices)

    @property
    def mentions(self) -> list[str]:
        return [*self.when, *self.scale, *([self.ratio_of] if self.ratio_of else [])]

    @property
    def lowest(self) -> Any:
        """A value to begin with where nothing says more: the first choice, or the lower bound."""
        return self.choices[0] if self.choices else self.low

    def unscaled(self, value: Any, params: Mapping[str, Any], where: str) -> Any:
        """The value before factors, given the values so far: the inverse of `factor`."""
        return rounded(_number(value, where) / self.factor(params, where), digits=12) if self.is_scaled else value

    def inside(self, value: Any, where: str) -> Any:
        """An unscaled value as the parameter spells it.

        Raises:
            ConfigError: it is not among the choices, or outside the bounds.
        """
        if self.choices:
            for choice in self.choices:
                if same(choice, value):
                    return choice
            raise ConfigError(f"{where}: a first point has {value!r}, which is not among {list(self.choices)}")
        assert self.low is not None and self.high is not None
        value = _number(value, where)
        if not self.low <= value <= self.high:
            raise ConfigError(f"{where}: a first point has {value!r}, outside {self.low:g} to {self.high:g}")
        if self.is_whole and not value.is_integer():
            raise ConfigError(
                f"{where}: a first point has {value!r}, and two whole bounds search whole numbers; "
                f"write low as {float(self.low)} for fractions"
            )
        return int(value) if self.is_whole else value

    def suggest(self, trial: optuna.trial.BaseTrial, name: str) -> Any:
        """Ask Optuna for the unscaled value."""
        if self.choices:
            known = {for_optuna(choice): choice for choice in self.choices}
            return known[trial.suggest_categorical(name, list(known))]
        assert self.low is not None and self.high is not None
        if self.is_whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


def for_optuna(value: Any) -> Any:
    """A choice as Optuna and its journal keep it: lists and dicts as JSON text."""
    return as_text(value) if isinstance(value, list | tuple | dict) else value


def as_text(value: Any) -> str:
    """A value as it is written in a space file and in tables: `null`, `["attention"]`."""
    return value if isinstance(value, str) else json.dumps(value)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same setting: tuples are lists, and numbers equal but for their last digits."""
    if is_number(one) and is_number(other):
        return math.isclose(float(one), float(other))
    return bool(_plain(one) == _plain(other))


def is_among(value: Any, values: Iterable[Any]) -> bool:
    return any(same(value, one) for one in values)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, dict) else value


def rounded(value: float, digits: int = 10) -> float:
    """Settings have ten digits, and what Optuna has for them two more: there and back gives the same number."""
    return float(f"{value:.{digits}g}")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any, where: str) -> float:
    value = _as_number(value) if isinstance(value, str) else value
    if not is_number(value):
        raise ConfigError(f"{where}: a first point has {value!r}, which is no number")
    return float(value)
