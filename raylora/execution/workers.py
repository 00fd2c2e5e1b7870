"""A trial on several workers: Ray Train's TorchTrainer, started from inside a Tune trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray.train
from ray import tune
from ray.train import RunConfig, ScalingConfig, TrainingFailedError, UserCallback, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from raylora.diffusion.memory import is_out_of_memory
from raylora.errors import RayloraError, WorkerLostError
from raylora.execution.attempt import attempt, is_lost, reason_of_failure
from raylora.execution.cluster import DRIVER_CPUS
from raylora.execution.losing import words_of_loss
from raylora.execution.outputs import OutFolder
from raylora.execution.results import as_result
from raylora.execution.share import Share
from raylora.execution.trial import run_trial_here
from raylora.execution.trial_job import TrialJob
from raylora.training.fit import Report
from raylora.world import World


@dataclass(frozen=True)
class Workers:
    """How many workers a trial has, and on what."""

    count: int
    use_gpu: bool
    cpus_each: float
    spread: bool = False
    """Over several nodes; else all on one."""


Loop = Callable[[dict[str, Any], TrialJob, Callable[[Report], None], World], None]
"""What a worker runs, such as `run_trial_here`."""


def workers_of(share: Share) -> Workers:
    """A trial's workers, given what a trial gets of the cluster."""
    return Workers(share.workers, use_gpu=share.gpus > 0, cpus_each=share.cpus, spread=share.spans_nodes)


def distributed_trainable(job: TrialJob, workers: Workers) -> Callable[[dict[str, Any]], None]:
    """A Tune function that starts the workers, waits for them, and forwards their first one's reports.

    The Tune trial itself takes next to no resources: Ray Train reserves those of the workers.
    """

    def trainable(config: dict[str, Any]) -> None:
        def work(told: dict[str, Any]) -> None:
            run_on_workers(run_trial_here, told, job, workers, [TuneReportCallback()])

        attempt(config, work, lambda report: tune.report(as_result(report)))

    return trainable


def run_on_workers(
    loop: Loop, config: dict[str, Any], job: TrialJob, workers: Workers, callbacks: Sequence[UserCallback] = ()
) -> None:
    """Run a loop on several workers to its end.

    Raises:
        WorkerLostError: one of them is gone.
        Exception: what one of them raised.
    """
    trainer = TorchTrainer(
        _worker_loop,
        train_loop_config={"loop": loop, "config": config, "job": job},
        torch_config=TorchConfig(backend="nccl" if workers.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.use_gpu,
            resources_per_worker={
                "CPU": max(0.0, workers.cpus_each - DRIVER_CPUS),
                **({"GPU": 1} if workers.use_gpu else {}),
            },
            placement_strategy="PACK" if workers.spread else "STRICT_PACK",
        ),
        run_config=RunConfig(
            name=f"{loop.__name__}_{config['number']}",
            storage_path=str(OutFolder(job.mirror.root if job.mirror else job.out).ray / "train"),
            callbacks=list(callbacks),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise most_telling(error) from error


def most_telling(error: TrainingFailedError) -> Exception:
    """Of several workers, whose others only see the one that fails gone, what that one raised."""
    failures = list(error.worker_failures.values()) if isinstance(error, WorkerGroupError) else []
    raised = [one for one in failures if not type(one).__module__.startswith("ray.") and not is_lost(one)]
    told = [one for one in raised if isinstance(one, RayloraError | OSError) or is_out_of_memory(one)]
    if not told and len(raised) < max(1, len(failures)):
        return WorkerLostError(f"a worker of several was lost: {_words_of_lost(error, failures)}")
    first: Exception = (told or raised)[0]
    return first


def _words_of_lost(error: TrainingFailedError, failures: Sequence[Exception]) -> str:
    """What Ray says of the one that died, which tells whether its node did, or else what the others say of it."""
    died = [_words_of_ray(one) for one in failures if type(one).__module__.startswith("ray.")]
    seen = [reason_of_failure(one) for one in failures if is_lost(one)]
    return next(iter([*died, *seen]), words_of_loss(str(error)))


def _words_of_ray(error: Exception) -> str:
    """Of a worker that Ray Train has given up as silent the first line; the last is advice."""
    told = str(error)
    is_silent = type(error).__name__ == "WorkerHealthCheckTimeoutError"
    return words_of_loss(told.strip().partition("\n")[0] if is_silent else told)


def _worker_loop(arguments: dict[str, Any]) -> None:
    """What each worker runs: the same loop, with its own place in the world."""
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size())

    def report(latest: Report) -> None:
        ray.train.report(as_result(latest))

    arguments["loop"](arguments["config"], arguments["job"], report, world)
