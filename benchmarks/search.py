"""How much compute until a search has found the best? Searches replayed on recorded trainings.

The real searchers and schedulers, Ray's and ours, ask and decide; trainings are answered by the surrogate of the
recorded table (`benchmarks/recorded`), on a simulated clock with a given number of workers. All strategies measure at
the demo's rungs, and a trial counts with its best evaluation. A search has arrived when the trial that it would hand
over is, by the surrogate's own mean, within 1% of the best recorded configuration. Most strategies hand over the trial
with the best score; raylora the one whose settings promise most.
"""

from __future__ import annotations

import argparse
import heapq
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import optuna
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from benchmarks.common import Row, report, target
from benchmarks.recorded.configurations import demo_space
from benchmarks.recorded.packing import TABLE
from benchmarks.recorded.surrogate import Answer, Surrogate, at, read_table
from raylora.execution.results import METRIC, MODE, REPORT, TIME_ATTR
from raylora.execution.schedulers import TRIAL_SCHEDULERS
from raylora.execution.searcher import StudySearcher
from raylora.search.space import Params
from raylora.search.stopping import IS_OVER
from raylora.search.study import SearchStudy
from raylora.training.fit import evaluation_points

CLOSE = 0.01
BUDGETS = (4_000, 8_000, 16_000)
"""Images seen at which the regret is told."""
LONGEST = 200_000
"""A search that has not arrived by then counts as if it had, which flatters the slow ones."""
ENDLESS = 100_000
AT_ONCE = 2
"""Searches replayed side by side."""
SHORT, TOP = 24, 6
"""short-rung-then-top-k: so many to the first rung, so many of them to the end."""
GOAL_STOCK, GOAL_RANDOM = 0.5, 0.2


@dataclass
class Run:
    """A trial in the simulation."""

    name: str
    params: Params
    number: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    answer: Answer | None = None
    images: int = 0
    best: float = -math.inf
    until: int | None = None
    """Where it is paused; None: at no place but its end."""


class Strategy(Protocol):
    """Who proposes trials and stops them."""

    def next(self) -> Run | None: ...

    def stops(self, run: Run, report: dict[str, Any]) -> bool: ...

    def incumbent(self, runs: list[Run]) -> Run:
        """Which of the trials that were measured it would hand over."""
        ...


class ByScore:
    """Hands over the trial with the best score."""

    def incumbent(self, runs: list[Run]) -> Run:
        return max(runs, key=lambda run: run.best)


class Plugged(ByScore):
    """A searcher and a trial scheduler of Ray Tune's kind, called as Tune calls them."""

    _searcher: Searcher
    _scheduler: TrialScheduler

    def stops(self, run: Run, report: dict[str, Any]) -> bool:
        trial = SimpleNamespace(trial_id=run.name, config=run.config)
        decision = self._scheduler.on_trial_result(None, trial, report)
        if stops := report[IS_OVER] or decision == TrialScheduler.STOP:
            self._searcher.on_trial_complete(run.name, report)
        else:
            self._searcher.on_trial_result(run.name, report)
        return stops


class Ours(Plugged):
    """raylora's searcher and scheduler on the demo's space, as `raylora tune` sets them up."""

    def __init__(self, seed: int, folder: Path, with_first_point: bool, surrogate: Surrogate):
        space, experiment = demo_space()
        space = space if with_first_point else space.model_copy(update={"first_points": ()})
        experiment = experiment.with_params({"seed": seed})
        ends = cache(lambda key: surrogate.points(dict(key))[-1])
        self._study = SearchStudy(
            folder / "study.journal", space, experiment, lambda params: ends(tuple(params.items()))
        )
        self._searcher = StudySearcher(self._study, ENDLESS, set())
        self._scheduler = TRIAL_SCHEDULERS[experiment.search.trial_scheduler](experiment.search, (), self._study)
        self._begun = 0

    def incumbent(self, runs: list[Run]) -> Run:
        expected = self._study.expected()
        known = [run for run in runs if run.config["number"] in expected]
        return max(known, key=lambda run: expected[run.config["number"]]) if known else super().incumbent(runs)

    def next(self) -> Run | None:
        self._begun += 1
        name = str(self._begun)
        config = self._searcher.suggest(name)
        assert isinstance(config, dict)
        return Run(name, config["params"], config=config)


class Stock(Plugged):
    """Ray's own `OptunaSearch` and `AsyncHyperBandScheduler`, as their documentation sets them up."""

    def __init__(self, seed: int, folder: Path, with_first_point: bool, surrogate: Surrogate):
        space, experiment = demo_space()
        points = [space.to_optuna(space.first_points[0], experiment)] if with_first_point else None
        self._asked: dict[str, Params] = {}

        def define(trial: optuna.Trial) -> None:
            self._latest = space.suggest(trial, experiment)

        self._searcher = OptunaSearch(define, metric=METRIC, mode=MODE, points_to_evaluate=points, seed=seed)
        search = experiment.search
        self._scheduler = AsyncHyperBandScheduler(
            TIME_ATTR, METRIC, MODE, max_t=experiment.training.max_images or 1, grace_period=search.grace_period
        )
        self._begun = 0

    def next(self) -> Run | None:
        self._begun += 1
        name = str(self._begun)
        self._searcher.suggest(name)
        self._scheduler.on_trial_add(None, SimpleNamespace(trial_id=name))
        return Run(name, dict(self._latest))


