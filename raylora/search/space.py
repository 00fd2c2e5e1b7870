"""Search spaces: which settings are searched, between which bounds, starting from which points.

A space is a YAML file. Keys of `parameters` are dotted paths into the configuration:

    lora.rank: {choices: [8, 16, 32]}
    optimizer.unet_lr: {low: 1e-5, high: 1e-3, log: true, scale: {optimizer.name: {lion: 0.1}}}
    lora.alpha: {ratio_of: lora.rank, choices: [0.25, 0.5, 1]}
    lr_scheduler.num_restarts: {low: 3, high: 5, when: {lr_scheduler.name: cosine_with_restarts}}

Anything that YAML can't say is a function `(optuna.Trial) -> dict` named as `package.module:function`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Annotated, Any

import optuna
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from raylora.bundled import search_spaces
from raylora.config import Experiment, Section, field_paths
from raylora.config_files import Layer, explain, in_words, read_yaml
from raylora.config_section import nearest
from raylora.errors import ConfigError, NotInSpaceError
from raylora.search.own_space import ask_function, load_function

Params = dict[str, Any]

SEARCHABLE = (
    "lora.", "optimizer.", "lr_scheduler.", "loss.",
    "training.repeats", "training.epochs", "training.max_images", "training.batch_size",
    "training.gradient_accumulation", "training.ema_decay",
    "dataset.shuffle_caption", "dataset.keep_tokens", "dataset.caption_dropout", "dataset.tag_dropout",
    "dataset.caption_variants", "dataset.random_flip", "dataset.prior_loss_weight", "model.train_text_encoder",
)  # fmt: skip
"""Paths that a search may move. Others would change what is measured, and trials would not compare."""
UNSEARCHABLE = "it would change what is measured"
CHECKED_DRAWS = 32
"""Random points that are checked against the configuration before anything starts."""


def _read_number(value: Any) -> Any:
    """YAML reads `1e-4`, without a point, as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Scalar = Annotated[bool | int | float | str, BeforeValidator(_read_number)]


