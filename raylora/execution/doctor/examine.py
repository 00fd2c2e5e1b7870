"""Look at everything at once, and judge what was found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raylora.bundled import DEMO_NAME
from raylora.config import Experiment
from raylora.dataset.folder import resolve_dataset
from raylora.execution.doctor.asking import Heard, Inquiry, Said, hear
from raylora.execution.doctor.judge_cluster import HERE, judge_clocks, judge_ray, judge_shared, judge_versions, names
from raylora.execution.doctor.judge_node import NodeSaid, judge_node
from raylora.execution.doctor.judge_services import CHECKS, judge_services, unasked
from raylora.execution.doctor.node_facts import FACTS, OUT, RAY_FOLDER
from raylora.execution.doctor.questions import (
    CLUSTER,
    CLUSTER_FACTS,
    NODE,
    RAY_FACTS,
    SERVICES,
    ClusterQuestion,
    ServiceQuestion,
)
from raylora.execution.doctor.rows import Row, row, unchecked
from raylora.execution.doctor.wanted import Wanted

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
    facts = RAY_FACTS if alone else CLUSTER_FACTS
    ray = Inquiry(CLUSTER, ClusterQuestion(address, out, _reads(experiment)), facts, goes_on=False)
    here = [_inquiry_here(out)] if alone else []
    hear([*here, ray, *services])
    nodes = _nodes(ray.heard)
    if not nodes:
        here = here or [_inquiry_here(out)]
        hear(here)
        nodes = [NodeSaid(os.uname().nodename, here[0].heard.values, here[0].heard.faults)]
    heard = Heard()
    for service in services:
        heard.values |= service.heard.values
        heard.faults |= service.heard.faults
    wanted = _wanted(experiment)
    rows = [found for node in nodes for found in judge_node(node, wanted)]
    rows += judge_ray(ray.heard, None if alone else address)
    return rows + _of_all(nodes, ray.heard, alone) + judge_services(heard, experiment)


def _asked(part: Sequence[str], experiment: Experiment) -> list[str]:
    assert set(part) <= set(CHECKS)
    return [name for name in part if name not in unasked(experiment)]


def _inquiry_here(out: Path) -> Inquiry:
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"
    return Inquiry(NODE, {OUT: str(out), RAY_FOLDER: str(folder)}, list(FACTS))


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


def _wanted(experiment: Experiment) -> Wanted:
    model = experiment.model
    family = DEMO_NAME if model.base_model == DEMO_NAME else model.family
    return Wanted(family, experiment.training.mixed_precision, experiment.optimizer.name)


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
