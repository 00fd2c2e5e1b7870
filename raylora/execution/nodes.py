"""What every node of a cluster is asked before a search, and told after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylora.config import Experiment
from raylora.errors import ConfigError, OutputError
from raylora.execution.cluster import living_nodes
from raylora.execution.losing import words_of_loss
from raylora.execution.mirror import Mirror, reach, remote_datasets

ANSWER_S = 180.0
"""For all nodes together: a process must be started on each, on a machine that may be busy."""

Answer = TypeVar("Answer")


def on_every_node(ask: Callable[[], Answer], limit_s: float = ANSWER_S) -> dict[str, Answer]:
    """What each living node of the connected cluster answers, by its host's name; all are asked at once.

    Raises:
        ConfigError: one gives no answer, as without raylora or with a disk that hangs, or has just died.
    """

    def work() -> Answer:  # Ray takes no other callables than functions
        return ask()

    remote, until_s = ray.remote(num_cpus=0)(work), time.monotonic() + limit_s
    asked = [
        (node, remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote())
        for node in living_nodes()
    ]
    told = {}
    for node, answer in asked:
        name = f"{node['NodeManagerHostname']}, {node['NodeID'][:8]}"
        told[name] = _answer_of(name, answer, max(0.0, until_s - time.monotonic()))
    return told


def _answer_of(name: str, answer: Any, left_s: float) -> Any:
    try:
        return ray.get(answer, timeout=left_s)
    except GetTimeoutError:
        why = "gives no answer"
    except RayTaskError as error:
        why = f"can't do raylora's work ({words_of_loss(str(error))})"
    except RayError as error:
        why = f"gives no answer ({words_of_loss(str(error))})"
    raise ConfigError(
        f"the cluster's node {name} {why}; `raylora doctor --address auto`, typed on the cluster, tells what it lacks: "
        "every node needs the same Python with raylora"
    )


def check_shared(paths: Sequence[Path]) -> None:
    """Whether every node of the connected cluster sees these files and folders.

    Raises:
        ConfigError: some doesn't, or gives no answer.
    """
    if len(living_nodes()) < 2:
        return
    for node, missing in on_every_node(partial(_missing, paths)).items():
        if missing:
            raise ConfigError(
                f"{missing[0]}: the cluster's node {node} doesn't have it; every node needs output folder, images and "
                "model at the same place: put them on storage that all share, or have search.storage keep what the "
                "output folder would, and give the images as s3://…"
            )


def _missing(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]


def check_reached(mirror: Mirror | None, experiment: Experiment) -> None:
    """Whether every node of the connected cluster can use the storages of a search.

    Raises:
        OutputError: one can't.
        ConfigError: one gives no answer.
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
    """Remove what the nodes have kept of a search that is over; what a lost one has, its system removes some day.

    A node that gives no answer holds up nothing: the search is finished.
    """
    with suppress(ConfigError, RayError):
        on_every_node(mirror.forget)
