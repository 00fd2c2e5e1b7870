"""What a node's facts mean for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raylora.execution.doctor.judge_gpu import judge_bitsandbytes, judge_gpus
from raylora.execution.doctor.node_facts import CACHE, COPIES, OPTIMIZER_PACKAGES, OUT, RAY_FOLDER, SHARED
from raylora.execution.doctor.rows import GIB, Finding, Row, bad, failed, gib, good, row, warning
from raylora.execution.doctor.wanted import Wanted

FEWEST_CORES = 2
FEWEST_FILES = 8192
"""Ray's own advice (`ray._private.worker.init`)."""
RAY_FULL = 0.05
"""Ray makes no more objects on a disk with less than this share free (`RAY_local_fs_capacity_threshold`)."""
LEAST_DISK, EASY_DISK = 1 * GIB, 10 * GIB
OLD_NOTICE_S = 3600
"""Clouds say minutes ahead that a machine goes: one that is still there after an hour has kept the file by mistake."""
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


def judge_copies(places: Mapping[str, Any], _: NodeSaid, __: Wanted) -> list[Finding]:
    """A cache of all images, and the folders of the trials that run there."""
    place, mend = places[COPIES], "set TMPDIR to a folder of your own on another disk where Ray is started"
    if place["fault"]:
        return [bad(f"{place['path']} can't be used ({place['fault']})", mend)]
    found = f"{place['path']}: {gib(place['free'])} free"
    if place["free"] < LEAST_DISK:
        return [bad(found, f"free some space, or {mend}")]
    if place["free"] < EASY_DISK:
        return [warning(found, f"free some space, or {mend}")]
    return [good(found)]


def judge_notice(notice: Mapping[str, Any] | None, _: NodeSaid, __: Wanted) -> list[Finding]:
    """While the file lies there, training on that machine waits for its end."""
    if notice is None:
        return []
    age_s = notice["age_s"]
    since = f"{age_s / 60:.0f} min" if age_s < OLD_NOTICE_S else f"{age_s / 3600:.0f} h"
    judge = warning if age_s < OLD_NOTICE_S else bad
    found = f"{notice['path']} says, for {since} now, that this machine is about to go: training waits there"
    return [judge(found, "remove that file if the machine stays")]


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
    ("notice", "notice", judge_notice),
    (OUT, "places", judge_out),
    (COPIES, "places", judge_copies),
    (RAY_FOLDER, "places", judge_ray_folder),
    (SHARED, "places", judge_shared_memory),
    (CACHE, "places", judge_cache),
    ("optimizers", "packages", judge_packages),
    ("bitsandbytes", "bitsandbytes", judge_bitsandbytes),
)
"""What is told of each node: its name, the fact that it is about, and how that is judged."""
MENDS = {
    "gpus": "run `nvidia-smi`: where it hangs or fails too, load the driver anew or restart the machine",
    "host": "look at the machine",
    "places": "look at its disks: `df` hangs on one that is gone; mount it anew",
    "notice": "look at its disks, and at RAYLORA_NOTICE_FILE there",
    "packages": "install raylora anew on that node",
}
"""What to do where a fact can't be had."""
SILENT = "install the same raylora there, in the Python that Ray was started with; or restart its Ray"


def judge_node(node: NodeSaid, wanted: Wanted) -> list[Row]:
    """All checks of a node."""
    if node.fault is not None:
        return [row("node", failed(node.fault, SILENT), node.name)]
    needed = {OUT: wanted.writes_out, COPIES: wanted.keeps_copies}
    return [
        row(check, finding, node.name)
        for check, fact, judge in CHECKS
        if needed.get(check, True)
        for finding in _findings(fact, judge, node, wanted)
    ]


def judge_driver(node: NodeSaid) -> list[Row]:
    """The machine of the driver, where it is the only one that writes to the output folder."""
    return [row(OUT, finding, node.name) for finding in _findings("places", judge_out, node, Wanted())]


def _findings(fact: str, judge: Judge, node: NodeSaid, wanted: Wanted) -> list[Finding]:
    if fact in node.values:
        return judge(node.values[fact], node, wanted)
    if fact == "bitsandbytes":
        return judge_bitsandbytes(node.faults.get(fact, "not told"), node, wanted)
    return [failed(node.faults.get(fact, "not told"), MENDS[fact])]
