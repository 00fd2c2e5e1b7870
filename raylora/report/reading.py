"""What a page tells, read from an output folder: also from one of which parts are missing, which the page then says."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from raylora.config import Experiment, field_paths
from raylora.config_files import read_experiment, read_yaml
from raylora.errors import RayloraError
from raylora.execution.outputs import LOSSES_NAME, NO_RESULT, OutFolder, verdict_on
from raylora.files import MOST_JSON_BYTES, is_file, read_json, read_mapping, read_ordinary
from raylora.tracking.recorder import RECORD_NAME, TrialRecord, read_record

Value = TypeVar("Value")
MOST_OUTSTANDING = 4
UNKNOWN = {"verdict": "unknown", "evidence": "", "cure": ""}


@dataclass(frozen=True)
class HeldOut:
    """An image that trials are judged by."""

    file: str
    caption: str
    """Empty where an older version didn't keep it."""


@dataclass(frozen=True)
class Work:
    """A search or a training, as far as it has come."""

    out: OutFolder
    state: Mapping[str, Any]
    experiment: Experiment
    summary: Mapping[str, Any] = field(default_factory=dict)
    """Empty until the work is finished."""
    space: Mapping[str, Any] = field(default_factory=dict)
    trials: Sequence[TrialRecord] = ()
    again: Sequence[TrialRecord] = ()
    """The best of them, with new seeds."""
    verdicts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """`verdict`, `evidence` and `cure` by trial."""
    held_out: Sequence[HeldOut] = ()
    """Of several folds, the first one's."""
    losses: Sequence[tuple[int, float]] = ()
    """Of the training on all images: images seen, and the loss of the step that ended there."""
    notes: Sequence[str] = ()
    """What the folder lacks, in words."""

    @property
    def is_training(self) -> bool:
        """Whether `raylora train` wrote it, and no search."""
        return "holds_out" in self.state

    @property
    def is_finished(self) -> bool:
        return bool(self.summary)

    @property
    def no_result(self) -> str | None:
        """Why a search is over without an answer."""
        return self.state.get(NO_RESULT)

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """What was searched and between which bounds, by dotted path; nothing of a space that is a function."""
        found = self.space.get("parameters", {})
        return {path: rule for path, rule in found.items() if isinstance(rule, Mapping)}

    @property
    def best(self) -> TrialRecord | None:
        """The winner; before there is one, the trial that would be by its own score."""
        if self.summary:
            return self.trial(str(self.summary["best"]["trial_id"]))
        able = [trial for trial in self.trials if trial.history and not trial.over_limits and trial.status != "failed"]
        return max(able, key=lambda trial: trial.score, default=None)

    @property
    def baseline(self) -> TrialRecord | None:
        """The guide's own settings, where a search has tried them."""
        if self.is_training:
            return None
        return next((trial for trial in self.trials if trial.is_baseline and trial.history), None)

    @property
    def outstanding(self) -> list[str]:
        """The trials that stand out from the start: the winner, the guide's own, the next best."""
        ranked = sorted((trial for trial in self.trials if trial.history), key=lambda trial: -trial.score)
        first = [trial for trial in (self.best, self.baseline) if trial and trial.history]
        return list(dict.fromkeys(trial.trial_id for trial in [*first, *ranked]))[:MOST_OUTSTANDING]

    def trial(self, trial_id: str) -> TrialRecord | None:
        return next((trial for trial in self.trials if trial.trial_id == trial_id), None)


