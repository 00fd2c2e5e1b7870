"""Look at everything at once, and judge what was found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raylora.bundled import DEMO_NAME
from raylora.config import Experiment
from raylora.dataset.folder import resolve_dataset
from raylora.execution.doctor.asking import Heard, Inquiry, Said, hear
from raylora.execution.doctor.judge_cluster import HERE, judge_clocks, judge_ray, judge_shared, judge_versions, names
from raylora.execution.doctor.judge_node import NodeSaid, judge_driver, judge_node
from raylora.execution.doctor.judge_services import CHECKS, judge_services, unasked
from raylora.execution.doctor.node_facts import OUT, RAY_FOLDER, inquiry_here
from raylora.execution.doctor.questions import (
    CLUSTER,
    CLUSTER_FACTS,
    NODE,
    RAY_FACTS,
    SERVICES,
    ClusterQuestion,
    NodeQuestion,
    ServiceQuestion,
)
from raylora.execution.doctor.rows import Row, row, unchecked
from raylora.execution.doctor.wanted import Wanted
from raylora.storage import is_uri

LOCAL = "local"
APART = (("mlflow",), ("storage",), ("base model", "encoder", "hub"), ("dataset", "regularization"))
"""What is looked at side by side."""


def examine(experiment: Experiment, out: Path, address: str | None) -> list[Row]:
    """Look at this machine or a cluster, and at what a search would use there; nothing is left behind.

    Args:
        experiment: complete or not: what it names is looked at.
        out: absolute.

    Raises:
        ConfigError: the address can't be one.
    """
    alone = address in (None, LOCAL)
    if not alone:
        from raylora.execution.cluster import host_and_port

        host_and_port(address)
    services = [Inquiry(SERVICES, ServiceQuestion(experiment, out), _asked(part, experiment)) for part in APART]
    question = cluster_question(experiment, out, address)
    ray = Inquiry(CLUSTER, question, RAY_FACTS if alone else CLUSTER_FACTS, goes_on=False)
    here = [_inquiry_here(question)] if alone else []
    driver = Inquiry(NODE, {OUT: str(out)}, [] if alone or question.shares_out else ["places"])
    hear([*here, driver, ray, *services])
    if not alone and not _nodes(ray.heard):
        here = [_inquiry_here(question)]
        hear(here)
    heard = Heard()
    for service in services:
        heard.values |= service.heard.values
        heard.faults |= service.heard.faults
    local = here[0].heard if here else None
    return judge_all(question, Answers(ray.heard, local, driver.heard, heard), experiment)


@dataclass(frozen=True)
class Answers:
    """What was said."""

    ray: Heard
    here: Heard | None
    """Of this machine, where it is judged in place of a cluster's nodes: there is no cluster, or none that answers."""
    driver: Heard
    """Of this machine as the driver's, where that alone writes to the output folder."""
    services: Heard


def cluster_question(experiment: Experiment, out: Path, address: str | None) -> ClusterQuestion:
    """What a search needs of its nodes: with `search.storage` no shared output folder, but room for copies."""
    storage, dataset = experiment.search.storage, experiment.dataset
    keeps_copies = storage is not None or is_uri(dataset.path) or is_uri(dataset.regularization)
    return ClusterQuestion(address, out, _reads(experiment), storage is None, keeps_copies)


def judge_all(question: ClusterQuestion, answers: Answers, experiment: Experiment) -> list[Row]:
    """The answers as rows: each node's, Ray's, those of all nodes together, the services'."""
    alone, wanted = question.address in (None, LOCAL), _wanted(experiment, question)
    nodes = _nodes(answers.ray)
    if answers.here is not None:
        nodes = [NodeSaid(os.uname().nodename, answers.here.values, answers.here.faults)]
        wanted = replace(wanted, writes_out=True)
    rows = [found for node in nodes for found in judge_node(node, wanted)]
    if not wanted.writes_out:
        rows += judge_driver(NodeSaid(os.uname().nodename, answers.driver.values, answers.driver.faults))
    rows += judge_ray(answers.ray, None if alone else question.address)
    return rows + _of_all(nodes, answers.ray, alone) + judge_services(answers.services, experiment)


def _asked(part: Sequence[str], experiment: Experiment) -> list[str]:
    assert set(part) <= set(CHECKS)
    return [name for name in part if name not in unasked(experiment)]


def _inquiry_here(question: ClusterQuestion) -> Inquiry:
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"
    return inquiry_here(NodeQuestion({OUT: str(question.out), RAY_FOLDER: str(folder)}, question.keeps_copies))


def _nodes(heard: Heard) -> list[NodeSaid]:
    """The nodes of a cluster; none where no cluster was asked, or none answered."""
    facts: Mapping[str, Said] = heard.values.get("facts", {})
    named = names(heard.values.get("nodes", ()))
    gpus = {node["id"]: node["gpus"] for node in heard.values.get("nodes", ())}
    said = []
    for node, answered in facts.items():
        values, faults = answered.value or ({}, {})
        said.append(NodeSaid(named[node], values, faults, answered.fault, gpus[node], any(gpus.values())))
    return said


def _of_all(nodes: Sequence[NodeSaid], heard: Heard, alone: bool) -> list[Row]:
    """What can only be said of all nodes together."""
    versions = {node.name: node.values["versions"] for node in nodes if "versions" in node.values}
    rows = judge_versions(versions | ({HERE: heard.values["versions"]} if "versions" in heard.values else {}))
    if alone:
        return rows
    named = names(heard.values.get("nodes", ()))
    for check, fact, judge in (("clock", "clocks", judge_clocks), ("shared folder", "shared", judge_shared)):
        if fact in heard.values:
            rows += judge(heard.values[fact], named)
        else:
            rows.append(row(check, unchecked(heard.faults.get(fact, "Ray doesn't answer"))))
    return rows


def _wanted(experiment: Experiment, question: ClusterQuestion) -> Wanted:
    model = experiment.model
    family = DEMO_NAME if model.base_model == DEMO_NAME else model.family
    precision, optimizer = experiment.training.mixed_precision, experiment.optimizer.name
    return Wanted(family, precision, optimizer, question.shares_out, question.keeps_copies)


def _reads(experiment: Experiment) -> dict[str, Path]:
    """What trials read from the disk. What is bundled comes with raylora; what isn't on this disk is the hub's."""
    named: dict[str, Any] = {
        "dataset": experiment.dataset.path,
        "regularization": experiment.dataset.regularization,
        "base model": experiment.model.base_model,
        "encoder": experiment.evaluation.encoder,
    }
    places = {what: resolve_dataset(name) for what, name in named.items() if name and name != DEMO_NAME}
    return {f"the {what} {place}": place for what, place in places.items() if place.exists()}
