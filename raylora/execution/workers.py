"""A trial on several workers: Ray Train's TorchTrainer, started from inside a Tune trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from raylora.execution.outputs import OutFolder
from raylora.execution.trial import TrialJob, run_trial, trial_id
from raylora.training.fit import Report
from raylora.world import World

DRIVER_CPUS = 0.01
"""The Tune trial that starts the workers must ask for something; they leave it this much of a core."""


@dataclass(frozen=True)
class Workers:
    """How many workers a trial has, and on what."""

    count: int
    use_gpu: bool
    cpus_each: int


def distributed_trainable(job: TrialJob, workers: Workers) -> Callable[[dict[str, Any]], None]:
    """A Tune function that starts the workers, waits for them, and forwards their first one's reports.

    The Tune trial itself takes next to no resources: Ray Train reserves those of the workers.
    """

    def trainable(config: dict[str, Any]) -> None:
        trainer = TorchTrainer(
            _worker_loop,
            train_loop_config={"config": config, "job": job},
            torch_config=TorchConfig(backend="nccl" if workers.use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers.count,
                use_gpu=workers.use_gpu,
                resources_per_worker={
                    "CPU": workers.cpus_each - DRIVER_CPUS,
                    **({"GPU": 1} if workers.use_gpu else {}),
                },
            ),
            run_config=RunConfig(
                name=trial_id(config["number"]),
                storage_path=str(OutFolder(job.out).ray / "train"),
                callbacks=[TuneReportCallback()],
            ),
        )
        trainer.fit()

    return trainable


def _worker_loop(arguments: dict[str, Any]) -> None:
    """What each worker runs: the same trial, with its own place in the world."""
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size())

    def report(latest: Report) -> None:
        ray.train.report(latest)

    run_trial(arguments["config"], arguments["job"], report, world)
