"""A whole search on a cluster that is reached through Ray Client (`ray://`).

A search's driver keeps its study and its lock on the disk where its trials write, so it can't stay on this side: the
same command runs on the cluster's head, the one node that nobody takes away, and says there what it has to say.
"""

from __future__ import annotations

import re
import signal
import sys
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylora import __version__
from raylora.errors import ConfigError, RayloraError, ends_of, first_line
from raylora.execution.cluster import UNHEARD, keep_quiet, knock, place_of
from raylora.execution.errand import Errand

CLIENT = "ray://"
LISTEN_S = 1.0
HEAD = "node:__internal_head__"
"""A resource that Ray gives a cluster's head (ray/_private/ray_constants.py)."""
FELL = re.compile("Starting Ray client server failed|Proxy failed to Connect to backend|NoSuchProcess|ZombieProcess")
"""What Ray 2.60 says where the process that its head starts for each client died at once or isn't there in time
(`ray/util/client/server/proxier.py`). It passes: now and then a fork amid gRPC's threads fails (ray-project/ray#63202;
this can go once that is mended). Ray says so when its streams have closed, after half a minute to a minute."""
REFUSED = "Initialization failure from server"
"""What it says before the head's own words."""
LOST = (ConnectionError, grpc.RpcError, ray.exceptions.RayError)
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_on_head(address: str, words: Sequence[str], how_to_go_on: str) -> int:
    """Run a raylora command on the head of a cluster; its output is this program's, and so is its exit status.

    Ctrl-C here is Ctrl-C there.

    Args:
        address: `ray://HOST:PORT`.
        words: of the command line after `raylora`.
        how_to_go_on: said where the connection is lost.

    Raises:
        ConfigError: no Ray Client server answers at the address, it takes no client, or its versions differ from these.
        RayloraError: it could not be started there, or the connection was lost.
    """
    with _connected(address):
        _check_versions(address)
        errand = _start(words)
        try:
            status = _listen(errand)
        except LOST as error:
            raise RayloraError(
                f"the connection to {address} was lost ({first_line(error)}). What ran there ends as by Ctrl-C once "
                f"Ray has missed this program for half a minute; then {how_to_go_on}"
            ) from None
        ray.get(errand.clear.remote())
        return status


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Ray Client, quiet."""
    knock(address, place_of(address, address.removeprefix(CLIENT)))
    keep_quiet()
    _connect(address)
    try:
        yield
    finally:
        with suppress(*LOST):
            ray.shutdown()


def _connect(address: str) -> None:
    """Up to three times, where the head could not start what Ray Client connects to."""
    for is_last in (False, False, True):
        try:
            ray.init(address, **UNHEARD)
            return
        except (*LOST, RuntimeError, ValueError) as error:
            if not FELL.search(str(error)):
                raise ConfigError(f"--address {address}: {_what_is_wrong(error)}") from None
            if is_last:
                why = f"Ray Client can't be started on the cluster's head ({ends_of(error)})"
                raise RayloraError(f"--address {address}: {why}; try again") from None
            sys.stderr.write("Ray Client did not start on the cluster's head; it is asked again\n")


def _what_is_wrong(error: Exception) -> str:
    if "ersion mismatch" in str(error):
        return f"{' '.join(str(error).split())}; install the same there"
    if REFUSED in str(error):
        return f"the cluster's head takes no client ({ends_of(error)}); mend that there"
    return (
        f"no Ray Client server answers there ({first_line(error)}); "
        "its port is that of `ray start --head --ray-client-server-port`, by default 10001"
    )


def _check_versions(address: str) -> None:
    """Whether the head has this very raylora: options and settings differ between others.

    Ray compares its own version and Python's when it connects.

    Raises:
        ConfigError: it has none, or another.
    """
    there = ray.get(_on_head(ray.remote(_version_there())).remote())
    if there != __version__:
        what = f"raylora {there}" if there else "no raylora"
        raise ConfigError(f"--address {address}: there is {what} on the head, and {__version__} here; install the same")


def _version_there() -> Callable[[], str]:
    """A function that is sent as it is, and so needs no raylora where it runs."""

    def version() -> str:
        from importlib.util import find_spec

        if not find_spec("raylora"):
            return ""
        import raylora

        return raylora.__version__

    return version


def _on_head(remote: Any) -> Any:
    """A task or an actor that takes none of the head's cores."""
    head = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"])
    return remote.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(head, soft=False))


def _start(words: Sequence[str]) -> Any:
    """The command under way: an actor of this connection, which ends with it."""
    cluster = ray.get_runtime_context().gcs_address
    return _on_head(ray.remote(max_concurrency=2)(Errand)).remote(list(words), {"RAY_ADDRESS": cluster})


def _listen(errand: Any) -> int:
    """Hand the command's words on to its end; returns its exit status."""
    decode_out, decode_err = (getincrementaldecoder("utf-8")(errors="replace").decode for _ in range(2))
    with _ordered() as orders:
        while True:
            while orders:
                errand.signal.remote(orders.pop(0))
            heard = ray.get(errand.listen.remote(LISTEN_S))
            for text, stream in ((decode_out(heard.out), sys.stdout), (decode_err(heard.err), sys.stderr)):
                stream.write(text)
                stream.flush()
            if heard.status is not None:
                return int(heard.status)


@contextmanager
def _ordered() -> Iterator[list[int]]:
    """Signals that would end this program, to be passed on: a list that grows."""
    orders: list[int] = []

    def order(number: int, _: object) -> None:
        orders.append(number)

    before = {number: signal.signal(number, order) for number in ENDINGS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield orders
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
