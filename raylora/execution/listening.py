"""Ray Tune's callbacks as calls to a listener, and the records that come of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.result import NODE_IP

from raylora.errors import RayloraError, StorageError
from raylora.execution.dead_nodes import HEARD_WITHIN_S, DeadNodes, nodes_of_ray
from raylora.execution.losing import (
    LAST_FAULT,
    LONGEST_LINE,
    MOST_LOSSES,
    Losses,
    cause_of_loss,
    error_of,
    shortened,
    words_of_loss,
)
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


class RayListener(Callback):  # type: ignore[misc]  # Ray ships no types
    """Keeps the record of every trial and tells a listener of each change.

    Only records of trials under way are in memory: an ended one's lies on disk, where a search of any length has room.

    Args:
        given_up: gets the numbers of trials whose workers were lost too often, before the searcher hears of their end.
        say: told a line at each lost worker.
        is_spread: whether a trial has workers elsewhere than in its own process.
    """

    def __init__(
        self, job: TrialJob, listener: Listener, given_up: set[int], say: Callable[[str], None], is_spread: bool = False
    ):
        self._job, self._listener, self._given_up = job, listener, given_up
        self._say, self._is_spread = say, is_spread
        self._under_way: dict[int, TrialRecord] = {}
        self._losses = Losses()
        self._recovered: dict[int, int] = {}
        """In which step of Tune's each trial was last begun again: it may be ended in the same, by the same loss."""
        self._failed: set[int] = set()
        self._dead_nodes = DeadNodes(nodes_of_ray)
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
        self._losses.begin(record.number)
        self._dead_nodes.begin(record.number, trial.temporary_state.ray_actor, self._is_spread)
        self._tell(record, self._listener.trial_started)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._put_down_to_nodes(self._dead_nodes.told())

    def put_down_the_last(self) -> None:
        """The round has come to its end: what is to be known yet of its lost workers is waited for."""
        if self._dead_nodes.is_in_doubt:
            self._say(f"Asking Ray whether a node went with a lost worker, for {HEARD_WITHIN_S:.0f} s at most …")
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
            self._losses.report(record.number)
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
        """A worker was lost, and Tune begins its trial again; after the next loss no more, if this asks for that.

        Raises:
            RayloraError: see `_lose`.
        """
        record = self._record(trial)
        self._recovered[record.number] = iteration
        self._lose(record, trial)
        trial.config["went_on_at"] = record.images_seen
        trial.config[LAST_FAULT] = self._losses.last_fault(record.number)
        in_a_row = self._losses.in_a_row(record.number)
        if in_a_row > 1 or record.losses[-1] == "memory":
            trial.config[HALVED] = True
        if in_a_row >= MOST_LOSSES - 1:
            self._given_up.add(record.number)
            trial.max_failures = 0

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune has ended a trial for a lost worker; the searcher hands it out again, unless it is given up.

        Raises:
            RayloraError: see `_lose`.
        """
        record = self._record(trial)
        if self._recovered.pop(record.number, None) != iteration:
            self._lose(record, trial, is_end=record.number in self._given_up)
        if record.number in self._given_up:
            _fail(record)
            self._end(trial, record)
        _forget(trial)

    def _lose(self, record: TrialRecord, trial: Any, is_end: bool = False) -> None:
        """Count a lost worker, keep what was said of it, and say so.

        Args:
            is_end: whether the trial is not begun again.

        Raises:
            RayloraError: no process could be made ready for this trial, again and again, nor for any other meanwhile.
        """
        error = error_of(trial)
        record.last_loss = words_of_loss(error)
        record.losses.append(cause_of_loss(error))
        record.write()
        self._losses.lose(record.number, record.last_loss)
        if self._losses.nothing_begins(record.number):
            raise RayloraError(f"no process can begin with {record.trial_id}: {record.last_loss}")
        after = "it is given up" if is_end else "it goes on from its last state"
        where, in_a_row = self._dead_nodes.where(record.number), self._losses.in_a_row(record.number)
        self._say(f"{_news_of(record, where, in_a_row)}; {after}")
        if record.losses[-1] == "worker":
            self._dead_nodes.lose(record.number, len(record.losses) - 1)
        else:
            self._dead_nodes.end(record.number)

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
        said = f"{', the last time' * bool(often)}: {record.last_loss}" if record.last_loss else ""
        record.stop_reason = f"its worker was lost{often}{by_memory}{said}"


def _news_of(record: TrialRecord, node: str | None, in_a_row: int) -> str:
    """What is said of a lost worker.

    Args:
        in_a_row: how often by now, without a report between.
    """
    where = f" on {node}" if node else ""
    why = f" ({shortened(record.last_loss, LONGEST_LINE)})" if record.last_loss else ""
    again = f", {in_a_row} times in a row by now" if in_a_row > 1 else ""
    return f"{record.trial_id} lost its worker{where}{why}{again}"
