"""Search spaces: which settings are searched, between which bounds, starting from which points.

A space is a YAML file. Keys of `parameters` are dotted paths into the configuration:

    lora.rank: {choices: [8, 16, 32]}
    optimizer.unet_lr: {low: 1e-5, high: 1e-3, log: true, scale: {optimizer.name: {lion: 0.1}}}
    lora.alpha: {ratio_of: lora.rank, choices: [0.25, 0.5, 1]}
    lr_scheduler.num_restarts: {low: 3, high: 5, when: {lr_scheduler.name: cosine_with_restarts}}

Anything that YAML can't say is a function `(optuna.Trial) -> dict` named as `package.module:function`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from pydantic import Field, PrivateAttr, ValidationError

from raylora.bundled import search_spaces
from raylora.config import Experiment, Section, field_paths
from raylora.config_files import NUMBER, WHOLE, Layer, build_experiment, explain, fold_branches, in_words, read_yaml
from raylora.config_section import nearest
from raylora.errors import ConfigError, NotInSpaceError
from raylora.files import exists, is_file, resolved
from raylora.search.conditions import condition_faults, reachable
from raylora.search.own_space import ask_function, load_function
from raylora.search.parameter import Parameter as Parameter
from raylora.search.parameter import for_optuna, rounded
from raylora.search.searchable import fault_of

Params = dict[str, Any]

CHECKED_DRAWS = 32
"""Random points that are checked against the configuration before anything starts."""


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
    _file: Path | None = PrivateAttr(None)
    """Where a user keeps it."""

    @property
    def title(self) -> str:
        """How messages call it: by its file too, where a user can mend it there."""
        return f"search space {self.name}" + (f" ({self._file})" if self._file else "")

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
                if parameter.is_scaled:
                    value = rounded(value * parameter.factor(known, f"{self.title}: {path}"))
                params[path] = value
            elif parameter.otherwise is not None:
                params[path] = parameter.otherwise
            if path in params:
                known.params[path] = params[path]
        return params

    def searched(self, experiment: Experiment) -> list[str]:
        """The paths that some trial may search: its conditions can hold, and there is more than one value."""
        return [path for path in self._reached(experiment) if self.parameters[path].varies]

    def unsearched(self, experiment: Experiment) -> dict[str, str]:
        """The other paths, and why trials don't search them."""
        known, reached, reasons = Known(experiment), self._reached(experiment), {}
        for path, parameter in self.parameters.items():
            if path not in reached:
                unmet = parameter.unmet(known, but_for=self.parameters) or list(parameter.when)
                reasons[path] = " and ".join(self._state_of(other, known) for other in unmet)
            elif not parameter.varies:
                reasons[path] = "it has one value"
        return reasons

    def _reached(self, experiment: Experiment) -> list[str]:
        return reachable(self.parameters, Known(experiment))

    def _state_of(self, path: str, known: Mapping[str, Any]) -> str:
        source = f" by {self.fixed[path]}" if path in self.fixed else ""
        return f"{path} never has the value for it" if path in self.parameters else f"{path} is {known[path]}{source}"

    def _from_function(self, trial: optuna.trial.BaseTrial) -> Params:
        assert self.function is not None
        params = ask_function(self.function, load_function(self.function), trial)
        for path in params:
            if fault := fault_of(path):
                raise ConfigError(f"search space {self.function}: {path}: {fault}")
        return {path: value for path, value in params.items() if path not in self.fixed}

    def to_optuna(self, point: Params, experiment: Experiment) -> Params:
        """The inverse of `suggest`: a point in the settings' values as Optuna's own parameters.

        Raises:
            NotInSpaceError: the point names a setting that isn't searched, lacks one, or lies outside the bounds.
        """
        for path in point:
            if path not in self.parameters:
                message = f"{self.title}: a first point sets {path}, which is not searched"
                raise NotInSpaceError(path, message + nearest(path, list(self.parameters)))
        known, found = Known(experiment, dict(point)), {}
        for path, parameter in self.parameters.items():
            if parameter.holds(known):
                if path not in point:
                    raise NotInSpaceError(path, f"{self.title}: a first point has no {path}")
                where = f"{self.title}: {path}"
                try:
                    value = parameter.inside(parameter.unscaled(point[path], known, where), where)
                except ConfigError as error:
                    raise NotInSpaceError(path, str(error)) from None
                found[optuna_name(path, parameter)] = for_optuna(value)
            elif parameter.otherwise is not None:
                known.params.setdefault(path, parameter.otherwise)
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


