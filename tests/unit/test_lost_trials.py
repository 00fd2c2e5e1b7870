"""What Tune says of lost workers, as its listener hears it: kept, told, counted, and enough at last.

`Round` calls the listener as `TuneController._process_trial_failure` does; that Tune does so, and ends what it is told
to end, `tests/integration/test_failing_searches.py` sees.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raylora.config import Experiment
from raylora.errors import RayloraError
from raylora.execution import listening
from raylora.execution.dead_nodes import HEARD_WITHIN_S, Node
from raylora.execution.listening import RayListener
from raylora.execution.losing import LAST_FAULT, LONGEST_WORDS, MOST_LOSSES, words_of_loss
from raylora.execution.trial_job import HALVED, TrialJob
from raylora.tracking.recorder import Listeners, TrialRecord, read_record
from tests.reports import result

KILLED = "The actor died unexpectedly.\n\tpid: 7\nThe actor is dead because its worker process has died."
NCCL = "RuntimeError: NCCL error in: NCCLUtils.cpp:77: socketStartConnect: Connect to 10.0.0.2 failed"
RAISED = f"ray::trainable.train() (pid=7)\n  File trial.py, line 3\nraylora.errors.WorkerLostError: {NCCL}\n"


class Round:
    """A round of Tune's, of trials that are lost."""

    def __init__(self, folder: Path):
        self.job = TrialJob(folder, Experiment(), threads=1)
        self.given_up, self.told, self.step, self.folder = set[int](), list[str](), 0, folder
        self.listener = RayListener(self.job, Listeners([]), self.given_up, self.told.append)

    def trial(self, number: int) -> Any:
        return SimpleNamespace(
            config={"number": number, "params": {}, "is_baseline": False},
            evaluated_params={},
            max_failures=-1,
            failures=0,
            error_file=str(self.folder / f"error-{number}.txt"),
            placement_group_factory="one core",
            temporary_state=SimpleNamespace(ray_actor=None),
            run_metadata=SimpleNamespace(metric_analysis={}, metric_n_steps={}, last_result={}),
        )

    def lose(self, trial: Any, words: str, has_begun: bool = True) -> None:
        self.step += 1
        if has_begun:
            self.listener.on_trial_start(self.step, [trial], trial)
        trial.failures += 1
        with Path(trial.error_file).open("a", encoding="utf-8") as errors:
            errors.write(f"Failure # {trial.failures} (occurred at noon)\n{words}\n")
        recovers = trial.max_failures < 0 or trial.failures <= trial.max_failures
        hear = self.listener.on_trial_recover if recovers else self.listener.on_trial_error
        hear(self.step, [trial], trial)

    def record(self, number: int) -> TrialRecord:
        return read_record(self.job.folder(number))


@pytest.fixture
def nodes() -> list[Node]:
    return [Node("head", "10.0.0.1", is_alive=True)]


