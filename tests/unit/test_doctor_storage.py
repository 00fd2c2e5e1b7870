"""With `search.storage` nodes share no output folder: what the doctor asks then, and how it judges the answers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raylora.config import Experiment
from raylora.execution.doctor import cluster_facts, node_facts
from raylora.execution.doctor.asking import Heard, Said
from raylora.execution.doctor.cluster_facts import Session, ask_facts, ask_shared
from raylora.execution.doctor.examine import Answers, cluster_question, judge_all
from raylora.execution.doctor.node_facts import COPIES, NOTICE, OUT, RAY_FOLDER, inquiry_here, place_facts
from raylora.execution.doctor.questions import NodeQuestion
from raylora.execution.doctor.rows import Row
from raylora.execution.notice import NOTICE_VARIABLE
from raylora.storage import scratch_place
from tests.unit.test_doctor_gpu_judgments import FACTS as GPU
from tests.unit.test_doctor_judgments import GUARDED, PLACE, SAME, SERVICES, VALUES

HERE = os.uname().nodename
ADDRESS = "10.0.0.1:6379"
NODES = [
    {"id": str(number), "host": f"node-{number}", "address": f"10.0.0.{number}", "gpus": 1, "is_head": number == 1,
     "ray": "/tmp/ray"}
    for number in (1, 2)
]  # fmt: skip
STORED = Experiment().with_params({"search.storage": "s3://bucket/run"})
NO_FOLDER = PLACE | {"fault": "Permission denied"}
"""As of an output folder that a node doesn't have."""


def answers(places: dict[str, Any], shared: dict[str, Any], driver: dict[str, Any]) -> Answers:
    """Of a cluster of two nodes that are alike."""
    facts = VALUES | {"places": {name: place for name, place in VALUES["places"].items() if name != OUT} | places}
    values = {
        "ray": ADDRESS, "nodes": NODES, "state": 2, "guards": GUARDED, "versions": SAME,
        "facts": {node["id"]: Said((facts | {"versions": SAME, "gpus": GPU}, {})) for node in NODES},
        "clocks": {node["id"]: Said((0.0, 0.0)) for node in NODES},
        "shared": shared | {"unreadable": {node["id"]: Said([]) for node in NODES}},
    }  # fmt: skip
    return Answers(Heard(values), None, Heard(driver), Heard(SERVICES))


def rows_of(check: str, rows: list[Row]) -> list[tuple[str | None, str]]:
    return [(one.node, one.level) for one in rows if one.check == check]


def judged(experiment: Experiment, said: Answers) -> list[Row]:
    return judge_all(cluster_question(experiment, Path("/out"), ADDRESS), said, experiment)


def test_with_a_storage_the_drivers_output_folder_alone_counts() -> None:
    """And on each node the room for copies."""
    rows = judged(STORED, answers({COPIES: PLACE}, {}, {"places": {OUT: PLACE}}))
    assert not [one for one in rows if one.level == "bad"]
    assert rows_of(OUT, rows) == [(HERE, "good")]
    assert rows_of(COPIES, rows) == [("node-1", "good"), ("node-2", "good")]
    [shared] = [one for one in rows if one.check == "shared folder"]
    assert shared.level == "good" and "search.storage" in shared.found


def test_with_a_storage_what_it_needs_is_told_where_it_is_missing() -> None:
    rows = judged(STORED, answers({COPIES: NO_FOLDER}, {}, {"places": {OUT: NO_FOLDER}}))
    assert rows_of(OUT, rows) == [(HERE, "bad")]
    assert rows_of(COPIES, rows) == [("node-1", "bad"), ("node-2", "bad")]
    silent = answers({COPIES: PLACE}, {}, {})
    silent.driver.faults["places"] = "gave no answer in 30 s"
    assert rows_of(OUT, judged(STORED, silent)) == [(HERE, "bad")]


def test_what_trials_read_must_be_seen_with_a_storage_too() -> None:
    said = answers({COPIES: PLACE}, {}, {"places": {OUT: PLACE}})
    said.ray.values["shared"]["unreadable"]["2"] = Said(["the base model /models/mine"])
    assert rows_of("shared folder", judged(STORED, said)) == [("node-2", "bad")]


