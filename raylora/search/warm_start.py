"""Warm starts: which trials of an earlier search a new one can learn from, told in the new space's own terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, create_trial
from pydantic import ValidationError

from raylora.config import Experiment, flatten
from raylora.errors import ConfigError, NotInSpaceError
from raylora.search.ranking import COSTS_KEY, ENDED, PARAMS_KEY, excess_of
from raylora.search.searchable import field_of
from raylora.search.space import Known, Params, SearchSpace
from raylora.search.study import COMPARES_KEY, SOURCE_KEY

ALWAYS_ALIKE = ("optimizer.name",)
"""Must agree even where neither search moves it: every good rate depends on it."""
NOT_JUDGING = (
    "seed", "search.", "tracking.", "dataset.path", "dataset.skip_bad_images", "sampling.prompts",
    "evaluation.batch_size", "training.save_", "training.keep_last", "training.gradient_checkpointing",
    "training.compile", "training.channels_last", "training.tf32", "training.mixed_precision",
)  # fmt: skip
"""Settings that leave a trial's score as it is, up to rounding. A dataset's pictures count, and not its place."""
UNENDED, INVALID = "without a score", "settings that are no longer valid"


@dataclass(frozen=True)
class EarlierSearch:
    """A search that was run before, finished or interrupted."""

    source: str
    """Its output folder."""
    experiment: Experiment
    trials: Sequence[FrozenTrial]
    """Its own, as its journal has them, with their settings under `PARAMS_KEY`."""


@dataclass(frozen=True)
class Taken:
    """What a new search takes from an earlier one."""

    source: str
    trials: list[FrozenTrial]
    """In the new space's terms, marked with where they come from."""
    left_out: Counter[str]
    """How many were not taken, by the setting that didn't fit or another reason."""
    differing: list[str]
    """What is judged otherwise there; where it is not empty, the two searches' scores don't compare."""

    def __str__(self) -> str:
        out = self.left_out.total()
        reasons = ", ".join(f"{count} by {reason}" for reason, count in self.left_out.most_common())
        left = f" ({out} left out: {reasons})".replace(f"by {UNENDED}", UNENDED) if out else ""
        return f"{len(self.trials)} of {len(self.trials) + out} trials of {self.source}{left}"


def take(earlier: EarlierSearch, space: SearchSpace, experiment: Experiment, differing: Sequence[str] = ()) -> Taken:
    """The earlier trials that the new search could have proposed itself.

    Args:
        experiment: the new search's settings.
        differing: what is known to differ between the two beside settings, such as the pictures.
    """
    differing = [*differing, *_differing(earlier, space, experiment)]
    taken, left_out = [], Counter[str]()
    for trial in earlier.trials:
        tells = trial.value is not None or excess_of(trial, experiment.search.limits) > 0  # untrained for its size
        if trial.state not in ENDED or PARAMS_KEY not in trial.user_attrs or not tells:
            left_out[UNENDED] += 1
            continue
        try:
            taken.append(_retold(trial, earlier, space, experiment, compares=not differing))
        except NotInSpaceError as error:
            left_out[error.path] += 1
        except ValidationError:
            left_out[INVALID] += 1
    return Taken(earlier.source, taken, left_out, differing)


def _retold(
    trial: FrozenTrial, earlier: EarlierSearch, space: SearchSpace, experiment: Experiment, compares: bool
) -> FrozenTrial:
    """The trial as if the new space had proposed it.

    Raises:
        NotInSpaceError: it couldn't have: a value lies outside, or a setting that doesn't move here differs.
    """
    searched: Params = trial.user_attrs[PARAMS_KEY]
    there = Known(earlier.experiment.with_params(searched))
    _check_alike([*space.fixed, *(path for path in ALWAYS_ALIKE if not _may_move(path, space))], there, experiment)
    asked, params = _proposed(trial, there, space, experiment)
    _check_alike([*searched, *params, *ALWAYS_ALIKE], there, experiment.with_params(params))
    return create_trial(
        state=trial.state,
        value=trial.value,
        params=asked.params,
        distributions=asked.distributions,
        intermediate_values=trial.intermediate_values,
        user_attrs={
            SOURCE_KEY: earlier.source,
            "number": trial.number,
            COMPARES_KEY: compares,
            PARAMS_KEY: params,
            COSTS_KEY: trial.user_attrs.get(COSTS_KEY, {}),
        },
    )


def _proposed(
    trial: FrozenTrial, there: Known, space: SearchSpace, experiment: Experiment
) -> tuple[FixedTrial, Params]:
    """The trial in Optuna's parameters, and the settings that the new space makes of them."""
    if not space.function:
        point = {path: there[path] for path in space.parameters}
        asked = FixedTrial(space.to_optuna(point, experiment))
        return asked, space.suggest(asked, experiment)
    try:
        asked = FixedTrial(trial.params)  # a function's parameters are its own affair: they must be of the same names
        params = space.suggest(asked, experiment)
        create_trial(value=0.0, params=asked.params, distributions=asked.distributions)  # refuses what lies outside
        return asked, params
    except (ConfigError, ValueError):
        raise NotInSpaceError(space.function, f"{space.function} can't propose {trial.params}") from None


def _may_move(path: str, space: SearchSpace) -> bool:
    """Whether the space may search it; a function doesn't say."""
    return bool(space.function) or path in space.parameters


def _check_alike(paths: Sequence[str], there: Known, experiment: Experiment) -> None:
    here = Known(experiment)
    for path in paths:
        if not _alike(there[path], here[path]):
            raise NotInSpaceError(path, f"{path} is {there[path]} there and {here[path]} here")


def _alike(one: Any, other: Any) -> bool:
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return isclose(one, other, rel_tol=1e-6) if numbers else one == other


def _differing(earlier: EarlierSearch, space: SearchSpace, experiment: Experiment) -> list[str]:
    """The settings that move scores, that neither search moves, and that aren't the same in both."""
    moved = {path for trial in earlier.trials for path in trial.user_attrs.get(PARAMS_KEY, ())}
    moved |= {*space.parameters, *space.fixed}
    there, here = flatten(earlier.experiment.model_dump()), flatten(experiment.model_dump())
    constant = [path for path in here | there if field_of(path) not in moved and not path.startswith(NOT_JUDGING)]
    return [path for path in constant if there.get(path) != here.get(path)]
