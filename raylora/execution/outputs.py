"""The output folder: what lies where, and in which state the work is."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from raylora.config import Experiment
from raylora.errors import AtWorkError, OutputError, StorageError, disk_fault
from raylora.evaluation.cures import cures, in_words
from raylora.evaluation.verdict import judge
from raylora.files import exists, is_file, is_folder, read_json, write_atomically
from raylora.tracking.recorder import TrialRecord, measures

LOCK_NAME = ".lock"
EXPERIMENT_NAME = "experiment.yaml"
"""Settings that run again: of the whole work, and in `best/` the winner's."""
BASE_GRID_NAME = "base.png"
"""In the cache: held-out images above the base model's samples, as trials' grids have them."""
LOSSES_NAME = "losses.json"
"""In `best/`, of a training on all images, which makes no reports: pairs of images seen and training loss."""
NO_RESULT = "no_result"
"""In the state of a search of which every trial failed: why."""
NOTHING_CAME = "no trial came to a result"

State = Literal["running", "interrupted", "failed", "finished"]
STATES, FINISHED_STATES = ("running", "interrupted", "failed"), ("finished",)
NOTHING: type = type(None)
SEARCH_STATE = {
    "tracking_uri": (str,),
    "parent_run_id": (str,),
    "address": (str, NOTHING),
    "wall_s": (int, float, NOTHING),
}
TRAINING_STATE = {"holds_out": (bool,), "wall_s": (int, float)}
"""What going on needs of a state, and of which kinds it is."""


@dataclass(frozen=True)
class OutFolder:
    """Paths inside an output folder; `root` is absolute, since Ray's workers run elsewhere."""

    root: Path

    @property
    def how_to_resume(self) -> str:
        """The command that goes on with what is in it."""
        return shlex.join(["raylora", "resume", str(self.root)])

    @property
    def experiment(self) -> Path:
        return self.root / EXPERIMENT_NAME

    @property
    def space(self) -> Path:
        return self.root / "space.yaml"

    @property
    def split(self) -> Path:
        return self.root / "split.json"

    @property
    def study(self) -> Path:
        return self.root / "study.journal"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    @property
    def confirmations(self) -> Path:
        return self.root / "confirmations"

    @property
    def refit(self) -> Path:
        return self.root / "refit"

    @property
    def best(self) -> Path:
        return self.root / "best"

    @property
    def ray(self) -> Path:
        return self.root / "ray"

    @property
    def state_file(self) -> Path:
        return self.root / "state.json"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def trials_csv(self) -> Path:
        return self.root / "trials.csv"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def check_free(self, bytes_needed: int) -> None:
        """Whether new work can go here, and its disk has room for it; nothing is made.

        Raises:
            OutputError: it holds something, can't be written, or its disk is too full.
        """
        self.check_new()
        self._check_room(bytes_needed)

    def check_new(self) -> None:
        """Whether the folder is new or empty, which can be told before anything is known of the work.

        Raises:
            OutputError: it isn't, or can't be one.
        """
        try:
            is_file, is_used = self.root.is_file(), self._is_used()
        except OSError as error:  # no right to look, or a name that is too long
            raise OutputError(f"{self.root}: {error.strerror}; give another folder with --out") from None
        if any(path.is_symlink() and not exists(path) for path in (self.root, *self.root.parents)):
            raise OutputError(f"{self.root}: goes through a link that leads nowhere; give another folder with --out")
        if is_file:
            raise OutputError(f"{self.root}: is a file; give a folder, new or empty, with --out")
        if is_used:
            raise self._taken()

    def _is_used(self) -> bool:
        """Whether there is anything in it but the lock, which whoever looks in holds, or has left."""
        return self.root.is_dir() and any(path.name != LOCK_NAME for path in self.root.iterdir())

    def _taken(self) -> OutputError:
        return OutputError(f"{self.root}: {self._what_is_in_it()}give another folder with --out")

    def _what_is_in_it(self) -> str:
        try:
            state = self.read_state()
        except OutputError:
            return "is not empty; "
        if state["state"] == "finished":
            return f"holds finished work, whose answer is in {self.summary}; "
        if NO_RESULT in state:
            return f"holds a search of which {NOTHING_CAME} ({state[NO_RESULT]}); mend that and "
        return f"is not empty; go on with what is in it by `{self.how_to_resume}`, or "

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """The folder made for new work, once `check_free` has passed, and kept from others while the block lasts.

        Work that breaks off before its state is written leaves nothing.

        Raises:
            OutputError: another process works in it, or has done so since `check_free`.
        """
        is_new = not self.root.exists()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self.root}: can't be made ({error.strerror}); give another folder with --out"
            ) from None
        with self.locked(", or give another folder with --out"):
            if self._is_used():  # by another process, since `check_free`
                raise self._taken()
            try:
                yield
            except BaseException:
                if not self.state_file.is_file():
                    self._clear(and_itself=is_new)
                raise

    def _clear(self, and_itself: bool) -> None:
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if and_itself:
            self.root.rmdir()

    @contextmanager
    def locked(self, mend: str = "") -> Iterator[None]:
        """Keep the folder from other processes while the block lasts, however this one ends.

        Args:
            mend: what may be done beside waiting.

        Raises:
            AtWorkError: another process works in it.
        """
        try:
            with FileLock(self.root / LOCK_NAME, blocking=False):
                yield
        except Timeout:
            raise AtWorkError(f"{self.root}: another raylora works in it; wait for its end{mend}") from None

    @property
    def is_at_work(self) -> bool:
        """Whether a process works in it, or whether that can't be told, as on a disk that may only be read."""
        if not is_file(self.root / LOCK_NAME):
            return False
        try:
            with self.locked():
                return False
        except (OutputError, OSError, NotImplementedError):  # no locks on this file system
            return True

    def _check_room(self, bytes_needed: int) -> None:
        """Whether the disk has room for what the plan will write."""
        there = next(path for path in (self.root, *self.root.parents) if exists(path))
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise OutputError(f"{self.root}: can't be written; give another folder with --out")
        free = shutil.disk_usage(there).free
        if free < bytes_needed:
            raise OutputError(
                f"{self.root}: the plan needs about {bytes_needed / 2**30:.1f} GiB, "
                f"the disk has {free / 2**30:.1f} GiB; free some, give another folder with --out, or plan fewer trials"
            )

    @property
    def holds_training(self) -> bool:
        """Whether `raylora train` wrote here, and not a search."""
        return "holds_out" in self.read_state()

    def read_state(self) -> dict[str, Any]:
        """`state`, and what going on needs: a search's tracking URI and run, or whether a training holds images out."""
        try:
            if not is_folder(self.root):
                raise OutputError(
                    f"{self.root}: there is no such folder; give the --out folder of a search or training"
                )
            state: dict[str, Any] = read_json(self.state_file)
            is_search = _holds(state, SEARCH_STATE) and is_file(self.space)
            is_training = _holds(state, TRAINING_STATE) and is_file(self.experiment)
            if state["state"] in FINISHED_STATES or (state["state"] in STATES and (is_search or is_training)):
                return state
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass
        raise OutputError(f"{self.root}: holds no search and no training; give the --out folder of an earlier one")

    def read_unfinished(self) -> dict[str, Any]:
        """The state of a search or training that can go on.

        Raises:
            OutputError: there is none, it is finished, or all its trials failed.
        """
        state = self.read_state()
        if state["state"] == "finished":
            raise OutputError(f"{self.root}: this work is finished; its answer is in {self.summary}")
        if NO_RESULT in state:
            raise OutputError(
                f"{self.root}: {NOTHING_CAME} ({state[NO_RESULT]}), so there is nothing to go on with; "
                "mend that and start anew with another --out"
            )
        return state

    def write_state(self, state: State, **details: Any) -> None:
        """Remember how the work stands; what was said before stays unless said anew."""
        before = read_json(self.state_file) if self.state_file.is_file() else {}
        write_json(self.state_file, {**before, **details, "state": state})

    @contextmanager
    def working(self) -> Iterator[Callable[[], float]]:
        """Work under way: its state is kept true whatever ends it, and its seconds add up over resumes.

        Yields:
            the seconds of work so far, those before an interruption included.

        Raises:
            StorageError: a disk is full or can't be written; what to do, and how to go on.
        """
        began, before = time.monotonic(), float(self.read_state().get("wall_s", 0.0))

        def wall_s() -> float:
            return round(before + time.monotonic() - began, 1)

        try:
            self.write_state("running")
            yield wall_s
            self.write_state("finished", wall_s=wall_s())
        except BaseException as error:
            with suppress(OSError):  # on a full disk; what the user must hear of came before
                self.write_state("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", wall_s=wall_s())
            fault = str(error) if isinstance(error, StorageError) else disk_fault(error)
            if fault:
                raise StorageError(f"{fault}, then go on by `{self.how_to_resume}`") from None
            raise


