"""What a container's or a job's control groups leave it, out of files as the kernel has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from raylora.execution.doctor import node_facts
from raylora.execution.doctor.control_groups import core_share, memory_share

GIB = 2**30
NO_LIMIT_1 = 9223372036854771712
"""As the first version says it: all that a number of pages can say."""
Files = Mapping[str, object]


def make(root: Path, files: Files) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")


def group_1(most: int, used: int, inactive: int, below: str = "") -> dict[str, object]:
    """The file system's cache of the group alone is in `inactive_file`, that of groups in it in `total_…` too."""
    stat = f"cache 5\ninactive_file 8192\nactive_file 7\ntotal_inactive_file {inactive}\ntotal_active_file 9"
    numbers = {"limit_in_bytes": most, "usage_in_bytes": used, "stat": stat}
    return {f"memory/{below}memory.{name}": number for name, number in numbers.items()}


def group_2(most: object, used: int, inactive: int, below: str = "") -> dict[str, object]:
    stat = f"anon 5\nfile 6\ninactive_anon 7\nactive_file 8\ninactive_file {inactive}"
    return {f"{below}memory.{name}": number for name, number in {"max": most, "current": used, "stat": stat}.items()}


DOCKER_1 = "4:memory:/docker/0a1b\n2:cpu,cpuacct:/docker/0a1b\n0::/docker/0a1b"
JOB_2 = "0::/system.slice/slurmstepd.scope/job_7/step_0"
FULL_OF_CACHE = (16 * GIB, 159 * GIB // 10, 14 * GIB)


@pytest.mark.parametrize(
    ("mine", "files", "total", "free"),
    [
        ("0::/", group_2(*FULL_OF_CACHE), 16.0, 14.1),  # a pod that has read a data set
        (DOCKER_1, group_1(*FULL_OF_CACHE), 16.0, 14.1),
        ("0::/", group_2(16 * GIB, 4 * GIB, 5 * GIB), 16.0, 16.0),  # the two numbers are read one after the other
        ("0::/", group_2(16 * GIB, 17 * GIB, 0), 16.0, 0.0),
        (JOB_2, group_2(8 * GIB, 2 * GIB, GIB, f"{JOB_2[4:].rpartition('/')[0]}/"), 8.0, 7.0),  # of the group around it
        (
            JOB_2,
            group_2(8 * GIB, 2 * GIB, 0, f"{JOB_2[4:]}/") | group_2(32 * GIB, 30 * GIB, 0, "system.slice/"),
            8.0,
            2.0,  # as others in the outer one have taken the rest
        ),
    ],
)
def test_memory_is_free_that_only_holds_what_was_read(
    mine: str, files: Files, total: float, free: float, tmp_path: Path
) -> None:
    make(tmp_path, {"mine": mine} | dict(files))
    share = memory_share(tmp_path, tmp_path / "mine")
    assert share is not None
    assert [round(number / GIB, 1) for number in share] == [total, free]


@pytest.mark.parametrize("files", [{}, group_2("max", GIB, 0)])
def test_without_a_limit_there_is_no_share(files: Files, tmp_path: Path) -> None:
    make(tmp_path, {"mine": "0::/"} | dict(files))
    assert memory_share(tmp_path, tmp_path / "mine") is None
    assert core_share(tmp_path, tmp_path / "mine") is None


def test_a_limit_that_is_none_leaves_all_that_the_machine_has(tmp_path: Path) -> None:
    make(tmp_path, {"mine": DOCKER_1} | group_1(NO_LIMIT_1, 8 * GIB, GIB))
    assert memory_share(tmp_path, tmp_path / "mine") == (NO_LIMIT_1, NO_LIMIT_1 - 7 * GIB)


@pytest.mark.parametrize(
    ("mine", "files", "cores"),
    [
        ("0::/", {"cpu.max": "250000 100000"}, 2.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        (DOCKER_1, {"cpu/cpu.cfs_quota_us": 150000, "cpu/cpu.cfs_period_us": 100000}, 1.5),
        (DOCKER_1, {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, None),
        (JOB_2, {"system.slice/cpu.max": "400000 100000", f"{JOB_2[4:]}/cpu.max": "800000 100000"}, 4.0),
    ],
)
def test_cores_are_what_the_narrowest_group_leaves(
    mine: str, files: Files, cores: float | None, tmp_path: Path
) -> None:
    make(tmp_path, {"mine": mine} | dict(files))
    assert core_share(tmp_path, tmp_path / "mine") == cores


def test_no_control_groups_are_no_limit(tmp_path: Path) -> None:
    """As on other systems than Linux."""
    assert memory_share(tmp_path / "none", tmp_path / "nothing") is None
    assert core_share(tmp_path / "none", tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("memory", "cores", "told"), [((1024, 512), 1.5, (1024, 512, 1)), ((1024, 512), 0.5, (1024, 512, 1))]
)
def test_a_nodes_facts_are_of_its_share(
    memory: tuple[int, int], cores: float, told: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_facts, "memory_share", lambda: memory)
    monkeypatch.setattr(node_facts, "core_share", lambda: cores)
    facts = node_facts.host_facts({})
    assert (facts["memory"], facts["free"], facts["cores"]) == told
    monkeypatch.setattr(node_facts, "memory_share", lambda: (NO_LIMIT_1, NO_LIMIT_1))
    assert node_facts.host_facts({})["free"] < node_facts.host_facts({})["memory"] < NO_LIMIT_1