class _Reader:
    """Reads what there is and keeps in mind what there isn't."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def read(self, path: Path, how: Callable[[Path], Value], default: Value, lack: str | None = None) -> Value:
        """A file's content, or the default.

        Args:
            lack: what is said where there is no such file; nothing is said without. A damaged one is always told.
        """
        if not is_file(path):
            if lack:
                self.notes.append(lack)
            return default
        try:
            return how(path)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RayloraError):
            self.notes.append(f"{path.name} can’t be read, so what it says is missing here.")
            return default


def read_work(out: OutFolder) -> Work:
    """Everything that the page needs of an output folder.

    Raises:
        OutputError: it holds no search and no training.
    """
    state, reader = out.read_state(), _Reader()
    experiment = reader.read(
        out.experiment,
        read_experiment,
        Experiment(),
        "experiment.yaml is gone: settings that all trials share are not told.",
    )
    summary: dict[str, Any] = reader.read(out.summary, _summary, {})
    trials = _records(out.trials, reader)
    if "holds_out" in state:  # one training is nobody's baseline
        trials = [replace(trial, is_baseline=False, params={}) for trial in trials]
    verdicts = {trial.trial_id: _judged(trial, experiment, trials) for trial in trials}
    if not trials and is_file(out.trials_csv):
        reader.notes.append(
            "The folder trials/ is gone: curves and samples of single trials went with it; the rest is from trials.csv."
        )
        table: list[dict[str, str]] = reader.read(out.trials_csv, _rows, [])
        trials, verdicts = [_from_row(row, place) for place, row in enumerate(table)], _told(table)
    return Work(
        out=out,
        state=state,
        experiment=experiment,
        summary=summary,
        space=reader.read(out.space, read_yaml, {}),
        trials=trials,
        again=_records(out.confirmations, reader),
        verdicts=verdicts,
        held_out=reader.read(out.split, _held_out, []),
        losses=reader.read(out.best / LOSSES_NAME, _losses, []),
        notes=reader.notes,
    )


def _summary(path: Path) -> dict[str, Any]:
    """The summary, if it has what the page can't do without."""
    summary = read_mapping(path)
    best = summary["best"]
    for part in (best["params"], best["metrics"]):
        dict(part)
    for told in (best["trial_id"], best["score"], summary["trials"]["total"], summary["images_seen"]):
        str(told)
    return summary


def _records(folder: Path, reader: _Reader) -> list[TrialRecord]:
    """The records below a folder by number; damaged ones are told and left out."""
    files = sorted(folder.glob(f"*/{RECORD_NAME}"))
    found = [reader.read(file, lambda path: read_record(path.parent), None) for file in files]
    return sorted((record for record in found if record), key=lambda record: record.number)


def _judged(trial: TrialRecord, experiment: Experiment, trials: Sequence[TrialRecord]) -> Mapping[str, str]:
    if trial.status == "running" and not trial.history:
        return UNKNOWN
    try:
        return verdict_on(trial, experiment, trials)
    except (KeyError, ValueError):  # settings or measures of another version
        return UNKNOWN


def _held_out(path: Path) -> list[HeldOut]:
    content = read_mapping(path)
    first = content["folds"][0] if "folds" in content else content
    return [HeldOut(str(row["file"]), str(row.get("caption", ""))) for row in first["holdout"]]


def _losses(path: Path) -> list[tuple[int, float]]:
    return [(int(images), float(loss)) for images, loss in read_json(path)]


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(read_ordinary(path, MOST_JSON_BYTES).decode(), newline="")))


def _told(table: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    return {row["trial_id"]: {key: row[key] for key in UNKNOWN} for row in table}


def _from_row(row: Mapping[str, str], number: int) -> TrialRecord:
    """A row of trials.csv as a record with one report, that of its best measures."""
    known = set(field_paths())
    best = {key.removeprefix("best."): float(value) for key, value in row.items() if key.startswith("best.") and value}
    history = [{**best, "images_seen": int(row["images_seen"])}] if best else []
    return TrialRecord(
        trial_id=row["trial_id"],
        number=number,
        params={path: _value(cell) for path, cell in row.items() if path in known and cell},
        is_baseline=row["is_baseline"] == "True",
        folder="",
        status=row["status"],  # type: ignore[arg-type]  # what raylora wrote
        stop_reason=row["stop_reason"] or None,
        history=history,
    )


def _value(cell: str) -> Any:
    """A setting from its cell: see `outputs._cell`."""
    if cell in ("True", "False"):
        return cell == "True"
    try:
        return json.loads(cell)
    except ValueError:
        return cell
