"""Which trainings are recorded: configurations spread over the demo's whole search space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import optuna

from benchmarks.measures.cases import STYLES
from raylora.config import Experiment
from raylora.config_files import build_experiment
from raylora.search.space import Params, SearchSpace, load_space, space_layer

CONFIGURATIONS = 160
REPEATED = 30
"""So many of them are trained with more seeds, and on the second style."""
MORE_SEEDS = (1, 2, 3)
FIRST_STYLE, SECOND_STYLE = STYLES


@dataclass(frozen=True)
class Training:
    """One recording."""

    number: int
    """Of its configuration; 0 is the guide's own."""
    seed: int
    style: str

    @property
    def name(self) -> str:
        return f"{self.style} {self.number:03d} {self.seed}"


@cache
def demo_space() -> tuple[SearchSpace, Experiment]:
    """The demo's search space and its fixed settings."""
    space = load_space("demo")
    return space, build_experiment([space_layer(space)])


def configurations() -> list[Params]:
    """The guide's own, then independent random draws of the space."""
    space, experiment = demo_space()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    draws = (space.suggest(study.ask(), experiment) for _ in range(CONFIGURATIONS - 1))
    return [dict(space.first_points[0]), *draws]


def trainings() -> Iterator[Training]:
    """Everything to record, what tells most first: an interrupted recording is of use too."""
    for number in range(REPEATED):
        yield Training(number, 0, FIRST_STYLE)
    for number in range(REPEATED):
        yield Training(number, MORE_SEEDS[0], FIRST_STYLE)
    for number in range(REPEATED, CONFIGURATIONS):
        yield Training(number, 0, FIRST_STYLE)
    for number in range(REPEATED):
        yield Training(number, 0, SECOND_STYLE)
    for seed in MORE_SEEDS[1:]:
        for number in range(REPEATED):
            yield Training(number, seed, FIRST_STYLE)
