"""What Ray raises where a process or its node has died."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

OF_TASKS = (WorkerCrashedError, NodeDiedError, OutOfMemoryError)
"""Raised of tasks; and of an actor's, too, where Ray has killed it because its node ran low on memory."""


@contextmanager
def deaths_are_losses() -> Iterator[None]:
    """Within the block, Tune takes all deaths of trials' processes for lost workers.

    By itself it breaks off a search in which Ray kills one for memory: that is told by an error that isn't an actor's
    (Ray 2.60, `RayActorManager._actor_task_failed`), though it is what `ray.exceptions` has for that case.
    """
    heard = RayActorManager._actor_task_failed

    def told(manager: RayActorManager, tracked_actor_task: object, exception: Exception) -> None:
        loss = RayActorError(error_msg=str(exception)) if isinstance(exception, OF_TASKS) else exception
        heard(manager, tracked_actor_task, loss)

    RayActorManager._actor_task_failed = told
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = heard
