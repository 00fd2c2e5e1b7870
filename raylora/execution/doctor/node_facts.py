"""What a node says of itself; needs no Ray, diffusers or MLflow."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import raylora
from raylora.errors import disk_fault
from raylora.execution.doctor.asking import Inquiry, Probe, hear
from raylora.execution.doctor.control_groups import core_share, memory_share
from raylora.execution.doctor.gpu_facts import bitsandbytes_facts, gpu_facts
from raylora.execution.doctor.questions import NodeQuestion
from raylora.execution.notice import is_old, notice_file
from raylora.storage import is_foreign, scratch_place

PACKAGES = ("ray", "torch", "diffusers", "transformers", "peft", "optuna", "mlflow")
OPTIMIZER_PACKAGES = {
    "bitsandbytes": ("adamw8bit", "lion8bit"),
    "lion_pytorch": ("lion",),
    "prodigyopt": ("prodigy",),
    "schedulefree": ("adamw_schedule_free",),
}
"""Packages that one kind of optimizer needs; the others come with torch and transformers."""
SHARED_MEMORY = Path("/dev/shm")
OUT, RAY_FOLDER, CACHE, SHARED = "output folder", "Ray's folder", "model cache", "shared memory"
COPIES = "temporary copies"
"""The places on a node's disks."""
NOTICE = "notice"

Question = Mapping[str, str]
"""The folders to look at, by what they are for, and the file whose presence is notice of the machine's end."""


def host_facts(_: Question) -> dict[str, Any]:
    """Cores, bytes of memory, and how many files a process may open: now, and at most."""
    total, free = _memory()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"host": socket.gethostname(), "cores": _cores(), "memory": total, "free": free, "files": files}


def place_facts(places: Question) -> dict[str, Any]:
    """Each folder, the one for models from the hub, and the shared memory."""
    from huggingface_hub import constants

    found = {name: look_at(Path(place)) for name, place in places.items() if name != NOTICE}
    if COPIES in found and Path(places[COPIES]).exists() and is_foreign(Path(places[COPIES])):
        found[COPIES]["fault"] = "belongs to another user"
    found[CACHE] = look_at(Path(constants.HF_HUB_CACHE))
    if SHARED_MEMORY.is_dir():
        usage = shutil.disk_usage(SHARED_MEMORY)
        found[SHARED] = {"path": str(SHARED_MEMORY), "total": usage.total, "free": usage.free}
    return found


def look_at(path: Path) -> dict[str, Any]:
    """A folder, or the nearest one above it that exists: bytes in all and free, and what writing there fails with."""
    there = nearest_there(path)
    fault = None
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"raylora")
            file.flush()
    except OSError as error:
        fault = disk_fault(error) or os.strerror(error.errno or 0)
    usage = shutil.disk_usage(there)
    return {"path": str(path), "there": str(there), "total": usage.total, "free": usage.free, "fault": fault}


def nearest_there(path: Path) -> Path:
    """The path itself, or the nearest one above it that exists and may be looked at."""
    for place in (path, *path.parents):
        with suppress(OSError):
            place.stat()
            return place
    return Path(path.anchor)


def notice_facts(places: Question) -> dict[str, Any] | None:
    """The file that says that this machine is about to go, and for how long it has said so; None without one."""
    file = Path(places[NOTICE])
    if not file.exists() or is_old(file):  # from before the machine was started: training ignores it
        return None
    return {"path": str(file), "age_s": max(0.0, time.time() - file.stat().st_mtime)}


def version_facts(_: Question) -> dict[str, str | None]:
    """Python's, raylora's and those of the libraries that every node must agree on; None of what is missing."""
    return {
        "python": platform.python_version(),
        "raylora": raylora.__version__,
        **{name: _version(name) for name in PACKAGES},
    }


def package_facts(_: Question) -> list[str]:
    """Packages of optional kinds that are missing."""
    return [name for name in OPTIMIZER_PACKAGES if find_spec(name) is None]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    """Those that this process may use: a container's share counts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = core_share()
    return cores if share is None else max(1, min(cores, int(share)))


def _memory() -> tuple[int, int]:
    """All of it, and what is free, in bytes: a container's share counts."""
    fields = {}
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, amount = line.partition(":")
            fields[name] = int(amount.split()[0]) * 1024
    page = os.sysconf("SC_PAGE_SIZE")
    total = fields.get("MemTotal", os.sysconf("SC_PHYS_PAGES") * page)
    free = fields.get("MemAvailable", total)
    most, left = memory_share() or (total, free)
    return min(total, most), min(free, left)


FACTS: dict[str, Probe] = {
    "host": Probe(host_facts),
    "places": Probe(place_facts),
    "notice": Probe(notice_facts),
    "versions": Probe(version_facts),
    "packages": Probe(package_facts),
    "gpus": Probe(gpu_facts, limit_s=60),
    "bitsandbytes": Probe(bitsandbytes_facts, limit_s=60),
}
"""Quick ones first."""
MOST_S = sum(probe.limit_s for probe in FACTS.values())


def inquiry_here(asked: NodeQuestion) -> Inquiry:
    """All of it, asked of a process of its own, since a driver can hang.

    Where copies and the notice of this machine's end lie is told here: that process has a TMPDIR of its own.
    """
    copies = {COPIES: str(scratch_place())} if asked.keeps_copies else {}
    return Inquiry(__name__, {**asked.folders, **copies, NOTICE: str(notice_file())}, list(FACTS))


def facts_here(asked: NodeQuestion) -> tuple[dict[str, Any], dict[str, str]]:
    """Everything that this machine says of itself, and what it failed to say."""
    inquiry = inquiry_here(asked)
    hear([inquiry])
    return inquiry.heard.values, inquiry.heard.faults


@contextmanager
def opened(places: Question) -> Iterator[Question]:
    """Ray hides GPUs from a task that asked for none, and so from what it starts."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" and "RAY_RAYLET_PID" in os.environ:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    yield places
