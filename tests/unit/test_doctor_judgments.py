"""What nodes, Ray and services say, judged: facts in, level and mend out."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from raylora.config import Experiment
from raylora.execution.doctor.asking import Heard, Said
from raylora.execution.doctor.judge_cluster import (
    judge_clocks,
    judge_ray,
    judge_shared,
    judge_versions,
    names,
)
from raylora.execution.doctor.judge_node import NodeSaid, judge_node
from raylora.execution.doctor.judge_services import judge_services
from raylora.execution.doctor.node_facts import (
    CACHE,
    COPIES,
    FACTS,
    NOTICE,
    OPTIMIZER_PACKAGES,
    OUT,
    PACKAGES,
    RAY_FOLDER,
    SHARED,
    notice_facts,
)
from raylora.execution.doctor.rows import GIB, Row, counted, exit_status, failed, row
from raylora.execution.doctor.wanted import BYTES, NUMBERS, Wanted
from raylora.training.optimizers import OPTIMIZERS

PLACE = {"path": "/shared/out", "there": "/shared", "total": 100 * GIB, "free": 50 * GIB, "fault": None}
VALUES: dict[str, Any] = {
    "host": {"host": "a", "cores": 8, "memory": 64 * GIB, "free": 60 * GIB, "files": (65536, 65536)},
    "places": {OUT: PLACE, RAY_FOLDER: PLACE, CACHE: PLACE, SHARED: {"path": "/dev/shm", "free": 8 * GIB}},
    "notice": None,
    "packages": [],
    "bitsandbytes": {"device": "cpu"},
}
CHANGED: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("processor", {"host": {"cores": 1}}, "warning", "1 processor core", "2 or more"),
    ("memory", {"host": {"free": 5 * GIB}}, "bad", "weights alone are 5.6 GiB", "more memory"),
    ("memory", {"host": {"free": 8 * GIB}}, "warning", "8.0 GiB of 64.0 GiB free", "search.max_concurrent=1"),
    ("open files", {"host": {"files": (1024, 1024)}}, "warning", "only 1024 files", "--ulimit nofile=65536"),
    ("output folder", {"places": {OUT: {"fault": "Read-only file system"}}}, "bad", "Read-only", "--out"),
    ("output folder", {"places": {OUT: {"free": GIB / 2}}}, "bad", "0.5 GiB free", "free some space"),
    ("output folder", {"places": {OUT: {"free": 5 * GIB}}}, "warning", "5.0 GiB free", "--dry-run"),
    ("Ray's folder", {"places": {RAY_FOLDER: {"fault": "Permission denied"}}}, "bad", "Permission", "RAY_TMPDIR"),
    ("Ray's folder", {"places": {RAY_FOLDER: {"free": 4 * GIB}}}, "bad", "less than 5%", "RAY_TMPDIR"),
    ("shared memory", {"places": {SHARED: {"free": GIB / 16}}}, "warning", "0.1 GiB free", "--shm-size"),
    ("model cache", {"places": {CACHE: {"fault": "Permission denied"}}}, "warning", "can't be written", "HF_HOME"),
    ("model cache", {"places": {CACHE: {"free": 3 * GIB}}}, "warning", "3.0 GiB free", "HF_HOME"),
    ("optimizers", {"packages": ["lion_pytorch"]}, "warning", "lion_pytorch is not", "pip install lion-pytorch"),
]


def changed(values: Any, changes: Any) -> Any:
    """Facts with some of them otherwise, wherever they lie."""
    if not isinstance(values, dict) or not isinstance(changes, dict):
        return changes
    return values | {name: changed(values.get(name), change) for name, change in changes.items()}


def rows_of(check: str, rows: list[Row]) -> list[Row]:
    return [one for one in rows if one.check == check]


@pytest.mark.parametrize(("check", "changes", "level", "found", "mend"), CHANGED)
def test_what_a_node_lacks_is_told_with_its_mend(
    check: str, changes: dict[str, Any], level: str, found: str, mend: str
) -> None:
    [well] = rows_of(check, judge_node(NodeSaid("a", VALUES), Wanted()))
    assert (well.level, well.mend, well.node) == ("good", None, "a")
    [ill] = rows_of(check, judge_node(NodeSaid("a", changed(VALUES, changes)), Wanted()))
    assert ill.level == level
    assert found in ill.found
    assert mend in (ill.mend or "")


@pytest.mark.parametrize(
    ("files", "ray_gpus", "level"),
    [
        ((1024, 65536), None, "good"),  # Ray raises it when it is started
        ((1024, 65536), 0, "warning"),  # it was started so
        ((-1, -1), 0, "good"),
    ],
)
def test_a_limit_of_open_files_counts_where_ray_cannot_raise_it(
    files: tuple[int, int], ray_gpus: float | None, level: str
) -> None:
    node = NodeSaid("a", changed(VALUES, {"host": {"files": files}}), ray_gpus=ray_gpus)
    [found] = rows_of("open files", judge_node(node, Wanted()))
    assert found.level == level
    assert ("ulimit -n" in (found.mend or "")) == (level == "warning")


def test_room_for_copies_counts_where_some_are_kept() -> None:
    wanted = Wanted(writes_out=False, keeps_copies=True)
    for free, level in ((50 * GIB, "good"), (5 * GIB, "warning"), (GIB / 2, "bad")):
        rows = judge_node(NodeSaid("a", changed(VALUES, {"places": {COPIES: PLACE | {"free": free}}})), wanted)
        [found] = rows_of(COPIES, rows)
        assert (found.level, "TMPDIR" in (found.mend or "")) == (level, level != "good")
        assert rows_of(OUT, rows) == []
    assert rows_of(COPIES, judge_node(NodeSaid("a", VALUES), Wanted())) == []


def test_notice_of_the_machines_end_is_told_while_its_file_lies_there(tmp_path: Path) -> None:
    file = tmp_path / "notice"
    assert notice_facts({NOTICE: str(file)}) is None
    assert rows_of(NOTICE, judge_node(NodeSaid("a", VALUES), Wanted())) == []
    file.touch()
    for hours, level in ((0.1, "warning"), (30, "bad")):  # no machine has been about to go since yesterday
        os.utime(file, times=(then := time.time() - hours * 3600, then))
        [found] = rows_of(
            NOTICE, judge_node(NodeSaid("a", VALUES | {"notice": notice_facts({NOTICE: str(file)})}), Wanted())
        )
        assert (found.level, found.node) == (level, "a")
        assert str(file) in found.found and ("6 min" in found.found or "30 h" in found.found)
        assert "remove that file" in (found.mend or "")


def test_a_missing_package_is_bad_where_it_is_used() -> None:
    node = NodeSaid("a", changed(VALUES, {"packages": ["prodigyopt", "schedulefree"]}))
    levels = [one.level for one in rows_of("optimizers", judge_node(node, Wanted(optimizer="prodigy")))]
    assert levels == ["bad", "warning"]


def test_a_fact_that_cannot_be_had_is_bad_and_stops_no_other() -> None:
    faults = {"gpus": "gave no answer in 60 s", "places": "gave no answer in 30 s"}
    rows = judge_node(NodeSaid("a", {"host": VALUES["host"]}, faults), Wanted())
    assert rows_of("memory", rows)[0].level == "good"
    for check in ("GPU", OUT, RAY_FOLDER, CACHE):
        [found] = rows_of(check, rows)
        assert found.level == "bad"
        assert "gave no answer" in found.found
        assert found.mend


def test_a_node_that_says_nothing_is_told_once() -> None:
    [found] = judge_node(NodeSaid("b", {}, fault="ModuleNotFoundError: No module named 'raylora'"), Wanted())
    assert (found.check, found.node, found.level) == ("node", "b", "bad")
    assert "No module named 'raylora'" in found.found
    assert "install the same raylora there" in (found.mend or "")


def test_optimizers_of_other_packages_are_known() -> None:
    """As the table of optimizers has them."""
    kinds: dict[str, list[str]] = {}
    for name, recipe in OPTIMIZERS.items():
        kinds.setdefault(recipe.path.split(":")[0].split(".")[0], []).append(name)
    others = {package: tuple(names) for package, names in kinds.items() if package not in ("torch", "transformers")}
    assert others == OPTIMIZER_PACKAGES


def test_what_is_wanted_knows_all_families_and_formats() -> None:
    families = Experiment.model_fields["model"].annotation.model_fields["family"]  # type: ignore[union-attr]
    assert set(NUMBERS) - {"demo"} == set(families.annotation.__args__)  # type: ignore[union-attr]
    assert set(BYTES) == {"no", "fp16", "bf16"}
    assert list(FACTS) == ["host", "places", "notice", "versions", "packages", "gpus", "bitsandbytes"]


def heard(**values: Any) -> Heard:
    nodes = [{"id": "1", "host": "a", "address": "10.0.0.1", "gpus": 0, "is_head": True}]
    return Heard({"ray": "10.0.0.1:6379", "nodes": nodes, "state": 1, "guards": GUARDED} | values)


GUARDED = {"exposed": ["its main port (6379)"], "wants_token": True}


def test_ray_that_answers_is_good() -> None:
    rows = judge_ray(heard(), "10.0.0.1:6379")
    assert [(one.check, one.level) for one in rows] == [("Ray", "good"), ("State API", "good"), ("access", "good")]
    assert rows[0].found == "answers at 10.0.0.1:6379, 1 node"
    assert judge_ray(heard(), None)[0].found == "starts here"


def test_ray_that_does_not_answer_is_bad_with_the_mend_of_its_message() -> None:
    fault = "--address 10.0.0.1:6379: no Ray cluster answers there (timed out); start it"
    [found] = judge_ray(Heard(faults={"ray": fault}), "10.0.0.1:6379")
    assert (found.level, found.mend) == ("bad", "start it")
    assert found.found.endswith("(timed out)")
    [silent] = judge_ray(Heard(faults={"ray": "gave no answer in 90 s"}), "10.0.0.1:6379")
    assert silent.level == "bad"
    assert "start the cluster" in (silent.mend or "")


@pytest.mark.parametrize(
    ("exposed", "wants_token", "level"),
    [
        (["its dashboard (8265)"], False, "warning"),
        (["its dashboard (8265)"], True, "good"),
        ([], False, "good"),
    ],
)
def test_an_open_door_without_a_token_is_a_warning(exposed: list[str], wants_token: bool, level: str) -> None:
    guards = {"exposed": exposed, "wants_token": wants_token}
    found = judge_ray(heard(guards=guards), "10.0.0.1:6379")[2]
    assert found.level == level
    if level == "warning":
        assert "its dashboard (8265)" in found.found
        assert "RAY_AUTH_MODE=token" in (found.mend or "")


def test_a_silent_state_api_is_a_warning() -> None:
    silent = heard()
    silent.faults["state"] = silent.values.pop("state") and "gave no answer in 30 s"
    found = judge_ray(silent, "10.0.0.1:6379")[1]
    assert found.level == "warning"
    assert "ray[default]" in (found.mend or "")


SAME = dict.fromkeys(("python", "raylora", *PACKAGES), "1")


def test_versions_must_agree() -> None:
    [agreed] = judge_versions({"a": SAME, "b": SAME})
    assert agreed.level == "good"
    assert agreed.found.startswith("the same everywhere: python 1, raylora 1, ray 1")
    differing = {"a": SAME, "b": SAME, "c": SAME | {"torch": "2", "peft": None}}
    missing, other = sorted(judge_versions(differing), key=lambda one: "not installed" not in one.found)
    assert (missing.node, missing.level, missing.found) == ("c", "bad", "peft is not installed")
    assert (other.node, other.level, other.found) == ("c", "bad", "torch 2, and 1 on most others")
    assert "torch 1" in (other.mend or "")


@pytest.mark.parametrize(
    ("ahead", "doubt", "level", "found"),
    [
        (0.1, 0.01, "good", "agrees"),
        (5.0, 4.0, "good", "within 4 s"),
        (5.0, 0.5, "warning", "5 s ahead of"),
        (-5.0, 0.5, "warning", "5 s behind"),
        (-3600.0, 0.5, "bad", "3600 s behind"),
    ],
)
def test_clocks_must_agree_as_far_as_that_can_be_said(ahead: float, doubt: float, level: str, found: str) -> None:
    [clock] = judge_clocks({"1": Said((ahead, doubt))}, {"1": "a"})
    assert (clock.level, clock.node) == (level, "a")
    assert found in clock.found
    assert bool(clock.mend) == (level != "good")


def test_a_clock_that_was_not_told_is_not_checked() -> None:
    [clock] = judge_clocks({"1": Said(fault="gave no answer in 60 s")}, {"1": "a"})
    assert (clock.level, clock.found) == ("not checked", "gave no answer in 60 s")


NAMED = {"1": "a", "2": "b"}
SEEN: dict[str, Any] = {
    "place": "/shared",
    "written": {"1": Said(), "2": Said()},
    "unseen": {"1": Said([]), "2": Said([])},
    "unreadable": {"1": Said([]), "2": Said([])},
}


@pytest.mark.parametrize(
    ("changes", "node", "found"),
    [
        ({"written": {"2": Said(fault="PermissionError: denied")}}, "b", "can't be written (PermissionError: denied)"),
        ({"unseen": {"1": Said(["2"])}}, "a", "doesn't see what b wrote to /shared"),
        ({"unseen": {"1": Said(fault="gave no answer in 60 s")}}, "a", "/shared: gave no answer in 60 s"),
        ({"unreadable": {"2": Said(["the dataset /photos"])}}, "b", "the dataset /photos isn't seen there"),
    ],
)
def test_a_folder_that_is_not_shared_is_told_by_node(changes: dict[str, Any], node: str, found: str) -> None:
    [row_] = judge_shared(SEEN, NAMED)
    assert row_.level == "good"
    [row_] = judge_shared(changed(SEEN, changes), NAMED)
    assert (row_.level, row_.node) == ("bad", node)
    assert found in row_.found
    assert "NFS" in (row_.mend or "")


def test_nodes_are_named_by_their_hosts_and_apart() -> None:
    nodes = [
        {"id": "1" * 20, "host": "a", "address": "10.0.0.1"},
        {"id": "2" * 20, "host": "b", "address": "10.0.0.2"},
        {"id": "3" * 20, "host": "b", "address": "10.0.0.3"},
        {"id": "4" * 20, "host": "c", "address": "10.0.0.4"},
        {"id": "5" * 20, "host": "c", "address": "10.0.0.4"},
    ]
    assert list(names(nodes).values()) == ["a", "b (10.0.0.2)", "b (10.0.0.3)", "c (44444444)", "c (55555555)"]


PICTURES = {"pictures": 9, "problems": [], "warnings": []}
SERVICES: dict[str, Any] = {
    "dataset": PICTURES,
    "base model": {"reference": "a/b", "where": "cache", "silent": None},
    "encoder": {"reference": "c/d", "where": "hub", "silent": None},
    "hub": None,
    "mlflow": {"place": "/out", "left": None, "reason": None},
    "storage": "s3://bucket/run",
}
NAMING = Experiment().with_params({"dataset.path": "photos", "model.base_model": "a/b"})


def test_services_that_answer_are_good() -> None:
    rows = judge_services(Heard(SERVICES), NAMING)
    assert {one.check: one.level for one in rows} == dict.fromkeys(
        ("dataset", "base model", "encoder", "hub", "MLflow"), "good"
    )


def test_a_search_s_storage_is_told_where_one_is_named() -> None:
    experiment = NAMING.with_params({"search.storage": "s3://bucket/run"})
    assert [one.level for one in rows_of("storage", judge_services(Heard(SERVICES), experiment))] == ["good"]
    assert rows_of("storage", judge_services(Heard(SERVICES), NAMING)) == []


def test_what_is_not_named_is_not_checked() -> None:
    rows = judge_services(Heard(SERVICES), Experiment())
    assert [one.check for one in rows] == ["dataset", "base model", "hub", "MLflow"]
    unchecked = {one.check: one.mend for one in rows if one.level == "not checked"}
    assert unchecked == {"dataset": "give --dataset", "base model": "give --base-model"}


@pytest.mark.parametrize(
    ("name", "value", "levels", "found", "mend"),
    [
        ("hub", "HF_HUB_OFFLINE is set", ["warning"], "HF_HUB_OFFLINE is set", "go online"),
        ("encoder", SERVICES["encoder"] | {"silent": "no way"}, ["bad"], "not downloaded, and no way", "folders"),
        ("dataset", PICTURES | {"problems": ["x: bad; mend x", "y: bad"]}, ["bad", "bad"], "x: bad", "mend x"),
        ("dataset", PICTURES | {"warnings": ["bare; using it"]}, ["good", "warning"], "9 images", ""),
    ],
)
def test_what_services_lack_is_told(name: str, value: Any, levels: list[str], found: str, mend: str) -> None:
    rows = rows_of(name, judge_services(Heard(SERVICES | {name: value}), NAMING))
    assert [one.level for one in rows] == levels
    assert found in rows[0].found
    assert mend in (rows[0].mend or "")


@pytest.mark.parametrize(("reason", "why"), [(None, "there"), ("access denied", "there (access denied)")])
def test_a_store_that_deletes_nothing_is_good_enough_for_a_search(reason: str | None, why: str) -> None:
    experiment = NAMING.with_params({"tracking.uri": "http://mlflow:5000"})
    written = {"place": "abfss://runs", "left": "abfss://runs/1/artifacts/raylora-doctor.txt", "reason": reason}
    [found] = rows_of("MLflow", judge_services(Heard(SERVICES | {"mlflow": written}), experiment))
    assert found.level == "warning"
    assert (
        found.found == f"http://mlflow:5000 takes runs and files, which go to abfss://runs, and can't be deleted {why}"
    )
    assert "abfss://runs/1/artifacts/raylora-doctor.txt" in (found.mend or "")


def test_a_service_that_hangs_is_bad_with_a_mend() -> None:
    said = Heard({name: value for name, value in SERVICES.items() if name != "mlflow"})
    said.faults["mlflow"] = "gave no answer in 180 s"
    [found] = rows_of("MLflow", judge_services(said, NAMING))
    assert (found.level, found.mend) == ("bad", "start the server, or mend the address")


def test_the_status_is_1_where_anything_is_bad() -> None:
    levels = {"good": 0, "warning": 0, "not checked": 0, "bad": 1}
    for level, status in levels.items():
        assert exit_status([Row("a", "good", ""), Row("b", level, "")]) == status  # type: ignore[arg-type]
    rows = [Row("", level, "") for level in ("good", "bad", "warning", "good")]  # type: ignore[arg-type]
    assert counted(rows) == "1 bad, 1 warning, 2 good"


@pytest.mark.parametrize("uri", ["postgresql://me:p@SECRET@host", "https://blob/x?sig=SECRET", "http://SECRET@host"])
def test_passwords_are_not_told(uri: str) -> None:
    """By the rule of all messages; what is shown may be a server's own address, or another library's words."""
    found = row("MLflow", failed(f"{uri} gives no answer; ask {uri}", "x"))
    assert found.found.endswith(" gives no answer") and (found.mend or "").startswith("ask ")
    assert "SECRET" not in json.dumps(found.as_dict())
