"""How a cluster's CPUs and GPUs are shared out among trials; without Ray."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raylora.config import SearchConfig
from raylora.errors import ConfigError

FEWEST_AT_ONCE = 2
PRECISION = 10_000
"""Ray counts resources in ten-thousandths (src/ray/common/scheduling/fixed_point.h)."""

Node = Mapping[str, float]
"""What a node has, as Ray names it: `CPU`, `GPU`."""


@dataclass(frozen=True)
class Share:
    """What one trial gets, and how many run at once."""

    cpus: float
    """Of each of its workers; a part of one where a node has more room for trials than cores."""
    gpus: float
    workers: int
    concurrent: int
    spans_nodes: bool = False
    """Whether the workers of a trial must be spread over nodes, since none has room for all."""

    @property
    def threads(self) -> int:
        """Of a worker's own arithmetic on the CPU: no more than OMP_NUM_THREADS says to the driver."""
        told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        cores = max(1, int(self.cpus))
        return min(cores, int(told)) if told.isdecimal() and int(told) else cores


def share_out(search: SearchConfig, nodes: Sequence[Node]) -> Share:
    """Divide a cluster's CPUs and GPUs, node by node. Without a GPU a trial's workers are CPU cores.

    Raises:
        ConfigError: a trial wants more than there is.
    """
    workers = max(1, math.ceil(search.gpus_per_trial))
    if any(node.get("GPU", 0) >= 1 for node in nodes):
        return _share_gpus(search, nodes, workers)
    return _share_cpus(search, [int(node.get("CPU", 0)) for node in nodes], workers)


def slots_per_gpu(gpus_per_trial: float) -> int:
    """How many trials a GPU has room for; 1 where a trial takes whole ones."""
    return int(1 / gpus_per_trial) if gpus_per_trial < 1 else 1


def _share_gpus(search: SearchConfig, nodes: Sequence[Node], workers: int) -> Share:
    """A worker gets a GPU or a part of one, and of its node's cores what is left when the node is full.

    A trial stays on one node wherever one has room for all its workers: gradients then cross no network, and trials
    take as long as each other.
    """
    wanted = search.gpus_per_trial
    slots = [int(node.get("GPU", 0)) * slots_per_gpu(wanted) for node in nodes]
    if sum(slots) < workers:
        raise ConfigError(f"search.gpus_per_trial {wanted:g}: the cluster has {sum(slots)} GPUs")
    if workers > 1 and not any(node.get("CPU") for node in nodes):
        raise ConfigError(
            f"search.gpus_per_trial {wanted:g}: no node offers a CPU core, and what starts a trial's workers needs "
            "a part of one; start a node with --num-cpus=1 or more"
        )
    spans = not any(count >= workers for count in slots)
    used = slots if spans else [count // workers * workers for count in slots]
    fits = sum(used) // workers
    concurrent = min(fits, search.max_concurrent or fits, search.trials)
    cores = [
        node.get("CPU", 0) / min(count, concurrent * workers) for node, count in zip(nodes, used, strict=True) if count
    ]
    return Share(_rounded_down(min(cores)), gpus=wanted, workers=workers, concurrent=concurrent, spans_nodes=spans)


def _rounded_down(cores: float) -> float:
    """Whole cores, or a part of one that Ray can count."""
    return int(cores) if cores >= 1 else math.floor(cores * PRECISION) / PRECISION


def _share_cpus(search: SearchConfig, cores: Sequence[int], workers: int) -> Share:
    """As many cores for each worker as still leave room for all.

    Unless `max_concurrent` says more, at most a quarter of the trials run at once: with all at once, none could
    learn from another.
    """
    if workers > sum(cores):
        raise ConfigError(
            f"search.gpus_per_trial {search.gpus_per_trial:g}: there is no GPU, and only {sum(cores)} CPU cores"
        )
    most = search.max_concurrent or max(FEWEST_AT_ONCE, search.trials // 4)
    concurrent = min(sum(cores) // workers, most, search.trials)
    needed = concurrent * workers
    cpus = next(size for size in range(max(cores), 0, -1) if sum(count // size for count in cores) >= needed)
    spans = sum(count // (cpus * workers) for count in cores) < concurrent
    return Share(cpus=cpus, gpus=0.0, workers=workers, concurrent=concurrent, spans_nodes=spans)
