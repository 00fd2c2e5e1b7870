"""What Linux's control groups leave this process: a container's share, or that of a job of Slurm's or systemd's.

Groups lie in each other, and each one's limits count for all in it. In a container the outermost one seen is its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT, MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Names:
    """What the two versions of control groups call the same: files, and a line of `memory.stat`."""

    most: str
    used: str
    cache: str


MEMORY_1 = Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
MEMORY_2 = Names("memory.max", "memory.current", "inactive_file")
STAT = "memory.stat"


def memory_share(root: Path = ROOT, mine: Path = MINE) -> tuple[int, int] | None:
    """Most memory, and what is free of it, in bytes; None without a limit.

    What files were read lately lies in a group's memory too, until something else needs the room. So the part of that
    which nothing has used again is free, as Docker (`docker stats`) and Kubernetes (the working set) reckon it.
    """
    shares = [
        share
        for folders, names in ((_groups(root, mine, "memory"), MEMORY_1), (_groups(root, mine), MEMORY_2))
        for folder in folders
        if (share := _memory_of(folder, names))
    ]
    return (min(most for most, _ in shares), min(free for _, free in shares)) if shares else None


def _memory_of(folder: Path, names: Names) -> tuple[int, int] | None:
    with suppress(OSError, ValueError):  # not there, or `max`
        most, used = (int((folder / name).read_text()) for name in (names.most, names.used))
        working_set = max(0, used - _cache_of(folder, names.cache))
        return most, max(0, most - working_set)
    return None


def _cache_of(folder: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        return dict(_numbers(folder / STAT)).get(name, 0)
    return 0


def _numbers(file: Path) -> Iterator[tuple[str, int]]:
    for line in file.read_text().splitlines():
        name, _, number = line.partition(" ")
        yield name, int(number)


def core_share(root: Path = ROOT, mine: Path = MINE) -> float | None:
    """How many processor cores' time it may take; None without a limit."""
    shares = [
        share
        for folders, read in ((_groups(root, mine, "cpu"), _cores_1), (_groups(root, mine), _cores_2))
        for folder in folders
        if (share := read(folder))
    ]
    return min(shares, default=None)


def _cores_1(folder: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 and period > 0 else None  # -1 is no limit
    return None


def _cores_2(folder: Path) -> float | None:
    with suppress(OSError, ValueError):  # not there, or `max`
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return None


def _groups(root: Path, mine: Path, controller: str = "") -> list[Path]:
    """This process's group and those around it, as folders.

    Args:
        controller: of the first version, which has a tree for each; the second has one tree.
    """
    tree = root / controller
    below = _path_of(mine, controller)
    return [tree / place for place in (below, *below.parents)]


def _path_of(mine: Path, controller: str) -> Path:
    """Where it is in a tree, as the machine itself sees that; a container may see none of these folders but the tree.

    A line is `number:controllers:/path`, without controllers in the second version.
    """
    with suppress(OSError):
        for line in mine.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return Path(path.lstrip("/"))
    return Path()