class Parameter(Section):
    """One searched setting: a range or a list of choices."""

    low: int | float | None = Field(None, description="Lower bound, included. Two whole bounds search whole numbers.")
    high: int | float | None = Field(None, description="Upper bound, included.")
    log: bool = Field(False, description="Search on a logarithmic scale.")
    choices: tuple[Scalar, ...] | None = Field(None, description="The values to choose from, instead of a range.")
    ratio_of: str | None = Field(None, description="The value is this share of another setting's value.")
    when: dict[str, Scalar | tuple[Scalar, ...]] = Field(
        {}, description="Search it only where these settings have these values; elsewhere it keeps its own."
    )
    otherwise: Scalar | None = Field(None, description="The value where `when` doesn't hold.")
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
        return self

    def holds(self, params: Mapping[str, Any], but_for: Container[str] = ()) -> bool:
        """Whether it is searched, given the values so far, and whatever those of `but_for` are."""
        return all(
            params[path] in (value if isinstance(value, tuple) else (value,))
            for path, value in self.when.items()
            if path not in but_for
        )

    def factor(self, params: Mapping[str, Any]) -> float:
        """What Optuna's value is multiplied by to give the setting's."""
        product = 1.0 if self.ratio_of is None else self._base(params)
        for path, factors in self.scale.items():
            product *= factors.get(str(params[path]), 1.0)
        return product

    def _base(self, params: Mapping[str, Any]) -> float:
        assert self.ratio_of is not None
        base = params[self.ratio_of]
        if not _is_number(base):
            raise ConfigError(f"a ratio of {self.ratio_of} needs a number there, and it is {base!r}; set or search it")
        return float(base)

    @property
    def is_scaled(self) -> bool:
        return self.ratio_of is not None or bool(self.scale)

    @property
    def is_whole(self) -> bool:
        """Whether whole numbers are searched: both bounds are, and no factor makes fractions of them."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not self.is_scaled

    @property
    def mentions(self) -> list[str]:
        return [*self.when, *self.scale, *([self.ratio_of] if self.ratio_of else [])]

    @property
    def lowest(self) -> Any:
        """A value to begin with where nothing says more: the first choice, or the lower bound."""
        return self.choices[0] if self.choices else self.low

    def unscaled(self, value: Any, params: Mapping[str, Any], where: str) -> Any:
        """Optuna's value for the setting's, given the values so far: the inverse of `factor`."""
        return _rounded(_number(value, where) / self.factor(params), digits=12) if self.is_scaled else value

    def suggest(self, trial: optuna.trial.BaseTrial, name: str) -> Any:
        """Ask Optuna for the unscaled value."""
        if self.choices:
            return trial.suggest_categorical(name, list(self.choices))
        assert self.low is not None and self.high is not None
        if self.is_whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


class SearchSpace(Section):
    """A named space with the settings that go with it. The first of `first_points` is the guide's own."""

    name: str = Field(description="What it is called in plans and reports.")
    description: str = Field("", description="Whom it is for.")
    experiment: dict[str, Any] = Field({}, description="Settings that hold for every trial, as in an experiment file.")
    parameters: dict[str, Parameter] = Field({}, description="What is searched, by dotted path.")
    function: str | None = Field(None, description="`package.module:function` in place of `parameters`.")
    first_points: tuple[Params, ...] = Field((), description="Points tried first, in the settings' own values.")
    fixed: dict[str, str] = Field(
        {}, description="Settings that the space would search but something else sets, and what that is."
    )

    def suggest(self, trial: optuna.trial.BaseTrial, experiment: Experiment) -> Params:
        """One point: dotted paths and the values that a trial's configuration gets."""
        if self.function:
            return self._from_function(trial)
        return self.point_of(lambda path, parameter: parameter.suggest(trial, optuna_name(path, parameter)), experiment)

    def point_of(self, value_of: Callable[[str, Parameter], Any], experiment: Experiment) -> Params:
        """The point that comes of unscaled values, which are asked for only where a parameter is searched."""
        known, params = Known(experiment), {}
        for path, parameter in self.parameters.items():
            if parameter.holds(known):
                value = value_of(path, parameter)
                params[path] = _rounded(value * parameter.factor(known)) if parameter.is_scaled else value
            elif parameter.otherwise is not None:
                params[path] = parameter.otherwise
            if path in params:
                known.params[path] = params[path]
        return params

    def searched(self, experiment: Experiment) -> list[str]:
        """The paths that some trial may search: a condition on a setting that no trial moves must hold."""
        known = Known(experiment)
        return [path for path, parameter in self.parameters.items() if parameter.holds(known, but_for=self.parameters)]

    def _from_function(self, trial: optuna.trial.BaseTrial) -> Params:
        assert self.function is not None
        params = ask_function(self.function, load_function(self.function), trial)
        for path in params:
            if not path.startswith(SEARCHABLE):
                raise ConfigError(f"search space {self.function}: {path} can't be searched; {UNSEARCHABLE}")
        return {path: value for path, value in params.items() if path not in self.fixed}

    def to_optuna(self, point: Params, experiment: Experiment) -> Params:
        """The inverse of `suggest`: a point in the settings' values as Optuna's own parameters.

        Raises:
            NotInSpaceError: the point names a setting that isn't searched, lacks one, or lies outside the bounds.
        """
        known, found = Known(experiment, dict(point)), {}
        for path, parameter in self.parameters.items():
            if parameter.holds(known):
                if path not in point:
                    raise NotInSpaceError(path, f"search space {self.name}: a first point has no {path}")
                where = f"search space {self.name}: {path}"
                try:
                    value = _inside(parameter.unscaled(point[path], known, where), parameter, where)
                except ConfigError as error:
                    raise NotInSpaceError(path, str(error)) from None
                found[optuna_name(path, parameter)] = value
            elif parameter.otherwise is not None:
                known.params.setdefault(path, parameter.otherwise)
        if strange := sorted(set(point) - set(self.parameters)):
            message = f"search space {self.name}: a first point sets {strange[0]}, which is not searched"
            raise NotInSpaceError(strange[0], message)
        return found


class Known(Mapping[str, Any]):
    """Values by dotted path: those suggested so far, else the experiment's own."""

    def __init__(self, experiment: Experiment, params: Params | None = None):
        self.params: Params = params or {}
        self._experiment = experiment

    def __getitem__(self, path: str) -> Any:
        if path in self.params:
            return self.params[path]
        value: Any = self._experiment
        for name in path.split("."):
            value = getattr(value, name)
        return value

    def __iter__(self) -> Any:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)


def optuna_name(path: str, parameter: Parameter) -> str:
    """Optuna's name for a parameter; ratios are named as such, since Optuna sees the ratio."""
    return f"{path} / {parameter.ratio_of}" if parameter.ratio_of else path


