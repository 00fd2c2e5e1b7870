"""Ray's address, and how its CPUs and GPUs are shared out among trials."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from raylora.config import SearchConfig
from raylora.errors import ConfigError

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
"""Ray's own output and loggers off: raylora has its own. Ctrl-C must reach raylora, not Tune."""


KNOCK_S = 5


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
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else {"include_dashboard": with_state_api, "dashboard_host": "127.0.0.1"}),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--address {address}: no Ray cluster answers there ({error})") from None
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address: str | None) -> None:
    """Knock at a Ray address, since Ray itself waits for minutes.

    Raises:
        ConfigError: nobody answers there.
    """
    match = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or "")
    if not match:
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--address {address}: no Ray cluster answers there ({error}); start it, mend the address, "
            "or leave --address out to use this machine"
        ) from None


def share_out(search: SearchConfig, resources: dict[str, float]) -> Share:
    """Divide a cluster's CPUs and GPUs. Without a GPU a trial's workers are CPU cores.

    Raises:
        ConfigError: a trial wants more than there is.
    """
    gpus, cpus = resources.get("GPU", 0.0), max(1, int(resources.get("CPU", 1)))
    wanted = search.gpus_per_trial
    workers = max(1, math.ceil(wanted))
    if gpus:
        if wanted > gpus:
            raise ConfigError(f"search.gpus_per_trial {wanted:g}: the cluster has {gpus:g} GPUs")
        fits = int(gpus / wanted)
    else:
        if workers > cpus:
            raise ConfigError(f"search.gpus_per_trial {wanted:g}: there is no GPU, and only {cpus} CPU cores")
        fits = cpus // workers
    concurrent = max(1, min(fits, search.max_concurrent or fits, search.trials))
    cpus_each = max(1, cpus // (concurrent * workers))
    return Share(cpus=cpus_each, gpus=wanted if gpus else 0.0, workers=workers, concurrent=concurrent)
