"""What every node of the cluster is asked to do for a search whose machines share no disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylora.config import Experiment
from raylora.errors import OutputError
from raylora.execution.mirror import Mirror, reach, remote_datasets

Answer = TypeVar("Answer")


def on_every_node(ask: Callable[[], Answer]) -> dict[str, Answer]:
    """What each living node of the connected cluster answers, by its host's name; all are asked at once."""

    def work() -> Answer:  # Ray takes no other callables than functions
        return ask()

    remote = ray.remote(num_cpus=0)(work)
    asked = [
        (node, remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote())
        for node in ray.nodes()
        if node["Alive"]
    ]
    return {f"{node['NodeManagerHostname']}, {node['NodeID'][:8]}": ray.get(answer) for node, answer in asked}


def check_reached(mirror: Mirror | None, experiment: Experiment) -> None:
    """Whether every node of the connected cluster can use the storages of a search.

    Raises:
        OutputError: one can't.
    """
    datasets = remote_datasets(experiment)
    if mirror is None and not datasets:
        return
    for node, fault in on_every_node(partial(reach, mirror, datasets)).items():
        if fault:
            raise OutputError(
                f"{fault}; so says the cluster's node {node}: every node needs credentials and endpoint of its own, in "
                "the environment in which Ray was started there, or as the role of its machine"
            )


def forget_copies(mirror: Mirror) -> None:
    """Remove what the nodes have kept of a search that is over; what a lost one has, its system removes some day."""
    with suppress(ray.exceptions.RayError):
        on_every_node(mirror.forget)