def _rounded(value: float, digits: int = 10) -> float:
    """Settings have ten digits, and what Optuna has for them two more: there and back gives the same number."""
    return float(f"{value:.{digits}g}")


def _inside(value: Any, parameter: Parameter, where: str) -> Any:
    """The value as the parameter spells it, or an error."""
    if parameter.choices:
        for choice in parameter.choices:
            if choice == value or (
                _is_number(choice) and _is_number(value) and math.isclose(float(choice), float(value))
            ):
                return choice
        raise ConfigError(f"{where}: a first point has {value!r}, which is not among {list(parameter.choices)}")
    assert parameter.low is not None and parameter.high is not None
    value = _number(value, where)
    if not parameter.low <= value <= parameter.high:
        raise ConfigError(f"{where}: a first point has {value!r}, outside {parameter.low:g} to {parameter.high:g}")
    if parameter.is_whole and not value.is_integer():
        raise ConfigError(
            f"{where}: a first point has {value!r}, and two whole bounds search whole numbers; "
            f"write low as {float(parameter.low)} for fractions"
        )
    return int(value) if parameter.is_whole else value


def _number(value: Any, where: str) -> float:
    value = _read_number(value)
    if not _is_number(value):
        raise ConfigError(f"{where}: a first point has {value!r}, which is no number")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def load_space(reference: str) -> SearchSpace:
    """A space by bundled name, YAML file or `package.module:function`.

    Raises:
        ConfigError: no such space, or a wrong one; every error is told at once.
    """
    bundled = search_spaces()
    if reference not in bundled and ":" in reference and not Path(reference).exists():
        load_function(reference)
        return SearchSpace(name=reference, function=reference)
    path = bundled.get(reference, Path(reference).expanduser())
    if not path.is_file():
        raise ConfigError(
            f"search space {reference}: there is no such file; bundled spaces are {', '.join(bundled)}"
            f"{nearest(reference, list(bundled))}"
        )
    content = read_yaml(path)
    content.setdefault("name", path.stem)
    try:
        space = SearchSpace.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_explain_space(error, path)) from None
    _check_paths(space, str(path))
    return space


def _explain_space(error: ValidationError, path: Path) -> str:
    """pydantic's errors in a space file, one line each."""
    lines = []
    for problem in error.errors():
        place = " → ".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            fields = [*Parameter.model_fields] if "parameters" in problem["loc"] else [*SearchSpace.model_fields]
            lines.append(f"{path}: {place}: there is no such key{nearest(str(problem['loc'][-1]), fields)}")
        else:
            lines.append(f"{path}: {place}: {in_words(dict(problem))}")
    return "\n".join(lines)


def _check_paths(space: SearchSpace, source: str) -> None:
    """Every path exists, may be searched, and mentions only what comes before it or is fixed."""
    known, seen, problems = field_paths(), set(), []
    for path, parameter in space.parameters.items():
        if path not in known:
            problems.append(f"{source}: parameters: {path}: there is no such setting{nearest(path, known)}")
        elif not path.startswith(SEARCHABLE):
            problems.append(f"{source}: parameters: {path}: can't be searched; {UNSEARCHABLE}")
        for mentioned in parameter.mentions:
            if mentioned not in known:
                problems.append(
                    f"{source}: {path}: mentions {mentioned}, which doesn't exist{nearest(mentioned, known)}"
                )
            elif mentioned in space.parameters and mentioned not in seen:
                problems.append(f"{source}: {path}: mentions {mentioned}, which must stand above it")
        seen.add(path)
    if problems:
        raise ConfigError("\n".join(problems))


def check_space(space: SearchSpace, experiment: Experiment) -> list[Experiment]:
    """Try the first points and random draws against the configuration, before anything starts; returns what they give.

    Raises:
        ConfigError: a point that gives no valid configuration.
    """
    tried = []
    for point in space.first_points:
        space.to_optuna(point, experiment)
        tried.append(_configured(space, point, experiment))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(CHECKED_DRAWS):
        tried.append(_configured(space, space.suggest(study.ask(), experiment), experiment))
    return tried


def _configured(space: SearchSpace, point: Params, experiment: Experiment) -> Experiment:
    try:
        return experiment.with_params(point)
    except ValidationError as error:
        raise ConfigError(explain(error, dict.fromkeys(point, f"search space {space.name}"))) from None


def space_layer(space: SearchSpace) -> Layer:
    """The space's fixed settings as a layer of the experiment."""
    return Layer(f"search space {space.name}", space.experiment)
