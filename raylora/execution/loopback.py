"""A Ray cluster of this machine alone: nothing outside can reach it, and who is inside needs its token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray._private import ray_constants

TOKEN_RIGHTS = 0o600


@contextmanager
def on_loopback() -> Iterator[None]:
    """What Ray starts within the block listens on loopback alone. For `ray.init` of a cluster of its own.

    On Windows and macOS Ray does so itself: a node's address is 127.0.0.1 there, unless the variable below says that
    clusters are wanted. On Linux it is the address in the network, and all servers of Ray's listen on every interface;
    `_node_ip_address` takes no loopback address (Ray 2.60, `services.get_node_ip_address`). Ray reads the variable when
    it is imported, so its constant is set too; what it starts reads it anew.

    Such a cluster asks for a token unless RAY_AUTH_MODE says otherwise; Ray keeps that in the home folder.
    """
    _keep_token_private()
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    said, was = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = was
        os.environ.pop(name) if said is None else os.environ.update({name: said})


def _keep_token_private() -> None:
    """Ray makes the token's file readable by all who can look into the folder, so it is made before, without a token.

    Ray takes an empty file for none, and writes into the one that is there (Ray 2.60, `generate_and_save_token`).
    """
    is_elsewhere = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if is_elsewhere or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    with suppress(OSError, RuntimeError):
        file = Path.home() / ".ray" / "auth_token"
        file.parent.mkdir(exist_ok=True)
        file.touch(TOKEN_RIGHTS)
        file.chmod(TOKEN_RIGHTS)  # of one that Ray has made
