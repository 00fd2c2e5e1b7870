"""Ray's address, and what the nodes of its cluster have."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray._private.node import Node

from raylora.config import SearchConfig
from raylora.errors import ConfigError, RayloraError, ends_of, first_line
from raylora.execution.loopback import on_loopback
from raylora.execution.share import Share, share_out

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
UNHEARD: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
TOO_SLOW = re.compile(
    r"timed out (during startup|waiting for file)|The last \d+ lines of .*dashboard|Failed to read dashboard",
    re.IGNORECASE,
)
"""What Ray 2.60 says where its node, its head or its dashboard wasn't there in time (`ray/_private/node.py` and
`services.py`)."""


@contextmanager
def connected(address: str | None, with_state_api: bool) -> Iterator[None]:
    """A Ray cluster: the one at `address`, else one of this machine that ends with the block.

    Args:
        with_state_api: start Ray's dashboard too, on loopback; a Train run inside a trial that is stopped early
            needs it to give its workers back.

    Raises:
        ConfigError: nothing answers at the address.
    """
    keep_quiet()
    ray_worker.print_to_stdstream = lambda *_, **__: None  # of lost workers, on stdout, whatever `log_to_driver` says
    with _handler_kept(signal.SIGTERM):  # Ray puts its own there, which ends without a word
        if address in (None, LOCAL):
            _start_own(with_state_api)
        else:
            _connect(address)
    try:
        yield
    finally:
        ray.shutdown()


def keep_quiet() -> None:
    """Ray, but for what the user's environment says of it."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})


@contextmanager
def _handler_kept(number: signal.Signals) -> Iterator[None]:
    """After the block a signal does what it did before, whatever comes of the block."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


def _connect(address: str) -> None:
    try:
        ray.init(address=address, **UNHEARD)
    except Exception as error:  # Ray raises many kinds
        raise ConfigError(f"--address {address}: no Ray cluster answers there ({first_line(error)})") from None


def _start_own(with_state_api: bool) -> None:
    """Twice where it takes longer than Ray gives itself (30 s for node and head, 60 s for the dashboard), as on a busy
    machine."""
    for is_last in (False, True):
        try:
            with on_loopback():
                ray.init(address=LOCAL, include_dashboard=with_state_api, dashboard_host="127.0.0.1", **UNHEARD)
            return
        except Exception as error:  # Ray raises many kinds; a plain one here
            _end_nodes_of(error)
            is_slow = TOO_SLOW.search(str(error))
            if is_last or not is_slow:
                mend = "; try again once less runs beside it" if is_slow else ""
                raise RayloraError(f"Ray can't be started on this machine: {ends_of(error)}{mend}") from error


def _end_nodes_of(error: Exception) -> None:
    """End the processes of a node that raised this while it was made: nobody has it then to do so."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False, allow_graceful=True)
            return


def check_address(address: str | None) -> None:
    """Knock at a Ray address, since Ray itself waits for minutes.

    Raises:
        ConfigError: nobody answers there, or it is a Ray Client address or none at all.
    """
    if place := host_and_port(address):
        knock(str(address), place)


def host_and_port(address: str | None) -> tuple[str, int] | None:
    """Where an address says that Ray is; None where it says that Ray knows, or this machine.

    Raises:
        ConfigError: it is a Ray Client address or none at all.
    """
    if address in (None, LOCAL, "auto"):
        return None
    if address.startswith("ray://"):
        raise ConfigError(
            f"--address {address}: a search's driver can't be outside its cluster; `raylora tune` and `raylora resume` "
            "take it there, and a program runs there with the address auto"
        )
    return place_of(address, address)


def place_of(address: str, place: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, which is a Ray address or part of one.

    Raises:
        ConfigError: it is no place.
    """
    match = re.fullmatch(r"([^:/]+):(\d+)", place)
    if not match:
        raise ConfigError(f"--address {address!r}: is no Ray address; give auto, local, HOST:PORT or ray://HOST:10001")
    return match[1], int(match[2])


def knock(address: str, place: tuple[str, int]) -> None:
    """See whether anybody listens at a place of a Ray address.

    Raises:
        ConfigError: nobody does.
    """
    try:
        socket.create_connection(place, timeout=KNOCK_S).close()
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

    share: Share = share_out(search, [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}])
    return f"{devices_here()}; {share.concurrent} {'trial' if share.concurrent == 1 else 'trials'} at once"


def node_resources() -> list[dict[str, float]]:
    """What each living node of the connected cluster has."""
    return [dict(node["Resources"]) for node in living_nodes()]


def living_nodes() -> list[dict[str, Any]]:
    """Of the connected cluster, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]
