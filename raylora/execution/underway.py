"""A search under way, and work for its cluster that is no trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import ray

from raylora.errors import RayloraError, StorageError, WorkerLostError, disk_fault, first_line
from raylora.execution.cluster import DRIVER_CPUS
from raylora.execution.deaths import OF_TASKS
from raylora.execution.job import Job
from raylora.execution.mirror import Mirror
from raylora.execution.outputs import OutFolder
from raylora.execution.share import Share
from raylora.execution.trial_job import TrialJob
from raylora.execution.waiting import wait_for
from raylora.tracking.recorder import Listener, Listeners
from raylora.tracking.sender import MlflowSender

MOST_STARTS = 3
DEATHS = (*OF_TASKS, ray.exceptions.RayActorError, WorkerLostError)
"""Errors of a process or its node, by which no work says that it failed."""

Say = Callable[[str], None]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Search:
    """A search under way: the job, where it writes, who hears of it, and what each trial gets of the cluster."""

    job: Job
    out: OutFolder
    tracker: MlflowSender
    listener: Listener
    say: Say
    share: Share
    mirror: Mirror | None = None
    """Where the machines share no disk."""

    @property
    def heard_by(self) -> Listener:
        """Everyone who hears of its trials."""
        return Listeners([self.tracker, self.listener])

    def trial_job(self, is_confirming: bool = False) -> TrialJob:
        """What its trials need to know."""
        return TrialJob(self.out.root, self.job.experiment, self.share.threads, is_confirming, self.mirror)

    def run_in_cluster(
        self,
        work: Callable[[], Answer],
        what: str,
        starts_workers: bool = False,
        again: Callable[[], Answer] | None = None,
    ) -> Answer:
        """Do some work in a Ray task, where a trial's GPU is, and not in the driver, whose machine may have none.

        Where its process or node dies, it is done again, up to `MOST_STARTS` times.

        Args:
            work: what it closes over travels there, so it must not be this search. What an earlier start of it has
                left behind must not disturb it.
            what: what that process does, for the message.
            starts_workers: whether it only starts the workers of a trial, which have the trial's resources.
            again: what is done from the second start on, if not the same.

        Raises:
            RayloraError: of the work itself, or its process died again and again.
        """
        cpus, gpus = (DRIVER_CPUS, 0.0) if starts_workers else (self.share.cpus, min(1.0, self.share.gpus))
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)  # Ray's own retries say nothing
        for start in range(1, MOST_STARTS + 1):
            task = remote(work if start == 1 else again or work).remote()
            wait_for(task, {"CPU": cpus, "GPU": gpus}, self.say)
            try:
                answer: Answer = ray.get(task)
                return answer
            except ray.exceptions.RayError as error:
                if start == MOST_STARTS or not _is_death(error):
                    raise _told(error, what) from None
                self.say(f"The process that {what} died, and is started again: {first_line(error)}")
        raise AssertionError


def _is_death(error: ray.exceptions.RayError) -> bool:
    """Whether it was the work's process that failed, or its node, and not the work."""
    return isinstance(error.cause if isinstance(error, ray.exceptions.RayTaskError) else error, DEATHS)


def _told(error: ray.exceptions.RayError, what: str) -> RayloraError:
    """The same for who reads it."""
    if isinstance(error, ray.exceptions.RayTaskError) and not _is_death(error):
        return _told_in_a_line(error.cause)
    return RayloraError(
        f"the process that {what} died, as when memory runs out ({first_line(error)}); "
        "free some memory, or use training.mixed_precision=bf16"
    )


def _told_in_a_line(error: Exception) -> RayloraError:
    """An error of the work."""
    from raylora.execution.attempt import reason_of_failure

    if isinstance(error, RayloraError):
        return error
    return (RayloraError if disk_fault(error) is None else StorageError)(reason_of_failure(error))
