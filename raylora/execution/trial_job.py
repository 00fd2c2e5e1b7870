"""What a trial needs to know of its search, no more than that, and so without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.config import Experiment
from raylora.execution.outputs import OutFolder

if TYPE_CHECKING:
    from raylora.execution.mirror import Mirror

STOP_REASON = "stop_reason"
"""In a report: why the trial ends there, if not at its last image."""
HALVED = "halved"
"""In what a trial or a refit is told: whether only half as many images as asked for are to be in memory at once."""


def nothing() -> None:
    """There is nothing to be done."""


@dataclass(frozen=True)
class TrialJob:
    """What every trial of a search needs to know; small, since it travels to each."""

    out: Path
    experiment: Experiment
    threads: int
    is_confirming: bool = False
    """Whether these are the best trials of a search, trained again with new seeds."""
    mirror: Mirror | None = None
    """Where the machines share no disk: what each keeps of the search instead of the output folder."""
    kept: Callable[[], None] = nothing
    """Called where a trial runs, after each change of its files."""

    def trial_id(self, number: int) -> str:
        """The name of a trial in folders, tables and MLflow."""
        return f"{'c' if self.is_confirming else 't'}{number:03d}"

    def folder(self, number: int) -> Path:
        out = OutFolder(self.out)
        return (out.confirmations if self.is_confirming else out.trials) / self.trial_id(number)
