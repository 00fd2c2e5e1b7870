"""Machines that share no disk: what each brings of a search, what it keeps, and whose folder on the storage it is."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest

from raylora.config import Experiment
from raylora.errors import OutputError, StorageError
from raylora.execution import mirror as mirror_module
from raylora.execution.conclude import is_for_winner
from raylora.execution.mirror import Mirror, at_work, check_storage, claimed, reach, reopened
from raylora.execution.outputs import OutFolder
from raylora.execution.trial import run_trial_here
from raylora.execution.trial_job import TrialJob
from raylora.storage import Storage
from raylora.tracking.stored import Stored
from raylora.training.trainer import Trainer
from tests.integration.conftest import MakeJob
from tests.s3 import BUCKET, S3
from tests.s3 import s3 as s3
from tests.s3 import s3_of_module as s3_of_module

Reports = list[dict[str, Any]]
Move = Callable[[str], None]
CONFIG = {"number": 7, "params": {}, "is_baseline": True}


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """Go on as another machine, whose disk has nothing yet, or back to one."""

    def to(machine: str) -> None:
        (tmp_path / machine).mkdir(exist_ok=True)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / machine))

    to("first")
    return to


@pytest.fixture
def uri(s3: S3) -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def job(make_job: MakeJob, uri: str, move: Move) -> TrialJob:
    """A search's trials, with what they share on the storage alone."""
    job = make_job({"search.storage": uri, "training.checkpoint_images": 4, "training.epochs": 2})
    Storage(uri).push(job.out, "cache")
    (job.out / "cache").rename(job.out / "not here")
    return replace(job, mirror=Mirror(uri, "run", "out"))


def report_until(count: int, reports: Reports) -> Callable[[dict[str, Any]], None]:
    def report(latest: dict[str, Any]) -> None:
        reports.append(latest)
        if len(reports) == count:
            raise KeyboardInterrupt

    return report


def told(reports: Reports) -> list[tuple[Any, ...]]:
    return [(report["images_seen"], report["score"], report["train_losses"]) for report in reports]


