"""A search under way, and work for its cluster that is no trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import ray

from raylora.errors import RayloraError, StorageError, disk_fault, first_line
from raylora.execution.cluster import DRIVER_CPUS, Share
from raylora.execution.job import Job
from raylora.execution.mirror import Mirror
from raylora.execution.outputs import OutFolder
from raylora.execution.trial_job import TrialJob
from raylora.tracking.recorder import Listener, Listeners
from raylora.tracking.sender import MlflowSender

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
        return TrialJob(self.out.root, self.job.experiment, self.share.cpus, is_confirming, self.mirror)

    def run_in_cluster(self, work: Callable[[], Answer], what: str, starts_workers: bool = False) -> Answer:
        """Do some work in a Ray task, where a trial's GPU is, and not in the driver, whose machine may have none.

        Args:
            work: what it closes over travels there, so it must not be this search.
            what: what that process does, for the message.
            starts_workers: whether it only starts the workers of a trial, which have the trial's resources.

        Raises:
            RayloraError: of the work itself, or its process died.
        """
        cpus, gpus = (DRIVER_CPUS, 0.0) if starts_workers else (self.share.cpus, min(1.0, self.share.gpus))
        try:
            answer: Answer = ray.get(ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(work).remote())
            return answer
        except ray.exceptions.RayTaskError as error:
            raise _told_in_a_line(error.cause) from None
        except ray.exceptions.RayError as error:
            raise RayloraError(
                f"the process that {what} died, as when memory runs out ({first_line(error)}); "
                "free some memory, or use training.mixed_precision=bf16"
            ) from None


def _told_in_a_line(error: Exception) -> RayloraError:
    """An error of the work."""
    from raylora.execution.attempt import reason_of_failure

    if isinstance(error, RayloraError):
        return error
    return (RayloraError if disk_fault(error) is None else StorageError)(reason_of_failure(error))
