"""Ray's address, and how its CPUs and GPUs are shared out among trials."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylora.config import SearchConfig
from raylora.errors import ConfigError, RayloraError, first_line
from raylora.execution.loopback import on_loopback

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),
}
"""Ray's own output, loggers and snapshots of a search off: raylora has its own. Ctrl-C must reach raylora, not Tune."""


LOCAL = "local"
"""As an address: a cluster of this machine alone, as without one."""
DRIVER_CPUS = 0.01
"""What starts a trial's workers must ask for something; they leave it this much of a core."""
KNOCK_S = 5
FEWEST_AT_ONCE = 2


@dataclass(frozen=True)
class Share:
    """What one trial gets, and how many run at once."""

    cpus: int
    gpus: float
    workers: int
    concurrent: int


@contextmanager
def connected(address: str | None, with_state_api: bool) -> Iterator[None]:
    """A Ray cluster: the one at `address`, else one of this machine that ends with the block.

    Args:
        with_state_api: start Ray's dashboard too, on loopback; a Train run inside a trial that is stopped early
            needs it to give its workers back.

    Raises:
        ConfigError: nothing answers at the address.
    """
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    on_terminate = signal.getsignal(signal.SIGTERM)
    is_own = address in (None, LOCAL)
    try:
        with on_loopback() if is_own else nullcontext():
            ray.init(
                address=address or LOCAL,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({"include_dashboard": with_state_api, "dashboard_host": "127.0.0.1"} if is_own else {}),
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        if is_own:
            raise RayloraError(f"Ray can't be started on this machine: {first_line(error)}") from error
        raise ConfigError(f"--address {address}: no Ray cluster answers there ({first_line(error)})") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own there, which ends without a word
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address: str | None) -> None:
    """Knock at a Ray address, since Ray itself waits for minutes.

    Raises:
        ConfigError: nobody answers there, or it is a Ray Client address or none at all.
    """
    if address in (None, LOCAL, "auto"):
        return
    if address.startswith("ray://"):
        raise ConfigError(
            f"--address {address}: a search can't run through Ray Client; "
            "start raylora on a machine of the cluster with --address auto"
        )
    match = re.fullmatch(r"([^:/]+):(\d+)", address)
    if not match:
        raise ConfigError(f"--address {address!r}: is no Ray address; give auto, local or HOST:PORT")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=KNOCK_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"--address {address}: no Ray cluster answers there ({error}); start it, mend the address, "
            "or give --address local to use this machine"
        ) from None


def device_line(search: SearchConfig, address: str | None) -> str:
    """What a search will run on, for its plan.

    Raises:
        ConfigError: a trial wants more than this machine has.
    """
    if address not in (None, LOCAL):
        return f"the Ray cluster at {address}"
    import torch

    from raylora.execution.trial import devices_here

    share = share_out(search, [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}])
    return f"{devices_here()}; {share.concurrent} {'trial' if share.concurrent == 1 else 'trials'} at once"


def node_resources() -> list[dict[str, float]]:
    """What each living node of the connected cluster has."""
    return [dict(node["Resources"]) for node in _living_nodes()]


def _living_nodes() -> list[dict[str, Any]]:
    """Of the connected cluster, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def check_shared(paths: Sequence[Path]) -> None:
    """Whether every node of the connected cluster sees these files and folders.

    Raises:
        ConfigError: some doesn't.
    """
    nodes = _living_nodes()
    look = ray.remote(num_cpus=0)(_missing)
    for node in nodes if len(nodes) > 1 else ():
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        if missing := ray.get(look.options(scheduling_strategy=here).remote(paths)):
            raise ConfigError(
                f"{missing[0]}: the cluster's node {node['NodeManagerHostname']} doesn't have it; every node needs "
                "output folder, images and model at the same place: put them on storage that all share"
            )


def _missing(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]


def share_out(search: SearchConfig, nodes: Sequence[Mapping[str, float]]) -> Share:
    """Divide a cluster's CPUs and GPUs, node by node. Without a GPU a trial's workers are CPU cores.

    Raises:
        ConfigError: a trial wants more than there is.
    """
    workers = max(1, math.ceil(search.gpus_per_trial))
    if any(node.get("GPU") for node in nodes):
        return _share_gpus(search, [node for node in nodes if node.get("GPU")], workers)
    return _share_cpus(search, [int(node.get("CPU", 0)) for node in nodes], workers)


def _share_gpus(search: SearchConfig, nodes: Sequence[Mapping[str, float]], workers: int) -> Share:
    """A worker gets a GPU or a part of one, and of its node's cores what is left when the node is full."""
    wanted = search.gpus_per_trial
    slots = [int(node["GPU"]) * (int(1 / wanted) if wanted < 1 else 1) for node in nodes]
    if sum(slots) < workers:
        raise ConfigError(f"search.gpus_per_trial {wanted:g}: the cluster has {sum(slots)} GPUs")
    fits = sum(slots) // workers
    concurrent = min(fits, search.max_concurrent or fits, search.trials)
    cpus = [
        int(node.get("CPU", 1)) // min(count, concurrent * workers) for node, count in zip(nodes, slots, strict=True)
    ]
    return Share(cpus=max(1, min(cpus)), gpus=wanted, workers=workers, concurrent=concurrent)


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
    return Share(cpus=cpus, gpus=0.0, workers=workers, concurrent=concurrent)