@pytest.fixture
def round_(tmp_path: Path, nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> Round:
    monkeypatch.setattr(listening, "nodes_of_ray", lambda: nodes)
    return Round(tmp_path)


def test_each_loss_is_told_and_kept_and_the_tenth_in_a_row_is_the_last(round_: Round) -> None:
    trial = round_.trial(3)
    for loss in range(1, MOST_LOSSES):
        round_.lose(trial, RAISED)
        assert round_.record(3).status == "running"
        assert (3 in round_.given_up) == (loss == MOST_LOSSES - 1)  # Tune asks nobody before it ends a trial
    round_.lose(trial, RAISED)
    record = round_.record(3)
    assert record.losses == ["worker"] * MOST_LOSSES
    assert (record.status, record.last_loss) == ("failed", NCCL)
    assert record.stop_reason == f"its worker was lost {MOST_LOSSES} times, the last time: {NCCL}"
    assert round_.told[:2] == [
        f"t003 lost its worker ({NCCL}); it goes on from its last state",
        f"t003 lost its worker ({NCCL}), 2 times in a row by now; it goes on from its last state",
    ]
    assert round_.told[-1] == f"t003 lost its worker ({NCCL}), {MOST_LOSSES} times in a row by now; it is given up"
    assert len(round_.told) == MOST_LOSSES


def test_a_report_makes_up_for_what_was_lost_before(round_: Round) -> None:
    trial = round_.trial(3)
    for _ in range(MOST_LOSSES - 1):
        round_.lose(trial, RAISED)
    assert trial.config[HALVED]
    assert trial.config[LAST_FAULT] == (NCCL, MOST_LOSSES - 1)
    round_.listener.on_trial_start(100, [trial], trial)
    round_.listener.on_trial_result(100, [trial], trial, result(8, 0.5, stop_reason=None, is_finished=False))
    assert (round_.given_up, trial.max_failures) == (set(), -1)
    round_.lose(trial, RAISED)
    assert trial.config[LAST_FAULT] == (NCCL, 1)
    assert (round_.given_up, trial.max_failures) == (set(), -1)
    round_.lose(trial, KILLED)
    assert round_.record(3).status == "running"
    assert trial.config["went_on_at"] == 8
    assert trial.config[LAST_FAULT] == ("The actor is dead because its worker process has died.", 1)


def test_memory_that_ran_out_halves_the_images_at_once_and_any_other_loss_does_only_in_a_row(round_: Round) -> None:
    trial, other = round_.trial(3), round_.trial(4)
    round_.lose(trial, "Task was killed due to the node running low on memory.")
    round_.lose(other, KILLED)
    assert (HALVED in trial.config, HALVED in other.config) == (True, False)


def test_a_loss_that_tune_tells_of_twice_is_one(round_: Round) -> None:
    """A worker dies just as it is handed a trial: Tune begins that again, and ends it in the same step."""
    trial = round_.trial(3)
    round_.lose(trial, KILLED)
    round_.listener.on_trial_error(round_.step, [trial], trial)
    assert round_.record(3).losses == ["worker"]
    assert len(round_.told) == 1


def test_processes_that_never_begin_end_the_search_and_are_no_fault_of_the_trial(round_: Round) -> None:
    """Nine losses of a trial's own and a process that can't be created are no ten."""
    trial, other = round_.trial(3), round_.trial(4)
    for _ in range(MOST_LOSSES - 2):
        round_.lose(trial, RAISED)
    for _ in range(MOST_LOSSES - 1):
        round_.lose(trial, KILLED, has_begun=False)
    round_.listener.on_trial_start(1000, [other], other)  # so processes can begin
    for _ in range(MOST_LOSSES - 1):
        round_.lose(trial, KILLED, has_begun=False)
    assert (round_.given_up, round_.record(3).status) == (set(), "running")
    with pytest.raises(RayloraError) as raised:
        round_.lose(trial, KILLED, has_begun=False)
    told = "The actor is dead because its worker process has died."
    assert str(raised.value) == f"no process can begin with t003: {told}"


def test_the_node_is_named_where_there_are_several_and_put_in_the_record_once_it_is_dead(
    round_: Round, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = round_.trial(3)
    nodes.append(Node("other", "10.0.0.2", is_alive=True))
    monkeypatch.setattr("raylora.execution.dead_nodes._address", lambda _: "10.0.0.2")
    round_.lose(trial, KILLED)
    assert round_.told[0].startswith("t003 lost its worker on 10.0.0.2 (The actor is dead ")
    nodes[1] = nodes[1]._replace(is_alive=False)
    round_.listener.put_down_the_last()
    assert round_.record(3).losses == ["node"]
    assert round_.told[1] == f"Asking Ray whether a node went with a lost worker, for {HEARD_WITHIN_S:.0f} s at most …"


@pytest.mark.parametrize("dead", [1, 2])
def test_a_loss_whose_cause_is_known_is_no_nodes_and_the_next_process_is_another_one(
    dead: int, round_: Round, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raylora.execution.dead_nodes.time.sleep", pytest.fail)
    monkeypatch.setattr("raylora.execution.dead_nodes._address", lambda answer: answer)
    nodes += [Node(address, address, is_alive=True) for address in ("10.0.0.2", "10.0.0.3")]
    trial = round_.trial(3)
    trial.temporary_state.ray_actor = SimpleNamespace(get_current_ip_pid=SimpleNamespace(remote=lambda: "10.0.0.2"))
    round_.lose(trial, "Task was killed due to the node running low on memory.")
    round_.lose(trial, KILLED, has_begun=False)  # wherever that was
    nodes[dead] = nodes[dead]._replace(is_alive=False)
    round_.listener.put_down_the_last()
    assert round_.record(3).losses == ["memory", "node"]


def test_on_one_machine_nothing_is_waited_for_at_the_end(round_: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylora.execution.dead_nodes.time.sleep", pytest.fail)
    monkeypatch.setattr("raylora.execution.dead_nodes._address", lambda _: "10.0.0.1")
    round_.lose(round_.trial(3), KILLED)
    round_.listener.put_down_the_last()
    assert [line.partition(" (")[0] for line in round_.told] == ["t003 lost its worker"]
    assert round_.record(3).losses == ["worker"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (RAISED, NCCL),
        (KILLED, "The actor is dead because its worker process has died."),
        ("its node has died. Id: 3c1f\nThe actor never ran - it was cancelled", "its node has died. Id: 3c1f"),
        ("Task was killed due to the node running low on memory.\nSee https://…",
         "Task was killed due to the node running low on memory."),
        ("", ""),
    ],
)  # fmt: skip
def test_of_rays_many_lines_the_one_that_tells_is_kept(told: str, words: str) -> None:
    assert words_of_loss(told) == words
    assert len(words_of_loss("x" * 1000)) == LONGEST_WORDS
