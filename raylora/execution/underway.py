"""A search under way, and work for its cluster that is no trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import ray

from raylora.errors import RayloraError, first_line
from raylora.execution.cluster import Share
from raylora.execution.outputs import OutFolder
from raylora.execution.prepare import Job
from raylora.execution.trial import TrialJob
from raylora.tracking.mlflow_runs import MlflowTracker
from raylora.tracking.recorder import Listener

Say = Callable[[str], None]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Search:
    """A search under way: the job, where it writes, who hears of it, and what each trial gets of the cluster."""

    job: Job
    out: OutFolder
    tracker: MlflowTracker
    listener: Listener
    say: Say
    share: Share

    def trial_job(self, is_confirming: bool = False) -> TrialJob:
        """What its trials need to know."""
        return TrialJob(self.out.root, self.job.experiment, self.share.cpus, is_confirming)

    def run_in_cluster(self, work: Callable[[], Answer], what: str) -> Answer:
        """Do some work in a Ray task, where a trial's GPU is, and not in the driver, whose machine may have none.

        Args:
            work: what it closes over travels there, so it must not be this search.
            what: what that process does, for the message.

        Raises:
            RayloraError: of the work itself, or its process died.
        """
        options = {"num_cpus": self.share.cpus, "num_gpus": min(1.0, self.share.gpus), "max_retries": 0}
        try:
            answer: Answer = ray.get(ray.remote(**options)(work).remote())
            return answer
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, RayloraError) else RayloraError(str(error.cause)) from None
        except ray.exceptions.RayError as error:
            raise RayloraError(
                f"the process that {what} died, as when memory runs out ({first_line(error)}); "
                "free some memory, or use training.mixed_precision=bf16"
            ) from None