def _holds(state: dict[str, Any], kinds: Mapping[str, tuple[type, ...]]) -> bool:
    """Whether a state has these parts, of these kinds."""
    return all(isinstance(state.get(name), kind) for name, kind in kinds.items())


def write_text(path: Path, content: str) -> None:
    """Text, written whole or not at all."""
    write_atomically(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """JSON, written whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_trials_csv(path: Path, trials: Sequence[TrialRecord], experiment: Experiment) -> None:
    """A row per trial: settings, last and best measures, how it ended, what its curves say and what would mend it.

    Args:
        experiment: what the trials have in common.
    """
    rival = rival_of(trials)
    rows = [_row(trial, verdict_beside(trial, experiment, rival)) for trial in trials]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def verdict_on(trial: TrialRecord, experiment: Experiment, trials: Sequence[TrialRecord]) -> dict[str, str]:
    """`verdict`, `evidence` and `cure` of a trial, beside the others of its search."""
    return verdict_beside(trial, experiment, rival_of(trials))


def rival_of(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial that all are judged beside: the best that kept the limits; found once for all of them."""
    return max((one for one in trials if not one.over_limits), key=lambda one: one.score, default=None)


def verdict_beside(trial: TrialRecord, experiment: Experiment, rival: TrialRecord | None) -> dict[str, str]:
    """`verdict`, `evidence` and `cure` of a trial beside the best of its search."""
    failure = (trial.stop_reason or "no report") if trial.status == "failed" else None
    verdict = judge(trial.history, failure, (rival or trial).history, experiment.evaluation.score.ratio_ref)
    settings = experiment.with_params(trial.params) if trial.history else experiment
    cure = in_words(cures(verdict, settings, trial.history))
    return {"verdict": verdict.label, "evidence": verdict.evidence, "cure": cure}


def _row(trial: TrialRecord, verdict: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trial_id": trial.trial_id,
        "is_baseline": trial.is_baseline,
        "status": trial.status,
        "stop_reason": trial.stop_reason or "",
        **verdict,
        "images_seen": trial.images_seen,
        "lost_workers": len(trial.losses),
        "score": trial.score if trial.history else "",
        **{path: _cell(value) for path, value in trial.params.items()},
    }
    row |= {f"last.{key}": value for key, value in measures(trial.last or {}).items()}
    return row | {f"best.{key}": value for key, value in measures(trial.best or {}).items()}


def _cell(value: Any) -> Any:
    """A setting in a table: an empty cell is one that the trial didn't search, so null is told from it."""
    return json.dumps(value) if value is None or isinstance(value, list | dict) else value
