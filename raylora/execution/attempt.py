"""A trial's work and what becomes of it where that fails: told as the trial's end, tried again, or left to Tune.

What raises in a trial is taken for a lost worker: Tune begins it again, on whatever node is left, where it goes on from
its last state. So a failure of the work itself must not raise, or it would be repeated; it is the trial's last report.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from raylora.diffusion.memory import is_out_of_memory
from raylora.errors import DIVERGED, RayloraError, StorageError, TrainingDivergedError, WorkerLostError, disk_fault
from raylora.execution.losing import LAST_FAULT, MOST_ALIKE, is_lasting, is_of_device
from raylora.execution.results import failure
from raylora.execution.trial_job import HALVED

Tell = Callable[[dict[str, Any]], None]


Config = dict[str, Any]


def attempt(config: Config, work: Callable[[Config], None], tell: Tell) -> None:
    """Do a trial's work; a failure that is its own is told.

    Args:
        config: what the trial was told; `losing.LAST_FAULT` of it too, by which a device's fault that lasts is known.
        work: does what a configuration says, from where the trial stands.
        tell: hears of the failure that ended the trial.

    Raises:
        WorkerLostError: no fault of the work.
    """
    try:
        halving(config, work)
    except Exception as error:
        reason = reason_of_failure(error)
        is_own = not isinstance(error, WorkerLostError)  # and not a peer's, which may be gone with its node
        if is_lost(error) and not (is_own and is_lasting(reason, config)):
            raise WorkerLostError(reason) from error
        if is_lost(error):
            reason = f"{reason} ({MOST_ALIKE} times in a row)"
        tell(failure(reason, breaks_off=isinstance(error, StorageError) or disk_fault(error) is not None))


def making_up(config: Config, tell: Tell) -> Tell:
    """Tells of a trial's reports; one that is further than where it went on makes up for what was lost before."""

    def report(latest: dict[str, Any]) -> None:
        if latest["images_seen"] > config.get("went_on_at", 0):
            config.pop(LAST_FAULT, None)
        tell(latest)

    return report


def halving(config: Config, work: Callable[[Config], None]) -> None:
    """Do some work, and where memory runs out once more with half the images at once, which changes no result.

    Raises:
        Exception: what the work raised, the second time if there was one.
    """
    if not config.get(HALVED):
        if not _runs_out_of_memory(config, work):
            return
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    try:
        work(config | {HALVED: True})
    except Exception as error:
        if is_out_of_memory(error):
            raise RayloraError(f"{reason_of_failure(error)} (half the images at once were too many, too)") from error
        raise


def _runs_out_of_memory(config: Config, work: Callable[[Config], None]) -> bool:
    """Do the work. The error goes at the end, and with its traceback all that fills the memory."""
    try:
        work(config)
    except Exception as error:
        if is_out_of_memory(error):
            return True
        raise
    return False


def is_lost(error: Exception) -> bool:
    """Whether the worker or its device is to blame, so that the same may go well elsewhere."""
    of_device = isinstance(error, RuntimeError) and is_of_device(str(error))
    is_lost = isinstance(error, WorkerLostError | torch.distributed.DistError) or of_device
    return is_lost and not is_out_of_memory(error)


def reason_of_failure(error: Exception) -> str:
    """One line on why a piece of work failed, with the mend where there is one."""
    if isinstance(error, TrainingDivergedError):
        return f"{DIVERGED}{error}"
    if isinstance(error, RayloraError):
        return str(error)
    if is_out_of_memory(error):
        where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        return (
            f"out of {where}; lower training.batch_size or evaluation.batch_size, "
            "or set training.gradient_checkpointing=true"
        )
    if fault := disk_fault(error):
        return f"{fault} (on {socket.gethostname()})"
    if isinstance(error, OSError) and error.errno is not None:
        return ": ".join(filter(None, (os.strerror(error.errno), str(error.filename or ""))))
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
