"""What a cluster's nodes do for the doctor, as Ray tasks; importable there, without Ray itself."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

SOCKET_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENS = "0A"
SEEN_WITHIN_S = 10
"""A network's file system may show a new file late."""


def tell_time(_: object) -> float:
    """Seconds since 1970, by this node's clock."""
    return time.time()


def write_mark(file: Path) -> None:
    """A small file that must not be there yet."""
    with file.open("x") as opened:
        opened.write(file.name)


def unseen_marks(files: Sequence[Path]) -> list[Path]:
    """Which of other nodes' files this one doesn't see, though it has waited."""
    until = time.monotonic() + SEEN_WITHIN_S
    while (missing := [file for file in files if not _is_whole(file)]) and time.monotonic() < until:
        time.sleep(0.5)
    return missing


def _is_whole(file: Path) -> bool:
    with suppress(OSError):
        return file.read_text() == file.name
    return False


def remove_mark(file: Path) -> None:
    """Whether or not it is there."""
    file.unlink(missing_ok=True)


def unreadable(paths: Mapping[str, Path]) -> list[str]:
    """Which of these files and folders this node doesn't see or may not read."""
    return [name for name, path in paths.items() if not os.access(path, os.R_OK)]


def guards(ports: Sequence[int]) -> tuple[list[int], str | None]:
    """Which of these ports this node opens to others than itself, and how Ray was started here: `token` or not."""
    return [port for port in ports if _is_open_to_others(port)], os.environ.get("RAY_AUTH_MODE")


def _is_open_to_others(port: int) -> bool:
    """By the kernel's tables of sockets; where there are none, supposed to be."""
    tables = [table.read_text() for table in SOCKET_TABLES if table.is_file()]
    places = [line.split()[1].split(":") for table in tables for line in table.splitlines() if f" {LISTENS} " in line]
    mine = [host for host, hexadecimal in places if int(hexadecimal, 16) == port]
    return not tables or any(not _is_loopback(host) for host in mine)


def _is_loopback(host: str) -> bool:
    """Of an address as the kernel's tables have it: hexadecimal words of four bytes, the least first."""
    packed = b"".join(bytes.fromhex(host[start : start + 8])[::-1] for start in range(0, len(host), 8))
    if len(packed) == 4:
        return packed[0] == 127
    return packed == bytes(15) + b"\x01" or (packed[10:13] == b"\xff\xff\x7f")
