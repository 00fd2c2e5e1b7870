"""What MLflow gets of a search: real clients and real stores, also where they fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_model_name
from PIL import Image
from pydantic import ValidationError

from raylora.config import Experiment
from raylora.errors import TrackingError
from raylora.tracking import mlflow_runs
from raylora.tracking.mlflow_runs import MlflowTracker, Tracked
from raylora.tracking.mlflow_store import REACH_S, quieten, tracking_uri
from raylora.tracking.recorder import TrialRecord, measures, read_records
from raylora.tracking.stored import Stored
from tests.lost_answers import cut_off_once, refused_once
from tests.ports import free_port
from tests.servers import mlflow_server

REPORTS = 3
PATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0"}
"""More tries than raylora allows, though without MLflow's own pauses between them."""


class Flaky:
    """A real client of which every nth call fails, before it reaches the store or after."""

    def __init__(self, client: MlflowClient, every: int, is_answer_lost: bool):
        self._client, self._every, self._is_answer_lost = client, every, is_answer_lost
        self.timeouts: list[int] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.timeouts.append(MLFLOW_HTTP_REQUEST_TIMEOUT.get())
            fails = len(self.timeouts) % self._every == 0
            if fails and not self._is_answer_lost:
                raise MlflowException("the server is away")
            answer = getattr(self._client, name)(*args, **kwargs)
            if fails:
                raise MlflowException("the answer was lost")
            return answer

        return call


def report(images_seen: int, **more: Any) -> dict[str, Any]:
    losses = [[images_seen - 4, 0.5], [images_seen, 0.25]]
    return {"score": images_seen / 100, "holdout_loss": 0.5, "images_seen": images_seen, "train_losses": losses, **more}


def begin(number: int, trials: Path) -> TrialRecord:
    folder = str(trials / f"t{number:03d}")
    return TrialRecord(f"t{number:03d}", number, {"lora.rank": 8}, number == 0, folder, node=f"10.0.0.{number}")


def tell(trial: TrialRecord, tracker: MlflowTracker) -> None:
    """As `RayListener` and the process that sends do it."""
    trial.write()
    tracker.hear(Path(trial.folder))
    while tracker.rest_s == 0:
        tracker.send_next()


def evaluate(trial: TrialRecord, tracker: MlflowTracker) -> None:
    trial.hear(report(8 * (len(trial.history) + 1)))
    samples = Path(trial.folder) / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    for kind in ("images", "prompts"):
        Image.new("RGB", (300, 100)).save(samples / f"{kind}_{trial.images_seen:06d}.png")
    tell(trial, tracker)


def end(trial: TrialRecord, tracker: MlflowTracker) -> None:
    trial.status, trial.stop_reason = ("failed", "the worker died") if trial.number == 1 else ("finished", None)
    tell(trial, tracker)


def start(trial: TrialRecord, tracker: MlflowTracker) -> None:
    tell(trial, tracker)


STEPS = (start, *[evaluate] * REPORTS, end)


def search(tracker: MlflowTracker, trials: Path) -> None:
    """Three trials side by side."""
    records = [begin(number, trials) for number in range(3)]
    for step in STEPS:
        for trial in records:
            step(trial, tracker)


def tracked(trial: TrialRecord) -> Tracked:
    return Tracked.read(Path(trial.folder))


def lacks_nothing(trial: TrialRecord) -> bool:
    return (tracked(trial).reports, tracked(trial).status) == (len(trial.history), trial.status)


def next_process(tracker: MlflowTracker, trials: Path, stored: Stored | None = None) -> MlflowTracker:
    """What the next process begins with: another tracker of the same search, that finds what there is by itself."""
    resumed = MlflowTracker(tracker.uri, "raylora", stored=stored)
    resumed.start("search", {}, {}, run_id=tracker.parent_run_id)
    resumed.look_through([trials])
    return resumed


def assert_all_there_once(uri: str, parent_run_id: str, trials: Path) -> None:
    client = MlflowClient(uri)
    experiment_id = client.get_run(parent_run_id).info.experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment_id])}
    assert len(client.search_runs([experiment_id])) == len(runs) == 4
    for trial in read_records(trials):
        run = runs[trial.trial_id]
        assert run.info.run_id == tracked(trial).run_id
        assert run.data.tags["mlflow.parentRunId"] == parent_run_id
        assert run.data.params == {"lora.rank": "8"}
        assert run.info.status == ("FAILED" if trial.status == "failed" else "FINISHED")
        assert run.data.tags["raylora.status"] == trial.status
        assert run.data.tags["raylora.node"] == f"10.0.0.{trial.number}"
        assert run.data.tags.get("raylora.stop_reason") == trial.stop_reason
        assert points(client, trial, "train_loss_step") == [
            (seen, loss, time)
            for report, time in zip(trial.history, trial.report_times, strict=True)
            for seen, loss in report["train_losses"]
        ]
        heard = list(zip(trial.history, trial.report_times, strict=True))
        for name in measures(report(0)):
            assert points(client, trial, name) == [(one["images_seen"], one[name], time) for one, time in heard]
        assert pictures(client, trial) == sorted(
            (key, report["images_seen"], time, ending)
            for report, time in zip(trial.history, trial.report_times, strict=True)
            for key in ("samples", "prompts")
            for ending in ("raylora.png", "raylora+compressed.webp")
        )


