"""Nodes that a cluster may still get, and what search counts on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config

from raylora.config import SearchConfig
from raylora.execution import autoscaling
from raylora.execution.autoscaling import Growth, NodeType, growth_in, nodes_to_count_on, still_to_come
from raylora.execution.share import share_out

HEAD = {"CPU": 4.0, "node:__internal_head__": 1.0}
GPU_NODE = {"CPU": 16, "GPU": 4}
CPU_NODE = {"CPU": 8}

RAY_UP = {
    "max_workers": 3,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 4}, "node_config": {}},
        "cpus": {"resources": CPU_NODE, "max_workers": 2},
        "gpus": {"resources": GPU_NODE, "max_workers": 2},
        "by the cloud": {"node_config": {}},
    },
}
"""As `ray up` leaves it on the head; of the last kind the cloud says the resources, and nobody here."""


def group(name: str, most: int, limits: dict[str, Any]) -> dict[str, Any]:
    pod = {"spec": {"containers": [{"name": "ray", "resources": {"limits": limits}}]}}
    return {"groupName": name, "minReplicas": 0, "maxReplicas": most, "rayStartParams": {}, "template": pod}


RAY_CLUSTER = {
    "metadata": {"name": "raylora", "namespace": "default"},
    "spec": {
        "enableInTreeAutoscaling": True,
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": group("", 0, {"cpu": 4})["template"]},
        "workerGroupSpecs": [group("gpus", 5, {"cpu": 8, "memory": "64Gi", "nvidia.com/gpu": 1})],
    },
}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of no cluster, with one CPU node that lives."""
    monkeypatch.setattr(autoscaling, "node_resources", lambda: [HEAD])
    monkeypatch.setattr(autoscaling, "BOOTSTRAP_FILE", tmp_path / "ray_bootstrap_config.yaml")
    monkeypatch.setattr(autoscaling, "NAMESPACE_FILE", tmp_path / "namespace")
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: None)


def test_a_cluster_that_nobody_lets_grow_counts_as_it_stands() -> None:
    assert nodes_to_count_on() == [HEAD]


def test_ray_up_says_what_may_come(tmp_path: Path) -> None:
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(RAY_UP))
    assert nodes_to_count_on() == [HEAD, GPU_NODE, GPU_NODE, CPU_NODE]  # three in all
    share = share_out(SearchConfig(trials=20), nodes_to_count_on())
    assert (share.concurrent, share.gpus, share.cpus) == (8, 1, 4)


def test_a_file_that_says_nothing_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "ray_bootstrap_config.yaml").write_text("available_node_types: [")
    assert nodes_to_count_on() == [HEAD]


@pytest.mark.parametrize("grows", [True, False])
def test_kuberay_says_what_may_come(grows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "namespace").write_text("default")
    monkeypatch.setenv("RAY_CLUSTER_NAME", "raylora")
    cluster = {**RAY_CLUSTER, "spec": {**RAY_CLUSTER["spec"], "enableInTreeAutoscaling": grows}}
    client = autoscaling_config.node_provider.KubernetesHttpApiClient
    monkeypatch.setattr(client, "get", lambda _, path: {"rayclusters/raylora": cluster}[path])
    coming = [node["GPU"] for node in nodes_to_count_on()[1:]]
    assert coming == ([1] * 5 if grows else [])


def test_a_managed_cluster_tells_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

    config = ClusterConfig(
        node_group_configs=[
            NodeGroupConfig(resources={"CPU": 8, "GPU": 2}, max_count=3),
            NodeGroupConfig(resources={"CPU": 8}, max_count=-1),
        ]
    )
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: config)
    found = nodes_to_count_on()
    assert [node.get("GPU", 0) for node in found[:5]] == [0, 2, 2, 2, 0]
    assert len(found) == 1 + autoscaling.UNLIMITED


@pytest.mark.parametrize(
    ("living", "expected"),
    [
        ([HEAD], [GPU_NODE, GPU_NODE, CPU_NODE]),
        ([HEAD, {**GPU_NODE, "node:10.0.0.2": 1.0}], [GPU_NODE, CPU_NODE]),
        ([HEAD, GPU_NODE, GPU_NODE, CPU_NODE], []),
        ([HEAD, CPU_NODE, CPU_NODE], [GPU_NODE]),
        ([HEAD, {"CPU": 2, "GPU": 1}], [GPU_NODE, GPU_NODE, CPU_NODE]),
    ],
)
def test_nodes_that_have_joined_are_not_counted_twice(living: list[Any], expected: list[Any]) -> None:
    assert still_to_come(living, growth_in(RAY_UP)) == expected


def test_a_kind_without_a_number_may_be_all_of_them() -> None:
    growth = growth_in({"max_workers": 2, "available_node_types": {"gpus": {"resources": GPU_NODE}}})
    assert growth == Growth([NodeType(GPU_NODE, 2)], 2)
