"""A round of trials on Ray Tune: what each runs, who proposes and stops them, who hears of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from raylora.errors import RayloraError
from raylora.execution.cluster import DRIVER_CPUS
from raylora.execution.listening import RayListener
from raylora.execution.results import METRIC, MODE, as_result
from raylora.execution.trial_job import TrialJob
from raylora.execution.underway import Search
from raylora.execution.waiting import Patience, WaitingListener, needs_of
from raylora.tracking.recorder import TrialRecord, read_records


class ListSearcher(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Hands out the given configurations, in their order."""

    def __init__(self, configs: Sequence[dict[str, Any]]):
        super().__init__(metric=METRIC, mode=MODE)
        self._waiting = list(configs)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        return self._waiting.pop(0) if self._waiting else str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn from it."""


def run_round(
    search: Search,
    job: TrialJob,
    searcher: Searcher,
    count: int,
    scheduler: TrialScheduler | None = None,
) -> list[TrialRecord]:
    """Run whatever the searcher hands out, to its end or its scheduler's.

    Args:
        count: most trials that the searcher hands out.

    Returns:
        the records of all trials of the round, those of before an interruption too, by number.
    """
    tuner = tune.Tuner(
        _trainable(search, job),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode=MODE,
            search_alg=searcher,
            scheduler=scheduler or FIFOScheduler(),
            num_samples=count,
            max_concurrent_trials=search.share.concurrent,
            reuse_actors=search.share.workers == 1,
        ),
        run_config=tune.RunConfig(
            name="confirmations" if job.is_confirming else "trials",
            storage_path=str(search.out.ray),
            callbacks=[
                RayListener(job, search.heard_by),
                WaitingListener(Patience(needs_of(search.share), search.say)),
            ],
            failure_config=tune.FailureConfig(max_failures=-1),  # of lost workers; the listener knows when to give up
            verbose=0,
        ),
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # tracebacks of what is told otherwise
    try:
        tuner.fit()
    except tune.TuneError as error:
        raise _raised_in_tune(error) from None
    return read_records(search.out.confirmations if job.is_confirming else search.out.trials)


def _raised_in_tune(error: tune.TuneError) -> BaseException:
    """What a callback or the searcher raised: Tune keeps its traceback as text, in one error around another."""
    cause: BaseException | None = error
    while isinstance(cause, tune.TuneError):
        cause = cause.__context__
    return cause or RayloraError(f"Ray Tune broke off: {str(error).strip().splitlines()[-1]}")


def _trainable(search: Search, job: TrialJob) -> Any:
    """One loop, two ways to run it: in the Tune trial itself, or on workers that the trial starts.

    The loop, which brings torch and diffusers, is imported where it runs, and not here.
    """
    share = search.share
    if share.workers > 1:
        from raylora.execution.workers import distributed_trainable, workers_of

        return tune.with_resources(distributed_trainable(job, workers_of(share)), {"cpu": DRIVER_CPUS})

    def trainable(config: dict[str, Any]) -> None:
        from raylora.execution.attempt import attempt
        from raylora.execution.trial import run_trial_here

        def tell(report: dict[str, Any]) -> None:
            tune.report(as_result(report))

        attempt(config, lambda told: run_trial_here(told, job, tell), tell)

    return tune.with_resources(trainable, {"cpu": share.cpus, "gpu": share.gpus})
