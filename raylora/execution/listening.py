"""Ray Tune's callbacks as calls to a listener, and the records that come of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.result import NODE_IP

from raylora.errors import RayloraError, StorageError
from raylora.execution.dead_nodes import DeadNodes, dead_nodes
from raylora.execution.results import BREAKS_OFF, FAILED, REPORT
from raylora.execution.trial_job import HALVED, STOP_REASON, TrialJob
from raylora.search.limits import COSTS, over_limits
from raylora.search.stopping import IS_OVER
from raylora.search.study import Outcome
from raylora.tracking.recorder import RECORD_NAME, Listener, TrialRecord, read_record

REPORT_KEYS = (
    "score", "best_score", "holdout_loss", "holdout_loss_ratio", "train_probe_loss", "sample_similarity",
    "similarity_gain", "prompt_alignment", "diversity", "copying", "train_loss", "images_seen", "is_finished",
    IS_OVER, "train_losses", "image_scores", *COSTS,
)  # fmt: skip


MOST_LOSSES = 10
"""Lost workers in a row, without a report between, after which a trial is given up: it may be what ends them."""
CAUSES = {"memory": ("low on memory",), "node": ("node has died", "node died", "Node failed")}
"""What Ray says of a lost worker's end (`src/ray/protobuf/common.proto`, `ActorDiedErrorContext`), by its cause.
What the operating system killed for memory it tells like any other kill."""


class RayListener(Callback):  # type: ignore[misc]  # Ray ships no types
    """Keeps the record of every trial and tells a listener of each change.

    Only records of trials under way are in memory: an ended one's lies on disk, where a search of any length has room.

    Args:
        given_up: gets the numbers of trials whose workers were lost too often, before the searcher hears of their end.
    """

    def __init__(self, job: TrialJob, listener: Listener, given_up: set[int]):
        self._job, self._listener, self._given_up = job, listener, given_up
        self._under_way: dict[int, TrialRecord] = {}
        self._lost: Counter[int] = Counter()
        """Losses of each trial's worker since its last report."""
        self._recovered: dict[int, int] = {}
        """In which step of Tune's each trial was last begun again: it may be ended in the same, by the same loss."""
        self._failed: set[int] = set()
        self._dead_nodes = DeadNodes(dead_nodes)
        self._wanted: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its parts to restore them; this one's state is the records on disk."""
        return {}

    def _record(self, trial: Any) -> TrialRecord:
        """A trial's record; a worker may die before Tune says that the trial has started."""
        number = trial.config["number"]
        if number not in self._under_way:
            self._under_way[number] = self._kept(number) or self._new(trial)
        return self._under_way[number]

    def _kept(self, number: int) -> TrialRecord | None:
        """What an earlier part of the same search has of a trial."""
        folder = self._job.folder(number)
        return read_record(folder) if (folder / RECORD_NAME).is_file() else None

    def _new(self, trial: Any) -> TrialRecord:
        number = trial.config["number"]
        return TrialRecord(
            trial_id=self._job.trial_id(number),
            number=number,
            params=trial.config["params"],
            is_baseline=trial.config["is_baseline"],
            folder=str(self._job.folder(number)),
            confirms=trial.config.get("confirms"),
        )

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        record.status, record.stop_reason = "running", None
        self._dead_nodes.begin(record.number, trial.temporary_state.ray_actor)
        self._tell(record, self._listener.trial_started)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._put_down_to_nodes(self._dead_nodes.told())

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._put_down_to_nodes(self._dead_nodes.told_at_last())

    def _put_down_to_nodes(self, losses: Iterable[tuple[int, int]]) -> None:
        for number, place in losses:
            if record := self._under_way.get(number) or self._kept(number):
                record.losses[place] = "node"
                record.write()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record, (report,) = self._record(trial), result[REPORT]
        record.node = result.get(NODE_IP)
        if FAILED in report:
            if report[BREAKS_OFF]:
                raise StorageError(report[FAILED])
            self._failed.add(record.number)
            record.stop_reason = report[FAILED]  # before Tune tells the searcher of the end: see `settle`
            record.write()
            return
        record.stop_reason = report[STOP_REASON]
        record.over_limits = over_limits(self._job.experiment.search.limits, report)
        if report["images_seen"] > record.images_seen:  # a resumed trial may say its last word again
            del self._lost[record.number]
            self._given_up.discard(record.number)
            trial.max_failures = -1
            record.hear({key: report[key] for key in REPORT_KEYS if key in report})
            self._tell(record, self._listener.trial_reported)
        else:
            record.write()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        if record.number in self._failed:
            _fail(record)
        else:
            _complete(record, self._job)
        self._end(trial, record)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker was lost, and Tune begins its trial again; until this says that it was lost too often."""
        record = self._record(trial)
        self._lose(record, trial)
        self._recovered[record.number] = iteration
        trial.config["went_on_at"] = record.images_seen
        if self._lost[record.number] > 1 or record.losses[-1] == "memory":
            trial.config[HALVED] = True
        if self._lost[record.number] >= MOST_LOSSES:
            self._given_up.add(record.number)
            trial.max_failures = 0

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune has ended a trial for a lost worker; the searcher hands it out again, unless it is given up.

        Raises:
            RayloraError: no process could be made ready for it, again and again.
        """
        record = self._record(trial)
        if self._recovered.pop(record.number, None) != iteration:
            self._lose(record, trial)
        if record.number in self._given_up:
            _fail(record)
            self._end(trial, record)
        elif self._lost[record.number] >= MOST_LOSSES:
            raise RayloraError(f"no process can begin with {record.trial_id}: {error_of(trial)}")
        _forget(trial)

    def _lose(self, record: TrialRecord, trial: Any) -> None:
        self._lost[record.number] += 1
        record.losses.append(cause_of_loss(error_of(trial)))
        if record.losses[-1] == "worker":
            self._dead_nodes.lose(record.number, len(record.losses) - 1)
        record.write()

    def _end(self, trial: Any, record: TrialRecord) -> None:
        self._tell(record, self._listener.trial_ended)
        del self._under_way[record.number]
        self._dead_nodes.end(record.number)
        wants = trial.placement_group_factory  # equal ones, of 3 kB, for every trial
        trial.placement_group_factory = self._wanted.setdefault(wants, wants)
        _forget(trial)

    @staticmethod
    def _tell(record: TrialRecord, hear: Callable[[TrialRecord], None]) -> None:
        """Written down before anyone is told."""
        record.write()
        hear(record)


