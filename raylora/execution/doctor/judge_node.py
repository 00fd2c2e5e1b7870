"""What a node's facts mean for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raylora.execution.doctor.judge_gpu import judge_bitsandbytes, judge_gpus
from raylora.execution.doctor.node_facts import CACHE, OPTIMIZER_PACKAGES, OUT, RAY_FOLDER, SHARED
from raylora.execution.doctor.rows import GIB, Finding, Row, bad, failed, gib, good, row, warning
from raylora.execution.doctor.wanted import Wanted

FEWEST_CORES = 2
FEWEST_FILES = 8192
"""Ray's own advice (`ray._private.worker.init`)."""
RAY_FULL = 0.05
"""Ray makes no more objects on a disk with less than this share free (`RAY_local_fs_capacity_threshold`)."""
LEAST_DISK, EASY_DISK = 1 * GIB, 10 * GIB
LEAST_SHARED = 1 * GIB
"""Docker gives 64 MiB by itself. Ray and NCCL keep there what processes hand to each other."""


@dataclass(frozen=True)
class NodeSaid:
    """A node and its facts."""

    name: str
    values: Mapping[str, Any]
    faults: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None
    """Why it says nothing at all."""
    ray_gpus: float | None = None
    """How many Ray gives away; None where no cluster was asked."""
    has_gpus_elsewhere: bool = False
    """Whether other nodes have some, so that trials need none here."""


def judge_cores(host: Mapping[str, Any], _: NodeSaid, __: Wanted) -> list[Finding]:
    cores = host["cores"]
    if cores < FEWEST_CORES:
        return [warning(f"{cores} processor core", "give it 2 or more: Ray itself takes a part of one")]
    return [good(f"{cores} processor cores")]


def judge_memory(host: Mapping[str, Any], _: NodeSaid, wanted: Wanted) -> list[Finding]:
    """A process that trains loads the weights into memory first, wherever it trains."""
    free, weights = host["free"], wanted.weight_bytes
    found = f"{gib(free)} of {gib(host['memory'])} free"
    if free < weights:
        return [bad(f"{found}; the model's weights alone are {gib(weights)}", "end other programs, or use more memory")]
    if free < 2 * weights:
        return [warning(f"{found}; the model's weights are {gib(weights)}", "end other programs, or run fewer trials "
                        "at once: --set search.max_concurrent=1")]  # fmt: skip
    return [good(found)]


def judge_files(host: Mapping[str, Any], node: NodeSaid, _: Wanted) -> list[Finding]:
    """Where Ray starts anew, it raises the limit as far as it may; where it runs, it has what it was started with."""
    now, most = host["files"]
    able = most if node.ray_gpus is None else now
    if able < 0 or able >= FEWEST_FILES:  # -1 is no limit
        return [good(f"{'any number of' if able < 0 else able} files may be open")]
    mend = (
        "raise the hard limit: `LimitNOFILE` of a service, `--ulimit nofile=65536` of docker, or limits.conf"
        if most < FEWEST_FILES
        else "run `ulimit -n 65536` before `ray start`"
    )
    return [warning(f"only {able} files may be open at once, and Ray asks for {FEWEST_FILES}", mend)]


def judge_out(places: Mapping[str, Any], _: NodeSaid, __: Wanted) -> list[Finding]:
    place = places[OUT]
    if place["fault"]:
        return [bad(f"{place['path']} can't be written ({place['fault']})", "give another folder with --out, or let "
                    "your user write there")]  # fmt: skip
    found = f"{place['path']}: {gib(place['free'])} free"
    if place["free"] < LEAST_DISK:
        return [bad(found, "free some space, or give a folder on another disk with --out")]
    if place["free"] < EASY_DISK:
        return [warning(found, "free some space: `raylora tune … --dry-run` says what a search needs")]
    return [good(found)]