def load_space(reference: str) -> SearchSpace:
    """A space by bundled name, YAML file or `package.module:function`.

    Raises:
        ConfigError: no such space, or a wrong one; every error is told at once.
    """
    bundled = search_spaces()
    if reference not in bundled and ":" in reference and not exists(Path(reference)):
        load_function(reference)
        return SearchSpace(name=reference, function=reference)
    path = bundled.get(reference, Path(reference))
    if not is_file(resolved(path)):
        raise ConfigError(
            f"search space {reference}: there is no such file; bundled spaces are {', '.join(bundled)}"
            f"{nearest(reference, list(bundled))}"
        )
    content = read_yaml(path)
    content.setdefault("name", path.stem)
    try:
        space = SearchSpace.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_explain_space(error, path, content)) from None
    if reference not in bundled:
        space._file = path
    faults = [*_path_faults(space), *_point_faults(space)]
    faults += [] if faults else [f"parameters: {fault}" for fault in condition_faults(space.parameters, _own(space))]
    if faults:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
    return space


def _explain_space(error: ValidationError, path: Path, content: Mapping[str, Any]) -> str:
    """pydantic's errors in a space file, one line for each place in it."""
    lines = []
    for place, problems in fold_branches(error, content).items():
        told = " → ".join(str(part) for part in place)
        if problems[0]["type"] == "extra_forbidden":
            fields = [*Parameter.model_fields] if "parameters" in place else [*SearchSpace.model_fields]
            lines.append(f"{path}: {told}: there is no such key{nearest(str(place[-1]), fields)}")
        else:
            faults = dict.fromkeys(in_words(problem) for problem in problems)
            if NUMBER in faults:  # whole ones are numbers too
                faults.pop(WHOLE, None)
            lines.append(f"{path}: {told}: {' or '.join(faults)}")
    return "\n".join(lines)


def _path_faults(space: SearchSpace) -> Iterator[str]:
    """Paths that don't exist or may not be searched, and mentions of what doesn't come before or isn't there."""
    known, seen = field_paths(), set()
    for path, parameter in space.parameters.items():
        if fault := fault_of(path):
            yield f"parameters: {path}: {fault}"
        for mentioned in parameter.mentions:
            if mentioned not in known:
                yield f"{path}: mentions {mentioned}, which doesn't exist{nearest(mentioned, known)}"
            elif mentioned in space.parameters and mentioned not in seen:
                yield f"{path}: mentions {mentioned}, which must stand above it"
        seen.add(path)


def _point_faults(space: SearchSpace) -> Iterator[str]:
    """Paths in first points that don't exist. What exists and isn't searched may still be pinned."""
    known = field_paths()
    for number, point in enumerate(space.first_points):
        for path in point:
            if path not in known:
                yield f"first_points → {number}: {path}: there is no such setting{nearest(path, known)}"


def _own(space: SearchSpace) -> Known:
    """The values of settings that the space doesn't search, as far as the space alone says them."""
    try:
        return Known(build_experiment([space_layer(space)]))
    except ConfigError:  # told with the whole experiment, which names every source
        return Known(Experiment())


def check_space(space: SearchSpace, experiment: Experiment) -> list[Experiment]:
    """Try the first points and random draws against the configuration, before anything starts; returns what they give.

    Raises:
        ConfigError: a point that gives no valid configuration, or draws that are all the same.
    """
    tried = []
    for point in space.first_points:
        space.to_optuna(point, experiment)
        tried.append(_configured(space, point, experiment))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    draws = [space.suggest(study.ask(), experiment) for _ in range(CHECKED_DRAWS)]
    if space.function and all(draw == draws[0] for draw in draws):
        beside = f" beside what {' and '.join(dict.fromkeys(space.fixed.values()))} set" if space.fixed else ""
        raise nothing_to_search(space, f"gives {draws[0] or 'no settings'} at every draw{beside}")
    return tried + [_configured(space, draw, experiment) for draw in draws]


def nothing_to_search(space: SearchSpace, why: str) -> ConfigError:
    """Of a space of which every trial would be the same."""
    return ConfigError(
        f"{space.title}: has nothing to search, since it {why}; let it have settings with more than one value, or "
        "train one configuration with `raylora train`"
    )


def _configured(space: SearchSpace, point: Params, experiment: Experiment) -> Experiment:
    try:
        return experiment.with_params(point)
    except ValidationError as error:
        raise ConfigError(explain(error, dict.fromkeys(point, space.title))) from None


def space_layer(space: SearchSpace) -> Layer:
    """The space's fixed settings as a layer of the experiment."""
    return Layer(f"search space {space.name}", space.experiment)