def _forget(trial: Any) -> None:
    """Drop what Tune keeps of a trial that has ended, here without a use, as long as a search lasts:
    its settings, its last report and the statistics of each number in it.

    Its last snapshot pickles them all: `ray.tune.trainable.metadata._TrainingRunMetadata`, Ray 2.60.
    """
    trial.config, trial.evaluated_params = {"number": trial.config["number"]}, {}
    kept = trial.run_metadata
    kept.metric_analysis, kept.metric_n_steps = {}, {}
    kept.last_result = {key: value for key, value in kept.last_result.items() if key not in (REPORT, "config")}


def settle(records: Sequence[TrialRecord], job: TrialJob, ended: Mapping[int, Outcome]) -> list[TrialRecord]:
    """Write the end of trials whose records a kill left running: Tune tells the searcher of it, and then callbacks.

    Args:
        ended: what the study knows of trials that have ended, by number.

    Returns:
        the records that were changed.
    """
    late = [record for record in records if record.status == "running" and record.number in ended]
    for record in late:
        if ended[record.number] is Outcome.FAILED:
            _fail(record)
        else:
            _complete(record, job)
        record.write()
    return late


def _complete(record: TrialRecord, job: TrialJob) -> None:
    """The end of a trial that did not fail: its own, its scheduler's, or a limit's, be that at its last image."""
    finished = bool(record.last and record.last["is_finished"]) and record.stop_reason is None
    record.status = "finished" if finished else "stopped_early"
    if not finished and record.stop_reason is None:
        record.stop_reason = f"{job.experiment.search.trial_scheduler} at {record.images_seen} images"


def _fail(record: TrialRecord) -> None:
    """The end of a trial that failed, for the reason that it gave, or else because its worker was lost for good."""
    record.status = "failed"
    if record.stop_reason is None:
        often = f" {len(record.losses)} times" if len(record.losses) > 1 else ""
        by_memory = ", as memory ran out" if "memory" in record.losses else ""
        record.stop_reason = f"its worker was lost{often}{by_memory}"


def error_of(trial: Any) -> str:
    """What Ray says of a trial's last loss; nothing if it can't be read.

    It adds each to a file of the driver's; `Trial.get_error` looks for that where it only lies after a snapshot.
    """
    with suppress(OSError):
        if trial.error_file:
            told = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
            return told.rpartition("Failure # ")[2].partition("\n")[2].strip()
    return ""


def cause_of_loss(error: str) -> str:
    """What ended a worker, by Ray's words: `memory`, `node`, or `worker` where all that is known is that it is gone."""
    return next((cause for cause, told in CAUSES.items() if any(part in error for part in told)), "worker")
