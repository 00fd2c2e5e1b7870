"""Ports for servers that are started by name."""

from __future__ import annotations

import random
import socket

PORTS = range(20000, 32000)
"""Below those that the system gives to connections, of which Ray takes dozens while a server still starts."""
TAKEN: list[socket.socket] = []
"""Datagram sockets at the ports that this process has given away, until it ends: no server listens there."""


def free_port() -> int:
    """One on loopback where nobody listens now, and that no other test which runs now has been given."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one whose connections have just ended will do
            if _binds(bound, port) and _takes(port):
                return port


def _takes(port: int) -> bool:
    taken = socket.socket(type=socket.SOCK_DGRAM)
    if _binds(taken, port):
        TAKEN.append(taken)
        return True
    taken.close()
    return False


def _binds(one: socket.socket, port: int) -> bool:
    try:
        one.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
