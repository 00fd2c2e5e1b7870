"""What an interrupted search has kept may have been edited, damaged or made up."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import create_trial

from raylora.config import Experiment
from raylora.errors import OutputError, UserError
from raylora.execution.kept import check_kept
from raylora.execution.outputs import OutFolder
from raylora.search.space import Parameter, SearchSpace
from raylora.search.study import (
    COMPARES_KEY,
    EARLIER_NAME,
    SOURCE_KEY,
    SearchStudy,
    keep_earlier,
    read_trials,
    storage_of,
)
from raylora.tracking.recorder import TrialRecord, read_record
from raylora.training.checkpoint import read_state, write_state

SECRET = "hunter2"
STATE = {"tracking_uri": "sqlite:///here.db"}


@pytest.fixture
def experiment() -> Experiment:
    return Experiment().with_params({"dataset.path": "pictures", "model.base_model": "demo"})


@pytest.fixture
def out(tmp_path: Path, experiment: Experiment) -> OutFolder:
    """A search with one trial under way."""
    folder = OutFolder(tmp_path)
    space = SearchSpace(name="small", parameters={"lora.rank": Parameter(choices=(2, 4))})
    number, params = SearchStudy(folder.study, space, experiment, lambda _: 8).ask()
    place = folder.trials / "t000"
    place.mkdir(parents=True)
    TrialRecord("t000", number, params, is_baseline=False, folder=str(place)).write()
    return folder


def edit(out: OutFolder, **changes: Any) -> None:
    file = out.trials / "t000" / "trial.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_what_is_whole_goes_on(out: OutFolder, experiment: Experiment) -> None:
    check_kept(out, STATE, experiment)


def test_a_search_that_has_not_begun_goes_on(tmp_path: Path, experiment: Experiment) -> None:
    check_kept(OutFolder(tmp_path), STATE, experiment)
    OutFolder(tmp_path).study.write_bytes(b'{"op_co')  # torn by a full disk; dropped when the study is opened
    check_kept(OutFolder(tmp_path), STATE, experiment)


def test_a_warm_started_search_that_has_not_begun_goes_on(tmp_path: Path, experiment: Experiment) -> None:
    """It was broken off while its images were encoded: its journal has what it was told of earlier searches alone."""
    out, earlier = OutFolder(tmp_path), create_trial(value=0.5, user_attrs={SOURCE_KEY: "old", COMPARES_KEY: True})
    keep_earlier(out.study, [earlier])
    check_kept(out, STATE, experiment)
    space = SearchSpace(name="small", parameters={"lora.rank": Parameter(choices=(2, 4))})
    assert SearchStudy(out.study, space, experiment, lambda _: 8).ask()[0] == 0
    assert [trial.value for trial in read_trials(out.study, EARLIER_NAME)] == [0.5]


def test_a_journal_that_lost_its_own_study(out: OutFolder, experiment: Experiment) -> None:
    """A trial has begun, so what it was told of earlier searches alone is not enough."""
    out.study.unlink()
    keep_earlier(out.study, [])
    with pytest.raises(OutputError, match="holds no study of raylora's"):
        check_kept(out, STATE, experiment)


def test_a_journal_of_another_program_is_none_before_the_first_trial_either(
    tmp_path: Path, experiment: Experiment
) -> None:
    out = OutFolder(tmp_path)
    optuna.create_study(study_name="mine", storage=storage_of(out.study))
    with pytest.raises(OutputError, match="holds no study of raylora's"):
        check_kept(out, STATE, experiment)


def test_a_password_in_the_state_is_refused_and_not_told(out: OutFolder, experiment: Experiment) -> None:
    with pytest.raises(OutputError, match="MLFLOW_TRACKING_PASSWORD") as told:
        check_kept(out, {"tracking_uri": f"http://user:{SECRET}@host"}, experiment)
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    "journal",
    [
        b"\0\xff" * 100,
        b"\0\xff\n",
        pickle.dumps(1) + b"\n",
        b'{"op_code": 99, "worker_id": "x"}\n',
        b"[]\n[]\n",
        b"[" * 100_000 + b"\n",
        b'{"op_code": 4, "worker_id": "x", "study_id": 7}\n',
        b"",
    ],
)
def test_a_journal_that_is_none(out: OutFolder, experiment: Experiment, journal: bytes) -> None:
    out.study.write_bytes(journal)
    with pytest.raises(OutputError, match=rf"{out.study}: .*put back a copy"):
        check_kept(out, STATE, experiment)
    assert out.study.read_bytes() == journal


def test_a_journal_that_is_gone_or_a_pipe(out: OutFolder, experiment: Experiment) -> None:
    out.study.unlink()
    with pytest.raises(OutputError, match="gone or empty"):
        check_kept(out, STATE, experiment)
    os.mkfifo(out.study)
    with pytest.raises(OutputError, match="no ordinary file"):
        check_kept(out, STATE, experiment)


@pytest.mark.parametrize(
    "changes",
    [{"number": "0"}, {"status": "dead"}, {"params": 5}, {"history": [5]}, {"history": 5}, {"report_times": ["a"]},
     {"history": [{"score": "a", "images_seen": 1}]}, {"params": {"lora.rnak": 5}}, {"params": {"lora.rank": -5}}],
)  # fmt: skip
def test_a_record_that_is_none(out: OutFolder, experiment: Experiment, changes: dict[str, Any]) -> None:
    edit(out, **changes)
    with pytest.raises(UserError, match=r"t000.*put back a copy"):
        check_kept(out, STATE, experiment)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "[" * 100_000])
def test_a_record_that_is_no_table(out: OutFolder, experiment: Experiment, text: str) -> None:
    (out.trials / "t000" / "trial.json").write_text(text)
    with pytest.raises(OutputError, match="no record of a trial"):
        check_kept(out, STATE, experiment)


def test_a_trials_folder_is_where_its_record_lies(out: OutFolder) -> None:
    """Whatever the record says, which may come from elsewhere: nothing is written there."""
    edit(out, folder="/etc")
    assert read_record(out.trials / "t000").folder == str(out.trials / "t000")


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path):
        self._file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._file),)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickled_state_runs_nothing(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "state.pt").write_bytes(pickle.dumps(Payload(tmp_path / "pwned"), protocol))
    with pytest.raises(OutputError, match="no state of a training"):
        read_state(tmp_path / "state.pt")
    assert not (tmp_path / "pwned").exists()


def test_a_state_with_code_in_it_runs_nothing(tmp_path: Path) -> None:
    write_state(tmp_path / "state.pt", {"trainer": Payload(tmp_path / "pwned")})
    with pytest.raises(OutputError, match="no state of a training"):
        read_state(tmp_path / "state.pt")
    assert not (tmp_path / "pwned").exists()