class Random(ByScore):
    """Independent draws, each to its end."""

    def __init__(self, seed: int, folder: Path, with_first_point: bool, surrogate: Surrogate):
        self._space, self._experiment = demo_space()
        self._study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        self._first = [dict(self._space.first_points[0])] if with_first_point else []
        self._begun = 0

    def next(self) -> Run | None:
        self._begun += 1
        params = self._first.pop() if self._first else self._space.suggest(self._study.ask(), self._experiment)
        return Run(str(self._begun), params)

    def stops(self, run: Run, report: dict[str, Any]) -> bool:
        return bool(report[IS_OVER])


class ShortThenTop(Random):
    """Random draws to the first rung, the best of them to their end; and again."""

    def __init__(self, seed: int, folder: Path, with_first_point: bool, surrogate: Surrogate):
        super().__init__(seed, folder, with_first_point, surrogate)
        self._short = self._experiment.search.grace_period
        self._paused: list[Run] = []
        self._going_on: list[Run] = []
        self._left = SHORT

    def next(self) -> Run | None:
        if self._going_on:
            return self._going_on.pop()
        if not self._left:
            return None  # the last short ones are under way
        self._left -= 1
        run = super().next()
        assert run is not None
        run.until = self._short
        return run

    def stops(self, run: Run, report: dict[str, Any]) -> bool:
        if run.until and report[TIME_ATTR] >= run.until:
            self._paused.append(run)
            run.until = None
            if len(self._paused) == SHORT:
                self._going_on = sorted(self._paused, key=lambda paused: paused.best)[-TOP:]
                self._paused, self._left = [], SHORT
            return True
        return bool(report[IS_OVER])


STRATEGIES: dict[str, Callable[[int, Path, bool, Surrogate], Strategy]] = {
    "random": Random,
    "short rung, then top k": ShortThenTop,
    "Ray's OptunaSearch + ASHA": Stock,
    "raylora": Ours,
}


@dataclass(frozen=True)
class Moment:
    """After an evaluation: all images seen, seconds since the start, what the incumbent is worth."""

    images: int
    seconds: float
    worth: float


def simulate(strategy: Strategy, surrogate: Surrogate, workers: int, seed: int, wanted: float) -> Iterator[Moment]:
    """Run a search until it has arrived and spent all `BUDGETS`, or its trials have seen `LONGEST` images together."""
    generator = np.random.default_rng(seed)
    under_way: list[tuple[float, int, Run, int]] = []
    measured: dict[str, Run] = {}
    now, images, free, order, best = 0.0, 0, workers, 0, -math.inf
    while images < (BUDGETS[-1] if best >= wanted else LONGEST):
        while free and (run := strategy.next()):
            run.answer = run.answer or surrogate.answer(run.params, generator)
            order = _begin(under_way, run, now, order, surrogate)
            free -= 1
        now, _, run, point = heapq.heappop(under_way)
        images += point - run.images
        told = _told(run, point)
        measured[run.name] = run
        if strategy.stops(run, told):
            free += 1
        else:
            order = _begin(under_way, run, now, order, surrogate)
        worth = _worth(surrogate, strategy.incumbent(list(measured.values())))
        best = max(best, worth)
        yield Moment(images, now, worth)


def _told(run: Run, point: int) -> dict[str, Any]:
    """A run at its next point, as Tune would be told of it."""
    assert run.answer is not None
    report = run.answer.report(point)
    run.images, run.best = point, max(run.best, report["score"])
    whole = {**report, METRIC: run.best}
    told = {TIME_ATTR: point, METRIC: run.best, IS_OVER: point >= max(run.answer.curve), REPORT: [whole]}
    return told | {"training_iteration": point}


def _begin(under_way: list[Any], run: Run, now: float, order: int, surrogate: Surrogate) -> int:
    """Send a run on to its next rung."""
    assert run.answer is not None
    point = next(one for one in _rungs(max(run.answer.curve)) if one > run.images)
    seconds = (point - run.images) * surrogate.image_s + surrogate.measure_s
    heapq.heappush(under_way, (now + seconds, order, run, point))
    return order + 1


def _worth(surrogate: Surrogate, run: Run) -> float:
    """The mean score of a trial's configuration at the best of the rungs that it has reached."""
    mean = surrogate.mean_curve(run.params)
    return max(float(at(mean, rung).sum()) for rung in _rungs(max(mean)) if rung <= run.images)


