"""What a node with a GPU says of it. Needs torch, and neither Ray nor diffusers nor MLflow."""

from __future__ import annotations

import subprocess

import pytest
import torch

from raylora.execution.doctor.asking import Inquiry, hear
from raylora.execution.doctor.gpu_facts import gpu_facts
from raylora.execution.doctor.judge_gpu import judge_gpus
from raylora.execution.doctor.judge_node import NodeSaid
from raylora.execution.doctor.rows import gib
from raylora.execution.doctor.wanted import Wanted

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

NODE = "raylora.execution.doctor.node_facts"
SMALL = Wanted("sd15", "bf16")


def asked_of_smi(field: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()


def test_each_gpu_is_told_as_its_driver_has_it() -> None:
    facts = gpu_facts({})
    assert [gpu["name"] for gpu in facts["gpus"]] == asked_of_smi("name")
    assert facts["driver"]["version"] == asked_of_smi("driver_version")[0]
    assert facts["driver"]["cuda"] is not None
    for gpu, driver_mib in zip(facts["gpus"], asked_of_smi("memory.total"), strict=True):
        assert gpu["memory"] / 2**20 == pytest.approx(float(driver_mib), rel=0.05)
        assert 0 < gpu["free"] <= gpu["memory"]
        assert gpu["bf16"] == (gpu["capability"] >= (8, 0))
        assert gpu["fault"] is None


def test_what_is_told_names_memory_driver_and_bf16() -> None:
    facts = gpu_facts({})
    [first, *_] = judge_gpus(facts, NodeSaid("here", {}), SMALL)
    gpu, driver = facts["gpus"][0], facts["driver"]
    for part in (gpu["name"], gib(gpu["memory"]), driver["version"], f"CUDA {driver['cuda']}", torch.version.cuda):
        assert str(part) in first.found
    assert ("bf16" in first.found) and ("no bf16" in first.found) == (not gpu["bf16"])
    assert first.level == ("good" if gpu["free"] >= 2 * SMALL.weight_bytes else "warning")


def test_a_gpu_of_which_most_is_held_is_told_as_full() -> None:
    free = gpu_facts({})["gpus"][0]["free"]
    held = torch.empty(int(free - SMALL.weight_bytes / 2), dtype=torch.uint8, device="cuda")
    try:
        [first, *_] = judge_gpus(gpu_facts({}), NodeSaid("here", {}), SMALL)
    finally:
        del held
        torch.cuda.empty_cache()
    assert first.level == "bad"
    assert "weights alone" in first.found


def test_gpus_that_ray_hides_from_a_task_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets it so for a task that asked for no GPU; in a process of its own, since torch looks once."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("RAY_RAYLET_PID", "1")
    inquiry = Inquiry(NODE, {}, ["gpus"])
    hear([inquiry])
    assert len(inquiry.heard.values["gpus"]["gpus"]) == len(asked_of_smi("name"))