def test_without_a_storage_all_nodes_write_to_the_output_folder() -> None:
    shared = {"place": "/out", "written": {"1": Said(), "2": Said(fault="OSError: no")}, "unseen": {}}
    rows = judged(Experiment(), answers({OUT: NO_FOLDER}, shared, {}))
    assert rows_of(OUT, rows) == [("node-1", "bad"), ("node-2", "bad")]
    assert rows_of(COPIES, rows) == []
    assert rows_of("shared folder", rows) == [("node-2", "bad")]


@pytest.mark.parametrize("address", [None, ADDRESS])
def test_where_no_cluster_answers_this_machine_is_judged_with_both(address: str | None) -> None:
    facts = VALUES | {"places": VALUES["places"] | {OUT: NO_FOLDER, COPIES: NO_FOLDER}, "gpus": GPU, "versions": SAME}
    said = Answers(Heard(faults={"ray": "no"}), Heard(facts), Heard(), Heard(SERVICES))
    rows = judge_all(cluster_question(STORED, Path("/out"), address), said, STORED)
    assert rows_of(OUT, rows) == rows_of(COPIES, rows) == [(HERE, "bad")]


@pytest.mark.parametrize(
    ("params", "shares_out", "keeps_copies"),
    [
        ({}, True, False),
        ({"dataset.path": "/photos"}, True, False),
        ({"dataset.path": "s3://bucket/photos"}, True, True),
        ({"dataset.regularization": "s3://bucket/people"}, True, True),
        ({"search.storage": "s3://bucket/run"}, False, True),
    ],
)
def test_nodes_keep_copies_of_what_lies_elsewhere(params: dict[str, Any], shares_out: bool, keeps_copies: bool) -> None:
    question = cluster_question(Experiment().with_params(params), Path("/out"), ADDRESS)
    assert (question.shares_out, question.keeps_copies) == (shares_out, keeps_copies)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What nodes are asked to do something with; they do it here."""
    asked: list[Any] = []

    def on_nodes(work: Callable[[Any], Any], given: dict[str, Any], limit_s: float = 0) -> dict[str, Said]:
        asked.extend(given.values())
        return {node: Said(work(argument)) for node, argument in given.items()}

    monkeypatch.setattr(cluster_facts, "on_nodes", on_nodes)
    monkeypatch.setattr(cluster_facts, "facts_here", lambda asked: asked)
    monkeypatch.setattr(cluster_facts, "living_nodes", lambda: [{"NodeID": node["id"]} for node in NODES])
    monkeypatch.setattr(cluster_facts, "describe_nodes", lambda _: NODES)
    return asked


@pytest.mark.parametrize("experiment", [Experiment(), STORED])
def test_nodes_are_asked_for_what_they_need(experiment: Experiment, asked: list[Any], tmp_path: Path) -> None:
    session = Session(cluster_question(experiment, tmp_path, ADDRESS))
    shared = ask_shared(session)
    assert set(shared["unreadable"]) == {"1", "2"}
    assert ("place" in shared) == (experiment is not STORED)
    assert any(isinstance(argument, Path) for argument in asked) == (experiment is not STORED)  # marks
    assert list(tmp_path.iterdir()) == []
    for said in ask_facts(session).values():
        assert (OUT in said.value.folders, said.value.keeps_copies) == (experiment is not STORED, experiment is STORED)


def test_a_node_looks_where_its_own_copies_and_notice_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not in the folder for temporary files of the process that looks."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(NOTICE_VARIABLE, raising=False)
    inquiries: list[tuple[Any, ...]] = []
    monkeypatch.setattr(node_facts, "Inquiry", lambda *arguments: inquiries.append(arguments))
    for keeps_copies in (True, False):
        inquiry_here(NodeQuestion({RAY_FOLDER: "/tmp/ray"}, keeps_copies))
    asked, without = (question for _, question, _ in inquiries)
    assert asked == without | {COPIES: str(tmp_path / f"raylora-{os.getuid()}")}
    assert without == {RAY_FOLDER: "/tmp/ray", NOTICE: str(tmp_path / "raylora-notice")}


def test_copies_have_room_where_nobody_else_has_made_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = place_facts({COPIES: str(scratch_place())})[COPIES]
    assert found["fault"] is None and found["free"] > 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "elsewhere").mkdir()
    scratch_place().symlink_to(tmp_path / "elsewhere")
    assert place_facts({COPIES: str(scratch_place())})[COPIES]["fault"] == "belongs to another user"
