"""A round of trials on Ray Tune: what each runs, who proposes and stops them, who hears of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.trainable.function_trainable import wrap_function

from raylora.errors import RayloraError
from raylora.execution.cluster import DRIVER_CPUS
from raylora.execution.deaths import deaths_are_losses
from raylora.execution.handing_out import ListSearcher
from raylora.execution.listening import RayListener
from raylora.execution.results import METRIC, MODE, as_result
from raylora.execution.trial_job import TrialJob
from raylora.execution.underway import Search
from raylora.execution.waiting import Patience, WaitingListener, needs_of
from raylora.tracking.recorder import TrialRecord, read_records

CLEARING_S = 120
"""For a trial that was stopped, until its process may take up the next one."""


def run_round(
    search: Search,
    job: TrialJob,
    searcher: ListSearcher,
    scheduler: TrialScheduler | None = None,
) -> list[TrialRecord]:
    """Run whatever the searcher hands out, to its end or its scheduler's.

    Returns:
        the records of all trials of the round, those of before an interruption too, by number.
    """
    listener = RayListener(job, search.heard_by, searcher.given_up, search.say, is_spread=search.share.workers > 1)
    tuner = tune.Tuner(
        _trainable(search, job),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode=MODE,
            search_alg=searcher,
            scheduler=scheduler or FIFOScheduler(),
            num_samples=-1,  # the searcher says when it has no more
            max_concurrent_trials=search.share.concurrent,
            reuse_actors=search.share.workers == 1,
        ),
        run_config=tune.RunConfig(
            name="confirmations" if job.is_confirming else "trials",
            storage_path=str(search.out.ray),
            callbacks=[listener, WaitingListener(Patience(needs_of(search.share), search.say))],
            failure_config=tune.FailureConfig(max_failures=-1),  # of lost workers; the listener knows when to give up
            verbose=0,
        ),
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # tracebacks of what is told otherwise
    try:
        with deaths_are_losses():
            tuner.fit()
    except tune.TuneError as error:
        raise _raised_in_tune(error) from None
    listener.put_down_the_last()
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
        from raylora.execution.attempt import attempt, making_up
        from raylora.execution.trial import run_trial_here

        def tell(report: dict[str, Any]) -> None:
            tune.report(as_result(report))

        attempt(config, lambda told: run_trial_here(told, job, making_up(config, tell)), tell)

    return tune.with_resources(taking_turns(trainable), {"cpu": share.cpus, "gpu": share.gpus})


def taking_turns(trainable: Callable[[dict[str, Any]], None]) -> type[tune.Trainable]:
    """A trial's function for a process that takes up one trial after another, and waits for the end of each.

    Ray waits two seconds when it hands over the next trial. Where the last one takes longer to clear away, the next is
    given up without a word to anyone: its callbacks and its searcher, which counts it among the running, never hear of
    it (Ray 2.60, `TuneController._on_trial_reset`). So what that does is done once the next trial runs; a process that
    must end for it is then a lost worker like any other, whose trial goes on elsewhere.
    """

    class TakingTurns(wrap_function(trainable)):  # type: ignore[misc]  # Ray ships no types
        clears_away = False

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.clears_away = True
            return True

        def step(self) -> Any:
            if self.clears_away:
                self.clears_away = False
                os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", str(CLEARING_S))
                if not super().reset_config(self.config):
                    os._exit(1)
            return super().step()

    TakingTurns.__name__ = "trainable"  # folders are named so
    return TakingTurns
