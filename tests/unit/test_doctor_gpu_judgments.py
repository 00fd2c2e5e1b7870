"""What is said of GPUs, judged: facts in, level and mend out."""

from __future__ import annotations

from typing import Any

import pytest

from raylora.execution.doctor.judge_gpu import judge_bitsandbytes, judge_gpus
from raylora.execution.doctor.judge_node import NodeSaid
from raylora.execution.doctor.rows import GIB, Finding
from raylora.execution.doctor.wanted import Wanted

H100 = {"name": "NVIDIA H100", "memory": 80 * GIB, "free": 78 * GIB, "bf16": True, "fault": None}
OLD = H100 | {"name": "Tesla T4", "memory": 16 * GIB, "free": 15 * GIB, "bf16": False}
SEEN = {"name": "NVIDIA H100", "memory.total": "81559", "memory.free": "81000", "driver_version": "570.86"}
DRIVER = {"gpus": [SEEN], "fault": None, "version": "570.86", "cuda": "12.8"}
NO_DRIVER = {"gpus": [], "fault": None, "version": None, "cuda": None}
FACTS = {
    "torch": "2.13.0+cu128",
    "torch_cuda": "12.8",
    "torch_rocm": None,
    "fault": None,
    "visible": None,
    "driver": DRIVER,
    "gpus": [H100],
}
SMALL = Wanted("sd15", "bf16")


def judged(wanted: Wanted = SMALL, ray_gpus: float | None = None, elsewhere: bool = False, **changes: Any) -> Finding:
    """The worst finding."""
    node = NodeSaid("here", {}, ray_gpus=ray_gpus, has_gpus_elsewhere=elsewhere)
    levels = ["good", "warning", "bad"]
    return max(judge_gpus(FACTS | changes, node, wanted), key=lambda finding: levels.index(finding.level))


def test_a_gpu_that_works_is_told_with_all_that_is_known() -> None:
    found = judged()
    assert (found.level, found.mend) == ("good", None)
    assert found.found == "NVIDIA H100, 80.0 GiB, 78.0 GiB free, driver 570.86 (CUDA 12.8), torch for CUDA 12.8, bf16"


def test_a_gpu_is_told_where_nvidia_smi_is_not_installed() -> None:
    found = judged(driver=NO_DRIVER)
    assert found.level == "good"
    assert "torch for CUDA 12.8" in found.found


WITHOUT_GPU: list[tuple[dict[str, Any], str, str, str]] = [
    ({"driver": NO_DRIVER, "torch_cuda": None}, "warning", "none: trials share the processor cores", "NVIDIA GPU"),
    ({"torch_cuda": None, "torch": "2.13.0+cpu"}, "bad", "torch 2.13.0+cpu is built without CUDA", "CUDA 12.8"),
    ({"torch_cuda": "13.0"}, "bad", "driver 570.86, CUDA 12.8, but torch 2.13.0+cu128 is built for CUDA 13.0", "newer"),
    ({"visible": ""}, "bad", "CUDA_VISIBLE_DEVICES is ''", "unset CUDA_VISIBLE_DEVICES"),
    ({"fault": "unknown error"}, "bad", "torch finds none (unknown error)", "nvidia-smi"),
    ({"driver": NO_DRIVER | {"fault": "nvidia-smi fails (no device)"}}, "bad", "nvidia-smi fails", "driver anew"),
    ({"driver": NO_DRIVER | {"version": "535.1"}, "torch_cuda": None}, "bad", "a GPU driver, driver 535.1", "build"),
]


@pytest.mark.parametrize(
    ("changes", "level", "found", "mend"), WITHOUT_GPU, ids=[str(changes)[:40] for changes, *_ in WITHOUT_GPU]
)
def test_why_torch_has_no_gpu_is_told(changes: dict[str, Any], level: str, found: str, mend: str) -> None:
    finding = judged(gpus=[], **changes)
    assert finding.level == level
    assert found in finding.found
    assert mend in (finding.mend or "")


def test_within_a_major_version_of_cuda_an_older_driver_is_not_to_blame() -> None:
    assert "built for CUDA" not in judged(gpus=[], torch_cuda="12.9").found


def test_a_node_without_a_gpu_is_good_where_others_have_some() -> None:
    assert judged(gpus=[], driver=NO_DRIVER, elsewhere=True, ray_gpus=0).level == "good"
    assert judged(gpus=[], driver=NO_DRIVER, elsewhere=True, ray_gpus=2).level == "bad"
    assert judged(gpus=[], driver=NO_DRIVER, ray_gpus=0).level == "warning"


def test_a_gpu_that_fails_is_bad() -> None:
    finding = judged(gpus=[H100, H100 | {"fault": "no kernel image is available"}])
    assert finding.level == "bad"
    assert "no kernel image is available" in finding.found


@pytest.mark.parametrize(
    ("family", "mixed_precision", "free_gib", "level"),
    [
        ("sd15", "bf16", 6, "good"),
        ("sd15", "bf16", 5, "warning"),
        ("sd15", "bf16", 2, "bad"),
        ("sd15", "no", 10, "warning"),
        ("sdxl", "bf16", 10, "warning"),
        ("sdxl", "no", 14, "bad"),
        ("demo", "no", 0.1, "good"),
    ],
)
def test_free_memory_is_weighed_against_the_models_weights(
    family: str, mixed_precision: str, free_gib: float, level: str
) -> None:
    finding = judged(Wanted(family, mixed_precision), gpus=[H100 | {"free": free_gib * GIB}])
    assert finding.level == level
    offered = "mixed_precision=bf16" in (finding.mend or "")
    assert offered == (level != "good" and mixed_precision == "no")


def test_bf16_is_asked_for_where_it_is_used() -> None:
    finding = judged(Wanted("sd15", "bf16"), gpus=[OLD])
    assert finding.level == "warning"
    assert finding.mend == "--set training.mixed_precision=fp16"
    assert judged(Wanted("sd15", "fp16"), gpus=[OLD]).level == "good"


@pytest.mark.parametrize(("given", "level"), [(None, "good"), (1, "good"), (0, "warning"), (2, "bad")])
def test_ray_must_give_away_the_gpus_that_are_there(given: float | None, level: str) -> None:
    finding = judged(ray_gpus=given)
    assert finding.level == level
    assert ("--num-gpus=1" in (finding.mend or "")) == (level != "good")


@pytest.mark.parametrize(("optimizer", "level"), [("adamw", "warning"), ("adamw8bit", "bad"), ("lion8bit", "bad")])
def test_bitsandbytes_counts_as_much_as_it_is_used(optimizer: str, level: str) -> None:
    node = NodeSaid("here", {})
    [finding] = judge_bitsandbytes("OSError: no libcudart", node, Wanted(optimizer=optimizer))
    assert finding.level == level
    assert "no libcudart" in finding.found
    assert "optimizer.name=adamw" in (finding.mend or "")
    assert judge_bitsandbytes({"device": "cuda"}, node, Wanted(optimizer=optimizer))[0].level == "good"
