"""What is set by hand is not searched: a space without the settings that something later fixes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.config import Experiment, flatten
from raylora.errors import ConfigError
from raylora.search.searchable import SEARCHABLE, field_of
from raylora.search.space import Known, Params, SearchSpace, nothing_to_search

ASSIGNMENTS = "--set"


def pin(space: SearchSpace, pins: Mapping[str, str], experiment: Experiment) -> SearchSpace:
    """The same space with these settings fixed at the experiment's values.

    First points keep their ratios: where `lora.rank` is fixed at 8, an alpha of half the rank becomes 4.

    Args:
        pins: what set each path, for messages.
        experiment: the settings that trials start from, the fixed ones among them.

    Raises:
        ConfigError: nothing is left to search.
    """
    pins = {field_of(path): source for path, source in pins.items()}
    fixed = {path: source for path, source in pins.items() if _is_searched(space, path)}
    left = space.model_copy(
        update={
            "fixed": fixed,
            "parameters": {path: parameter for path, parameter in space.parameters.items() if path not in fixed},
        }
    )
    points: list[Params] = []
    for point in space.first_points:
        moved = _moved(space, left, point, experiment) if pins else dict(point)
        points += [moved] if moved not in points else []
    if not left.function and not left.searched(experiment):
        raise ConfigError(_nothing_left(space, fixed)) if fixed else nothing_to_search(space, _why(space, experiment))
    return left.model_copy(update={"first_points": tuple(points)})


def first_point(space: SearchSpace, pins: Mapping[str, str], experiment: Experiment) -> Params:
    """The settings of a space's first point, with what is pinned left out; empty if it has none."""
    pinned = {field_of(path) for path in pins}
    left = [path for path in space.parameters if path not in pinned]
    if not space.first_points:
        return {}
    parameters = {path: space.parameters[path] for path in left}
    return _moved(space, space.model_copy(update={"parameters": parameters}), space.first_points[0], experiment)


def _is_searched(space: SearchSpace, path: str) -> bool:
    """A function doesn't say what it searches."""
    return path.startswith(SEARCHABLE) if space.function else path in space.parameters


def _moved(space: SearchSpace, left: SearchSpace, point: Params, experiment: Experiment) -> Params:
    """The point as its author would have written it beside the fixed settings: ratios and scales are the same."""
    before = Known(experiment, {**flatten(space.experiment), **point})
    unscaled: dict[str, Any] = {}
    for path, parameter in space.parameters.items():
        if parameter.holds(before) and path in point:
            unscaled[path] = parameter.unscaled(point[path], before, f"{space.title}: {path}")
        elif parameter.holds(before) and path in left.parameters:
            return _rest(space, left, point)  # it is incomplete, which `check_space` tells
    moved = left.point_of(lambda path, parameter: unscaled.get(path, parameter.lowest), experiment)
    return moved | {path: value for path, value in point.items() if path not in space.parameters}


def _rest(space: SearchSpace, left: SearchSpace, point: Params) -> Params:
    return {path: point[path] for path in point if path in left.parameters or path not in space.parameters}


def _why(space: SearchSpace, experiment: Experiment) -> str:
    """Why no setting of a space is searched though nothing was set by hand."""
    reasons = [f"{path}, where {reason}" for path, reason in space.unsearched(experiment).items()]
    return f"names only {'; '.join(reasons)}" if reasons else "names no parameters"


def _nothing_left(space: SearchSpace, fixed: Mapping[str, str]) -> str:
    sources = list(dict.fromkeys(fixed.values()))
    files = [source for source in sources if source != ASSIGNMENTS]
    mend = f"delete the lines that are to be searched from {files[-1]}" if files else "leave out those to be searched"
    return (
        f"{space.title}: what {' and '.join(sources)} set{'s' * (len(sources) == 1)} leaves nothing to "
        f"search; {mend}, choose another space with --space, or train with these settings by `raylora train`"
    )
