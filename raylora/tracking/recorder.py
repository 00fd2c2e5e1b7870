"""What a trial leaves behind, and what a listener to a search is. Nothing here knows Ray or MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from raylora.errors import OutputError
from raylora.files import read_json, write_atomically

NEEDED = ("score", "images_seen")
"""Numbers that every report has."""
Status = Literal["running", "finished", "stopped_early", "failed"]
RECORD_NAME = "trial.json"
NOT_MEASURES = ("train_losses", "image_scores", "is_finished", "is_over", "images_seen")
"""Parts of a report that are no measures of their own."""


@dataclass
class TrialRecord:
    """One trial as the search sees it."""

    trial_id: str
    number: int
    params: dict[str, Any]
    is_baseline: bool
    folder: str
    status: Status = "running"
    stop_reason: str | None = None
    confirms: str | None = None
    """Of a best trial that is trained again with a new seed: that trial's id."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The reports so far, in order of images seen; see `training.fit.Report`."""
    report_times: list[int] = field(default_factory=list)
    """When each report was heard of, in ms since 1970: MLflow takes a point sent again for the same by its time."""
    expected: float | None = None
    """What its settings can be expected to reach, once a search is over: less than a lucky training's score."""
    losses: list[str] = field(default_factory=list)
    """How often its worker was lost, and by what: `node`, `memory` or `worker`. Each time it went on from its state."""
    last_loss: str = ""
    """What Ray or torch said of the last of them, in a line."""
    over_limits: dict[str, float] = field(default_factory=dict)
    """What it cost beyond `search.limits`, by the limit's name: such a trial can't win."""
    node: str | None = None
    """Address of the Ray node that its last report came from; where it has several workers, of what started them."""

    def hear(self, report: dict[str, Any]) -> None:
        """Add a report, and when it came: after the one before, even where the machine's clock was set back."""
        self.history.append(report)
        self.report_times.append(max(now_ms(), self.report_times[-1] + 1 if self.report_times else 0))

    @property
    def best(self) -> dict[str, Any] | None:
        """The report with the highest score."""
        return max(self.history, key=lambda report: report["score"], default=None)

    @property
    def last(self) -> dict[str, Any] | None:
        return self.history[-1] if self.history else None

    @property
    def score(self) -> float:
        """The best score; -inf before the first report."""
        return self.best["score"] if self.best else float("-inf")

    @property
    def images_seen(self) -> int:
        return self.last["images_seen"] if self.last else 0

    def write(self) -> None:
        """Keep the record beside the trial's other files."""
        write_atomically(Path(self.folder) / RECORD_NAME, json.dumps(vars(self)).encode())


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts them."""
    return int(time.time() * 1000)


def read_records(trials_folder: Path) -> list[TrialRecord]:
    """All records below a folder, by number."""
    files = trials_folder.glob(f"*/{RECORD_NAME}")
    return sorted((read_record(file.parent) for file in files), key=lambda record: record.number)


def read_record(folder: Path) -> TrialRecord:
    """The record in a trial's folder, wherever that lies now; what an older version kept in it besides is left out.

    Raises:
        OutputError: it can't be read, or is none.
    """
    file = folder / RECORD_NAME
    try:
        kept = read_json(file)
        record = TrialRecord(**{field.name: kept[field.name] for field in fields(TrialRecord) if field.name in kept})
        _check(record)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise OutputError(
            f"{file}: is damaged or no record of a trial; put back a copy of it, or begin anew with another --out"
        ) from None
    record.folder = str(folder)
    return record


def _check(record: TrialRecord) -> None:
    """Whether everything in a record is of its kind.

    Raises:
        TypeError: it isn't.
    """
    is_right = (
        isinstance(record.number, int)
        and record.status in get_args(Status)
        and isinstance(record.params, dict)
        and all(isinstance(report.get(key), int | float) for report in record.history for key in NEEDED)
        and all(isinstance(heard, int) for heard in record.report_times)
    )
    if not is_right:
        raise TypeError("no record of a trial")


def measures(report: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report that are logged and tabled."""
    return {key: float(value) for key, value in report.items() if key not in NOT_MEASURES}


class Listener(Protocol):
    """Hears what happens in a search. Calls come from one thread, in order."""

    def trial_started(self, trial: TrialRecord) -> None: ...

    def trial_reported(self, trial: TrialRecord) -> None:
        """`trial.last` is new."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """`trial.status` is no longer running."""


class Listeners:
    """Several listeners as one."""

    def __init__(self, members: Sequence[Listener]):
        self._members = list(members)

    def trial_started(self, trial: TrialRecord) -> None:
        for member in self._members:
            member.trial_started(trial)

    def trial_reported(self, trial: TrialRecord) -> None:
        for member in self._members:
            member.trial_reported(trial)

    def trial_ended(self, trial: TrialRecord) -> None:
        for member in self._members:
            member.trial_ended(trial)