def judge_ray_folder(places: Mapping[str, Any], _: NodeSaid, __: Wanted) -> list[Finding]:
    place = places[RAY_FOLDER]
    if place["fault"]:
        return [bad(f"{place['path']} can't be written ({place['fault']})", "set RAY_TMPDIR to a folder of your own, "
                    "with a short path, where Ray is started")]  # fmt: skip
    found = f"{place['path']}: {gib(place['free'])} free"
    if place["free"] < RAY_FULL * place["total"]:
        return [bad(f"{found}, less than {RAY_FULL:.0%}: Ray stops there", "free some space, or set RAY_TMPDIR to a "
                    "folder on another disk where Ray is started")]  # fmt: skip
    return [good(found)]


def judge_shared_memory(places: Mapping[str, Any], _: NodeSaid, __: Wanted) -> list[Finding]:
    place = places.get(SHARED)
    if place is None:
        return []
    found = f"{place['path']}: {gib(place['free'])} free"
    if place["free"] < LEAST_SHARED:
        return [warning(f"{found}; Ray then shares memory through the disk", "give the container more: "
                        "`--shm-size=4g` of docker, a `medium: Memory` volume at /dev/shm in Kubernetes")]  # fmt: skip
    return [good(found)]


def judge_cache(places: Mapping[str, Any], _: NodeSaid, __: Wanted) -> list[Finding]:
    place = places[CACHE]
    if place["fault"]:
        return [warning(f"{place['path']} can't be written ({place['fault']}): no model can be downloaded", "let your "
                        "user write there, or set HF_HOME to a folder of your own")]  # fmt: skip
    found = f"{place['path']}: {gib(place['free'])} free"
    if place["free"] < EASY_DISK:
        return [warning(f"{found}; SDXL and the image encoder take {gib(EASY_DISK)}", "free some space, or set HF_HOME "
                        "to a folder on another disk")]  # fmt: skip
    return [good(found)]


def judge_packages(missing: list[str], _: NodeSaid, wanted: Wanted) -> list[Finding]:
    """Optimizers whose packages are missing."""
    findings = []
    for package in missing:
        kinds = OPTIMIZER_PACKAGES[package]
        found = f"{package} is not installed, which optimizer.name {' and '.join(kinds)} need"
        judge = bad if wanted.optimizer in kinds else warning
        findings.append(judge(found, f"install it: `pip install {package.replace('_', '-')}`"))
    return findings or [good("the packages of all optimizers are installed")]


Judge = Callable[[Any, NodeSaid, Wanted], list[Finding]]
CHECKS: tuple[tuple[str, str, Judge], ...] = (
    ("GPU", "gpus", judge_gpus),
    ("processor", "host", judge_cores),
    ("memory", "host", judge_memory),
    ("open files", "host", judge_files),
    ("output folder", "places", judge_out),
    ("Ray's folder", "places", judge_ray_folder),
    ("shared memory", "places", judge_shared_memory),
    ("model cache", "places", judge_cache),
    ("optimizers", "packages", judge_packages),
    ("bitsandbytes", "bitsandbytes", judge_bitsandbytes),
)
"""What is told of each node: its name, the fact that it is about, and how that is judged."""
MENDS = {
    "gpus": "run `nvidia-smi`: where it hangs or fails too, load the driver anew or restart the machine",
    "host": "look at the machine",
    "places": "look at its disks: `df` hangs on one that is gone; mount it anew",
    "packages": "install raylora anew on that node",
}
"""What to do where a fact can't be had."""
SILENT = "install the same raylora there, in the Python that Ray was started with; or restart its Ray"


def judge_node(node: NodeSaid, wanted: Wanted) -> list[Row]:
    """All checks of a node."""
    if node.fault is not None:
        return [row("node", failed(node.fault, SILENT), node.name)]
    rows = []
    for check, fact, judge in CHECKS:
        if fact in node.values:
            findings = judge(node.values[fact], node, wanted)
        elif fact == "bitsandbytes":
            findings = judge_bitsandbytes(node.faults.get(fact, "not told"), node, wanted)
        else:
            findings = [failed(node.faults.get(fact, "not told"), MENDS[fact])]
        rows += [row(check, finding, node.name) for finding in findings]
    return rows
