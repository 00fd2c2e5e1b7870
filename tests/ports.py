"""Ports for servers that are started by name."""

from __future__ import annotations

import random
import socket

PORTS = range(20000, 32000)
"""Below those that the system gives to connections, of which Ray takes dozens while a server still starts."""


def free_port() -> int:
    """One on loopback where nobody listens now."""
    while True:
        with socket.socket() as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one whose connections have just ended will do
            try:
                bound.bind(("127.0.0.1", random.choice(PORTS)))
            except OSError:
                continue
            return int(bound.getsockname()[1])