def test_a_trial_goes_on_where_another_machine_left_it(
    job: TrialJob, uri: str, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every report is told after what it speaks of is on the storage, and no step is made twice."""
    first: Reports = []
    rest: Reports = []
    seen: list[str] = []

    def look(latest: dict[str, Any]) -> None:
        seen.extend(Path(name).name for name in Storage(uri).files("trials/t007"))
        report_until(1, first)(latest)

    with pytest.raises(KeyboardInterrupt):
        run_trial_here(CONFIG, job, look)
    assert sorted(seen) == ["best.safetensors", "images_000008.png", "state.pt"]
    move("second")
    steps = steps_of(monkeypatch)
    run_trial_here(CONFIG, job, rest.append)
    assert steps[0] == 8
    assert told(rest[:1]) == told(first)
    assert [report["images_seen"] for report in rest] == [8, 16]
    assert not (job.out / "trials").exists()


def steps_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images seen before each step from now on."""
    steps, step = list[int](), Trainer._optimizer_step

    def counted(trainer: Trainer) -> Any:
        steps.append(trainer.images_seen)
        return step(trainer)

    monkeypatch.setattr(Trainer, "_optimizer_step", counted)
    return steps


def test_a_state_between_rungs_is_kept_too(
    job: TrialJob, uri: str, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is lost amid a rung costs what it learned since its last state."""
    step = Trainer._optimizer_step

    def lost_at_14(trainer: Trainer) -> Any:
        if trainer.images_seen == 14:
            raise KeyboardInterrupt
        return step(trainer)

    with monkeypatch.context() as lost:
        lost.setattr(Trainer, "_optimizer_step", lost_at_14)
        with pytest.raises(KeyboardInterrupt):
            run_trial_here(CONFIG, job, list[Any]().append)
    move("second")
    steps = steps_of(monkeypatch)
    run_trial_here(CONFIG, job, list[Any]().append)
    assert steps == [12, 14]


def test_what_one_machine_left_unkept_does_not_come_back(
    job: TrialJob, uri: str, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine's old copy of a trial is behind: the trial has gone on elsewhere since."""
    with pytest.raises(KeyboardInterrupt):
        run_trial_here(CONFIG, job, report_until(1, []))
    move("second")
    run_trial_here(CONFIG, job, list[Any]().append)
    move("first")
    steps = steps_of(monkeypatch)
    reports: Reports = []
    run_trial_here(CONFIG, job, reports.append)
    assert ([report["images_seen"] for report in reports], steps) == ([8, 16], [])


def test_what_trials_share_is_brought_once_to_each_machine(job: TrialJob, s3: S3, move: Move) -> None:
    assert job.mirror is not None
    mirror = job.mirror
    for machine in ("first", "second", "first"):
        move(machine)
        with ThreadPool(4) as pool:
            pool.map(mirror.pull, ["cache"] * 4)
    brought = [asked for asked in s3.asked if asked.startswith("GET") and asked.endswith("/cache/images.safetensors")]
    assert len(brought) == 2


def test_a_storage_that_is_gone_is_told_and_nothing_is_lost(
    job: TrialJob, uri: str, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_module, "PATIENCE_S", 0)
    reports: Reports = []

    def gone_after_the_first(latest: dict[str, Any]) -> None:
        reports.append(latest)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")

    with pytest.raises(StorageError, match=r"nothing answers at 127\.0\.0\.1:1"):
        run_trial_here(CONFIG, job, gone_after_the_first)
    assert [report["images_seen"] for report in reports] == [8]
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    run_trial_here(CONFIG, job, reports.append)
    assert [report["images_seen"] for report in reports] == [8, 8, 16]


def test_files_of_the_winner_are_made_of_weights_alone() -> None:
    wanted = ("cache/images.json", "cache/entries/a.safetensors", "trials/t0/best.safetensors",
              "trials/t0/fold_0/best.safetensors", "trials/t0/state.pt", "trials/t0/samples/images_1.png")  # fmt: skip
    assert [is_for_winner(name) for name in wanted] == [True] * 4 + [False] * 2


def test_samples_come_to_the_output_folder_when_they_are_asked_for(uri: str, move: Move, tmp_path: Path) -> None:
    there, out = tmp_path / "there", tmp_path / "out"
    for name in ("samples/images_000008.png", "samples/prompts_000008.png", "samples/images_000016.png", "state.pt"):
        for fold in ("fold_0", "fold_1"):
            (file := there / "trials" / "t000" / fold / name).parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)
    Storage(uri).push(there)
    Stored(uri, out).bring_samples(out / "trials" / "t000", 8)
    assert sorted(path.name for path in out.rglob("*.png")) == ["images_000008.png", "prompts_000008.png"]


@pytest.fixture
def experiment(tiny_experiment: Experiment, uri: str, move: Move) -> Experiment:
    return tiny_experiment.with_params({"search.storage": uri})


@pytest.fixture
def out(tmp_path: Path) -> OutFolder:
    (tmp_path / "out").mkdir()
    return OutFolder(tmp_path / "out")


def test_a_folder_belongs_to_one_search(experiment: Experiment, out: OutFolder, uri: str) -> None:
    check_storage(experiment)
    with claimed(experiment, out) as mirror:
        assert mirror is not None and mirror.root.name == "out"
        out.state_file.write_text("{}")
    for refuse in (lambda: check_storage(experiment), claimed(experiment, out).__enter__):
        with pytest.raises(OutputError, match=r"search\.storage s3://.*: holds another search, out; give"):
            refuse()
    assert reopened(experiment, {"storage_run": mirror.run}, out) == mirror
    with pytest.raises(OutputError, match="holds nothing of the search in"):
        reopened(experiment, {"storage_run": "another"}, out)
    assert reach(mirror, []) is None
    assert "holds another search, or nothing of this one" in str(reach(replace(mirror, run="another"), []))
    assert "there is no such bucket" in str(reach(None, ["s3://no-such-bucket/x"]))


def test_a_search_that_goes_on_keeps_what_it_began_with(experiment: Experiment, out: OutFolder) -> None:
    """Its trials are there, and nowhere else."""
    with pytest.raises(OutputError, match=rf"{out.experiment}: .* began without search\.storage; take that out again"):
        reopened(experiment, {}, out)
    other = experiment.with_params({"search.storage": None})
    with pytest.raises(OutputError, match=rf"{out.experiment}: .* began with search\.storage; put back what it was"):
        reopened(other, {"storage_run": "run"}, out)


def test_one_that_holds_something_is_refused(experiment: Experiment, uri: str) -> None:
    Storage(uri).write("trials/t000/state.pt", b"")
    with pytest.raises(OutputError, match="is not empty; give another folder"):
        check_storage(experiment)


def test_a_search_that_fails_before_it_starts_leaves_nothing(experiment: Experiment, out: OutFolder, uri: str) -> None:
    with pytest.raises(KeyError), claimed(experiment, out):
        raise KeyError
    assert Storage(uri).names() == []
    check_storage(experiment)


def test_two_that_claim_it_at_once_do_not_both_get_it(
    experiment: Experiment, out: OutFolder, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Storage.write

    def write_after_another(self: Storage, name: str, content: bytes) -> None:
        write(self, name, content)
        write(self, name, json.dumps({"run": "another"}).encode())

    monkeypatch.setattr(Storage, "write", write_after_another)
    with pytest.raises(OutputError, match="is empty no more"):
        claimed(experiment, out).__enter__()


@pytest.mark.parametrize(
    ("storage", "told"),
    [("s3://no-such-bucket/x", "there is no such bucket"), ("file:///proc/nowhere", "there is no such file")],
)
def test_a_storage_that_cannot_be_written_is_told(experiment: Experiment, storage: str, told: str) -> None:
    with pytest.raises(OutputError, match=rf"search\.storage {storage}\S*: {told}"):
        check_storage(experiment.with_params({"search.storage": storage}))


def test_without_one_everything_is_in_the_output_folder(tiny_experiment: Experiment, out: OutFolder) -> None:
    check_storage(tiny_experiment)
    with claimed(tiny_experiment, out) as mirror, at_work(mirror, out.root, ["cache"], ["cache"]) as there:
        assert (mirror, there) == (None, out)
    assert reopened(tiny_experiment, {}, out) is None
