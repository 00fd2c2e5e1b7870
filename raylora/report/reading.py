"""What a page tells, read from an output folder: also from one of which parts are missing, which the page then says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from raylora.config import Experiment
from raylora.config_files import read_experiment, read_yaml
from raylora.errors import RayloraError
from raylora.execution.outputs import LOSSES_NAME, NO_RESULT, OutFolder, rival_of, verdict_beside
from raylora.files import is_file, read_json, read_mapping
from raylora.report.scales import is_number
from raylora.report.summary import read_summary
from raylora.report.table import UNKNOWN, Table, read_table
from raylora.report.words import MISSING, setting_value
from raylora.tracking.recorder import NOT_MEASURES, RECORD_NAME, TrialRecord, read_record

Value = TypeVar("Value")
MOST_OUTSTANDING = 4
DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RayloraError)
"""What is raised of a file that isn't what it should be."""


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
    is_tabled: bool = False
    """Whether the trials are rows of `trials.csv`: their best and last measures are known, and no more of the way."""
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
    def word_for_running(self) -> str:
        """What trials are that have begun and not ended."""
        return "under way" if self.state["state"] == "running" else "unfinished"

    @property
    def no_result(self) -> str | None:
        """Why a search is over without an answer."""
        return self.state.get(NO_RESULT)

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """What was searched and between which bounds, by dotted path; nothing of a space that is a function."""
        found = self.space.get("parameters", {})
        return {path: rule for path, rule in found.items() if isinstance(rule, Mapping)}

    @cached_property
    def searched(self) -> list[str]:
        """Settings that differ between trials, as the space has them in order."""
        named = dict.fromkeys([*self.parameters, *(path for trial in self.trials for path in trial.params)])
        values = {path: {setting_value(trial.params.get(path, MISSING)) for trial in self.trials} for path in named}
        return [path for path in named if len(values[path]) > 1]

    @cached_property
    def best(self) -> TrialRecord | None:
        """The winner; before there is one, the trial that would be by its own score."""
        if self.summary:
            return self.trial(str(self.summary["best"]["trial_id"]))
        able = [trial for trial in self.trials if trial.history and not trial.over_limits and trial.status != "failed"]
        return max(able, key=lambda trial: trial.score, default=None)

    @property
    def first_point(self) -> TrialRecord | None:
        """The trial of the guide's own settings, measured or not; none of a training alone."""
        return next((trial for trial in self.trials if trial.is_baseline), None)

    @cached_property
    def baseline(self) -> TrialRecord | None:
        """The same where there is anything to compare with."""
        first = self.first_point
        return first if first and first.history else None

    @cached_property
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
        except DAMAGE:
            self.notes.append(f"{path.name} can’t be read, so what it says is missing here.")
            return default


def read_work(out: OutFolder) -> Work:
    """Everything that the page needs of an output folder.

    Raises:
        OutputError: it holds no search and no training.
    """
    state, reader = _state(out), _Reader()
    experiment = reader.read(
        out.experiment,
        read_experiment,
        Experiment(),
        "experiment.yaml is gone: settings that all trials share are not told.",
    )
    trials = _records(out.trials, reader)
    table = None if trials else _table(out, reader)
    found = trials if table is None else table.trials
    if "holds_out" in state:  # one training is nobody's baseline
        found = [replace(trial, is_baseline=False, params={}) for trial in found]
    return Work(
        out=out,
        state=state,
        experiment=experiment,
        summary=reader.read(out.summary, read_summary, {}),
        space=reader.read(out.space, _space, {}),
        trials=found,
        again=_records(out.confirmations, reader),
        verdicts=_verdicts(found, experiment) if table is None else table.verdicts,
        held_out=reader.read(out.split, _held_out, []),
        losses=reader.read(out.best / LOSSES_NAME, _losses, []),
        is_tabled=table is not None,
        notes=reader.notes,
    )


def _state(out: OutFolder) -> dict[str, Any]:
    """How the work stands: what says that it runs, and is at nobody's hands, was killed."""
    state = out.read_state()
    is_killed = state["state"] == "running" and not out.is_at_work
    return {**state, "state": "interrupted"} if is_killed else state


def _table(out: OutFolder, reader: _Reader) -> Table | None:
    """Of trials whose folder is gone, what the table at the search's end says of them."""
    if not is_file(out.trials_csv):
        return None
    reader.notes.append(
        "The folder trials/ is gone: curves and samples of single trials went with it; the rest is from trials.csv."
    )
    return reader.read(out.trials_csv, read_table, Table([], {}))


def _space(path: Path) -> dict[str, Any]:
    """The search space, whose rules and what was fixed are tables by path."""
    space: dict[str, Any] = read_yaml(path)
    tables: dict[str, Any] = {name: dict(space[name]) for name in ("parameters", "fixed") if name in space}
    if not all(isinstance(key, str) for table in tables.values() for key in table):
        raise ValueError("has paths that are no texts")
    return {**space, **tables}


def _records(folder: Path, reader: _Reader) -> list[TrialRecord]:
    """The records below a folder by number; damaged ones are told and left out."""
    files = sorted(folder.glob(f"*/{RECORD_NAME}"))
    found = [reader.read(file, _record, None) for file in files]
    return sorted((record for record in found if record), key=lambda record: record.number)


def _record(path: Path) -> TrialRecord:
    """A record of which all that is drawn are numbers.

    Raises:
        OutputError, TypeError: it isn't.
    """
    record = read_record(path.parent)
    texts: list[Any] = [record.trial_id, *record.losses]
    numbers = [number for report in record.history for number in _numbers(report)]
    if not (all(isinstance(text, str) for text in texts) and all(map(is_number, numbers))):
        raise TypeError("no record of a trial")
    return record


def _numbers(report: Mapping[str, Any]) -> Iterable[Any]:
    """All that should be some."""
    yield from (value for name, value in report.items() if name not in NOT_MEASURES)
    yield from report.get("image_scores", ())
    for images, loss in report.get("train_losses", ()):
        yield from (images, loss)


def _verdicts(trials: Sequence[TrialRecord], experiment: Experiment) -> dict[str, Mapping[str, str]]:
    rival = rival_of(trials)
    return {trial.trial_id: _judged(trial, experiment, rival) for trial in trials}


def _judged(trial: TrialRecord, experiment: Experiment, rival: TrialRecord | None) -> Mapping[str, str]:
    if trial.status == "running" and not trial.history:
        return UNKNOWN
    try:
        return verdict_beside(trial, experiment, rival)
    except (KeyError, ValueError):  # settings or measures of another version
        return UNKNOWN


def _held_out(path: Path) -> list[HeldOut]:
    content = read_mapping(path)
    first = content["folds"][0] if "folds" in content else content
    return [HeldOut(str(row["file"]), str(row.get("caption", ""))) for row in first["holdout"]]


def _losses(path: Path) -> list[tuple[int, float]]:
    return [(int(images), float(loss)) for images, loss in read_json(path)]
