"""Nodes that a cluster doesn't have yet, but may get: what its autoscaler was told that it may add.

Ray itself keeps no such list where a program could ask for it. A cluster of `ray up` has its file on the head node, and
one on Kubernetes its RayCluster, which the head's pod may read where KubeRay's autoscaler runs beside it. Managed
clusters tell the head (`ClusterConfig`, src/ray/protobuf/autoscaler.proto). On the head, where the driver belongs, all
three are at hand; elsewhere a cluster counts as it stands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

from raylora.execution.cluster import node_resources
from raylora.execution.share import Node

BOOTSTRAP_FILE = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts a cluster's file on its head node (ray/autoscaler/_private/command_runner.py)."""
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where Kubernetes tells a pod its namespace."""
UNLIMITED = 64
"""Nodes of a kind whose number nobody limits."""


@dataclass(frozen=True)
class NodeType:
    """A kind of node that an autoscaler may add, and how many of them there may be."""

    resources: Node
    most: int


@dataclass(frozen=True)
class Growth:
    """How far a cluster may grow: kinds of nodes, and how many of all kinds together beside the head."""

    types: Sequence[NodeType]
    most: int


def nodes_to_count_on() -> list[Node]:
    """What the connected cluster's nodes have, those among them that its autoscaler may still add."""
    living = node_resources()
    growth = _growth()
    return [*living, *still_to_come(living, growth)] if growth else list(living)


def still_to_come(living: Sequence[Node], growth: Growth) -> list[Node]:
    """The nodes that may join, GPU nodes first: as many of each kind as may be, less those that are there."""
    there = [_shape(node) for node in living]
    coming: list[Node] = []
    kinds = sorted(growth.types, key=lambda kind: _shape(kind.resources), reverse=True)
    for resources in [kind.resources for kind in kinds for _ in range(min(kind.most, growth.most))]:
        if _shape(resources) in there:
            there.remove(_shape(resources))
        else:
            coming.append(resources)
    joined = len(living) - len(there)
    return coming[: max(0, growth.most - joined)]


def _shape(node: Node) -> tuple[float, float]:
    """By what a node of a kind is known again: Ray adds resources of its own."""
    return node.get("GPU", 0), node.get("CPU", 0)


def _growth() -> Growth | None:
    """As the first source has it that knows; None where nobody does."""
    for source in (_reported, _of_ray_up, _of_kuberay):
        with suppress(Exception):  # a file half written, a pod that may not ask: the cluster then counts as it stands
            if growth := source():
                return growth
    return None


def _reported() -> Growth | None:
    """As a managed cluster's autoscaler has told the head."""
    config = ray._private.state.state.get_cluster_config()
    if config is None:
        return None
    groups = config.node_group_configs
    return Growth(
        [NodeType(dict(group.resources), UNLIMITED if group.max_count < 0 else group.max_count) for group in groups],
        UNLIMITED,
    )


def _of_ray_up() -> Growth | None:
    """As the cluster's file has it, if this is the head node of `ray up`."""
    file = BOOTSTRAP_FILE.expanduser()
    return growth_in(yaml.safe_load(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _of_kuberay() -> Growth | None:
    """As the RayCluster has it, if this is a pod of one; Ray's own autoscaler translates it in the same way."""
    name = os.environ.get("RAY_CLUSTER_NAME")
    if not name or not NAMESPACE_FILE.is_file():
        return None
    from ray.autoscaler._private.kuberay import autoscaling_config

    producer = autoscaling_config.AutoscalingConfigProducer(name, NAMESPACE_FILE.read_text(encoding="utf-8").strip())
    cluster = producer.kubernetes_api_client.get(f"rayclusters/{name}")  # its own way asks again for 25 seconds
    if not cluster["spec"].get("enableInTreeAutoscaling"):
        return None
    return growth_in(autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster))


def growth_in(config: Mapping[str, Any]) -> Growth:
    """How far an autoscaler's configuration lets a cluster grow."""
    most, head = config.get("max_workers", UNLIMITED), config.get("head_node_type")
    kinds = config.get("available_node_types", {}).items()
    return Growth(
        [NodeType(kind["resources"], kind.get("max_workers", most)) for name, kind in kinds
         if name != head and kind.get("resources")],
        most,
    )  # fmt: skip