def points(client: MlflowClient, trial: TrialRecord, name: str) -> list[tuple[int, float, int]]:
    history = client.get_metric_history(str(tracked(trial).run_id), name)
    return sorted((point.step, point.value, point.timestamp) for point in history)


def pictures(client: MlflowClient, trial: TrialRecord) -> list[tuple[str, int, int, str]]:
    """Key, step, time and the rest of each name, read as MLflow's pages do."""
    names = [file.path.removeprefix("images/") for file in client.list_artifacts(str(tracked(trial).run_id), "images")]
    parts = [name.split("+", 5) for name in names]
    assert {(word, other) for _, word, _, other, _, _ in parts} <= {("step", "timestamp")}
    return sorted((key, int(step), int(time), ending) for key, _, step, _, time, ending in parts)


@pytest.mark.parametrize("silence_s", [0, 60])
@pytest.mark.parametrize("is_answer_lost", [False, True])
@pytest.mark.parametrize("every", [3, 5, 10**6])
def test_whatever_fails_mlflow_has_everything_once(
    every: int, is_answer_lost: bool, silence_s: int, tracker: MlflowTracker, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(mlflow_runs, "SILENCE_S", silence_s)
    flaky = Flaky(tracker._client, every, is_answer_lost)
    tracker._client = flaky
    trials = tmp_path / "trials"
    search(tracker, trials)
    for _ in range(20):
        tracker.catch_up()
        if all(map(lacks_nothing, read_records(trials))):
            break
    assert_all_there_once(tracker.uri, tracker.parent_run_id, trials)
    assert set(flaky.timeouts) == {REACH_S}


def test_what_one_process_missed_the_next_one_sends(tracker: MlflowTracker, tmp_path: Path) -> None:
    trials = tmp_path / "trials"
    away = Flaky(tracker._client, 1, is_answer_lost=False)
    tracker._client = away
    search(tracker, trials)
    assert [tracked(trial) for trial in read_records(trials)] == [Tracked()] * 3
    next_process(tracker, trials).catch_up()
    assert_all_there_once(tracker.uri, tracker.parent_run_id, trials)


@pytest.mark.parametrize("done", range(len(STEPS) + 1))
def test_a_process_that_is_killed_after_any_step_leaves_nothing_lost_or_doubled(
    done: int, tracker: MlflowTracker, tmp_path: Path
) -> None:
    """All that MLflow was told of a step may be unwritten then."""
    trials = tmp_path / "trials"
    records = [begin(number, trials) for number in range(3)]
    for step in STEPS[:done]:
        for trial in records:
            step(trial, tracker)
    resumed, left = next_process(tracker, trials), read_records(trials)
    resumed.catch_up()
    for step in STEPS[done:]:
        for trial in left or records:
            step(trial, resumed)
    assert_all_there_once(tracker.uri, tracker.parent_run_id, trials)


@pytest.mark.parametrize(("wanted", "told"), [(None, "true"), ("false", "false")])
def test_mlflow_tells_its_makers_of_no_call_unless_that_is_wanted(
    wanted: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "MLFLOW_DISABLE_TELEMETRY"
    monkeypatch.setenv(name, wanted or "")
    if wanted is None:
        monkeypatch.delenv(name)
    quieten()
    assert os.environ[name] == told


def test_a_start_with_nothing_missed_asks_for_nothing(tracker: MlflowTracker, tmp_path: Path) -> None:
    search(tracker, tmp_path / "trials")
    counting = Flaky(tracker._client, 10**6, is_answer_lost=False)
    tracker._client = counting
    tracker.look_through([tmp_path / "trials"])
    tracker.catch_up()
    assert counting.timeouts == []


def test_a_search_whose_own_run_was_deleted_does_not_go_on(tracker: MlflowTracker) -> None:
    MlflowClient(tracker.uri).delete_run(tracker.parent_run_id)
    with pytest.raises(TrackingError, match=f"{tracker.parent_run_id} can't be written .*deleted"):
        tracker.start("search", {}, {}, run_id=tracker.parent_run_id)


def test_a_run_that_somebody_deleted_holds_up_no_other(tracker: MlflowTracker, tmp_path: Path) -> None:
    deleted, other = (begin(number, tmp_path) for number in range(2))
    tell(deleted, tracker)
    tracker._client.delete_run(tracked(deleted).run_id)
    end(deleted, tracker)
    end(other, tracker)
    assert not lacks_nothing(other)
    tracker.catch_up()
    assert lacks_nothing(other)


@pytest.mark.parametrize("is_answer_lost", [False, True])
def test_a_search_whose_run_was_made_without_an_answer_has_that_one(
    is_answer_lost: bool, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, tries = MlflowTracker(uri, "raylora"), list[int]()
    create = (cut_off_once if is_answer_lost else refused_once)(tracker._client.create_run)

    def counted(*arguments: Any, **more: Any) -> Any:
        tries.append(MLFLOW_HTTP_REQUEST_MAX_RETRIES.get())
        return create(*arguments, **more)

    other = MlflowTracker(uri, "raylora")
    other.start("another search", {}, {})
    monkeypatch.setattr(tracker._client, "create_run", counted)
    tracker.start("search", {}, {})
    (run,) = tracker._client.search_runs([tracker.experiment_id], "run_name = 'search'")
    assert (run.info.run_id, run.info.status) == (tracker.parent_run_id, "RUNNING")
    assert tries == [0] * (1 if is_answer_lost else 2)


@pytest.mark.parametrize("is_made", [False, True])
def test_an_experiment_that_is_there_in_the_end_is_taken(
    is_made: bool, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only the answer was lost, or another search was faster."""
    tracker = MlflowTracker(uri, "raylora")
    create = tracker._client.create_experiment

    def failing(*arguments: Any, **more: Any) -> Any:
        if is_made:
            create(*arguments, **more)
        raise MlflowException("no answer came")

    monkeypatch.setattr(tracker._client, "create_experiment", failing)
    with nullcontext() if is_made else pytest.raises(TrackingError, match="raylora: can't be made"):
        tracker.start("search", {}, {})
    assert [found.name for found in tracker._client.search_experiments()] == ["raylora"] * is_made + ["Default"]


@contextmanager
def busy_server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server that has no time for anyone, and what it was asked."""
    asked: list[str] = []

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(503)
            self.send_header("Retry-After", "20")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing to be seen."""

    server = HTTPServer(("127.0.0.1", 0), Busy)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_an_absent_server_is_asked_rarely_and_told_of_once(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thing twice, but to make a run once: then it is looked for, since only the answer may have been lost."""
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mlflow_runs, "SILENCE_S", 10**6)
    told: list[str] = []
    tracker = MlflowTracker(uri, "raylora", warn=told.append)
    tracker.start("search", {}, {})
    find, create = (f"/api/2.0/mlflow/runs/{what}" for what in ("search", "create"))
    with busy_server() as (address, asked):
        tracker._client = MlflowClient(address)
        search(tracker, tmp_path)
        assert asked == [create, find, find]
        with pytest.raises(MlflowException):
            tracker.break_off("KILLED")
        assert len(asked) == 3 + 2
        tracker.catch_up()
        assert asked[5:] == [find, find] + [create, find, find] * 2  # the first trial's run may have been made
    assert len(told) == 1
    assert "the search goes on" in told[0]


def test_a_server_that_goes_away_and_comes_back(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over HTTP, pictures too; and nothing of MLflow's own comes between the lines of `--json`."""
    trials, port, told = tmp_path / "trials", free_port(), []
    records = [begin(number, trials) for number in range(3)]
    with mlflow_server(tmp_path, uri, port) as address:
        tracker = MlflowTracker(address, "raylora", warn=told.append)
        tracker.start("search", {}, {})
        for trial in records[:2]:
            tell(trial, tracker)
            evaluate(trial, tracker)
        end(records[0], tracker)
    evaluate(records[1], tracker)
    for trial in records[1:]:
        end(trial, tracker)
    assert len(told) == 1
    with mlflow_server(tmp_path, uri, port) as address:
        resumed = next_process(tracker, trials)
        resumed.catch_up()
        resumed.finish({"best.score": 0.5}, None)
        assert_all_there_once(address, tracker.parent_run_id, trials)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "name", ["mine", "my LoRA, v1.2", ".hidden", "a..b", "..", ".", "..mine", "mine/best", "x:y", "", " \t"]
)
def test_a_name_is_refused_where_mlflow_would_refuse_it(name: str) -> None:
    try:
        _validate_model_name(name)
    except MlflowException:
        with pytest.raises(ValidationError, match=r"MLflow can register|must be a line of text"):
            Experiment().with_params({"tracking.register_name": name})
    else:
        assert Experiment().with_params({"tracking.register_name": name}).tracking.register_name == name


def test_a_search_in_a_deleted_experiment_does_not_go_on(uri: str) -> None:
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(TrackingError, match=r"experiment gone was deleted; .*restore"):
        MlflowTracker(uri, "gone").start("search", {}, {})


def test_the_files_of_a_sqlite_store_lie_beside_it(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow would put them into `mlruns` of the working directory."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").mkdir()
    shutil.copy(empty_store, tmp_path / "store" / "x.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    tracker = MlflowTracker(tracking_uri("sqlite:///../store/x.db", tmp_path / "out"), "raylora")
    tracker.start("search", {}, {})
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "lora.safetensors").write_bytes(b"lora")
    tracker.finish({}, tmp_path / "best")
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"x.db", "mlartifacts"}
    assert [path.name for path in (tmp_path / "store" / "mlartifacts").rglob("*.safetensors")] == ["lora.safetensors"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