def _rungs(images_total: int) -> list[int]:
    search = demo_space()[1].search
    return evaluation_points(images_total, search.grace_period, search.reduction_factor)


def arrival(moments: list[Moment], wanted: float) -> Moment | None:
    """The first moment at which the incumbent is worth so much; None if there is none."""
    return next((moment for moment in moments if moment.worth >= wanted), None)


def bootstrap(values: list[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95% confidence interval."""
    generator = np.random.default_rng(seed)
    drawn = generator.choice(values, (2000, len(values))).mean(axis=1)
    return float(np.mean(values)), *map(float, np.quantile(drawn, (0.025, 0.975)))


def compare(
    surrogate: Surrogate, best: float, guide: float, workers: int, seeds: int, first_points: Sequence[bool]
) -> Iterator[Row]:
    """A row for each strategy, with or without the guide's own settings as its first point."""
    with ProcessPoolExecutor(AT_ONCE, get_context("spawn"), _set_up, (surrogate,)) as pool:
        for name in STRATEGIES:
            for with_first_point in first_points:
                jobs = [(name, with_first_point, workers, seed, best * (1 - CLOSE)) for seed in range(seeds)]
                yield _row(name, with_first_point, list(pool.map(_replay, jobs)), best, guide)


def _set_up(surrogate: Surrogate) -> None:
    global _surrogate
    _surrogate = surrogate
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _replay(job: tuple[str, bool, int, int, float]) -> list[Moment]:
    """One search, in a process that `_set_up` has made ready."""
    name, with_first_point, workers, seed, wanted = job
    with tempfile.TemporaryDirectory() as folder:
        strategy = STRATEGIES[name](seed, Path(folder), with_first_point, _surrogate)
        return list(simulate(strategy, _surrogate, workers, seed, wanted))


def _row(name: str, with_first_point: bool, searches: list[list[Moment]], best: float, guide: float) -> Row:
    wanted = best * (1 - CLOSE)
    never = Moment(LONGEST, 0.0, 0.0)
    arrivals = [arrival(moments, wanted) or replace(never, seconds=moments[-1].seconds) for moments in searches]
    regrets = [[best - _worth_at(moments, budget) for budget in BUDGETS] for moments in searches]
    images, low, high = bootstrap([float(one.images) for one in arrivals])
    seconds, quick, slow = bootstrap([one.seconds for one in arrivals])
    told = zip(BUDGETS, np.mean(regrets, axis=0).tolist(), strict=True)
    return {
        "strategy": name,
        "first point": with_first_point,
        "images_seen": images,
        "95%": f"{low:,.0f} to {high:,.0f}",
        "median": float(np.median([one.images for one in arrivals])),
        "arrived": sum(one.images < LONGEST for one in arrivals) / len(searches),
        "wall_s": seconds,
        "wall 95%": f"{quick:,.0f} to {slow:,.0f}",
        **{f"regret at {budget:,}": regret for budget, regret in told},
        "below the guide": sum(moments[-1].worth < guide for moments in searches) / len(searches),
    }


def _worth_at(moments: list[Moment], images: int) -> float:
    return next(moment.worth for moment in reversed(moments) if moment.images <= images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="ten seeds unless --seeds says otherwise, with the guide's first point alone",
    )
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--workers", type=int, default=2, help="trials at once; two, as the demo on two cores")
    parser.add_argument("--seeds", type=int, help="50 unless given")
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args()
    if not options.table.is_file():
        parser.exit(2, f"search: there is no {options.table}; record it with python -m benchmarks.recorded\n")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    surrogate = Surrogate(recordings := read_table(options.table))
    worth = [surrogate.worth(one.params) for one in recordings]
    guide = surrogate.worth(recordings[0].params)
    seeds = options.seeds or (10 if options.quick else 50)
    first_points = (True,) if options.quick else (True, False)
    rows = list(compare(surrogate, max(worth), guide, options.workers, seeds, first_points))
    images = {row["strategy"]: row["images_seen"] for row in rows if row["first point"]}
    to_stock, to_random = (images["raylora"] / images[name] for name in ("Ray's OptunaSearch + ASHA", "random"))
    below = max(row["below the guide"] for row in rows if row["strategy"] == "raylora" and row["first point"])
    targets = {
        "compute_ratio_to_stock": target(to_stock, f"<= {GOAL_STOCK:g}", to_stock <= GOAL_STOCK),
        "compute_ratio_to_random": target(to_random, f"<= {GOAL_RANDOM:g}", to_random <= GOAL_RANDOM),
        "share_below_baseline": target(below, "0", below == 0),
    }
    rows = [{"table": "surrogate", **surrogate.error()}, *({"table": "searches", **row} for row in rows)]
    report("search", rows, targets, options.json)


if __name__ == "__main__":
    main()
