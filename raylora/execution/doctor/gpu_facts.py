"""What the driver, torch and bitsandbytes say of a machine's GPUs."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from raylora.errors import first_line

SMI_S = 30
SMI_FIELDS = ("name", "memory.total", "memory.free", "driver_version")
DRIVER_FILE = Path("/proc/driver/nvidia/version")
LIBCUDA = "libcuda.so.1"
SIDE = 128
"""A matrix of bitsandbytes' states is 8-bit from 4,096 numbers on."""


def gpu_facts(_: Mapping[str, str]) -> dict[str, Any]:
    """What the driver has, what torch finds, and whether each GPU can multiply."""
    import torch

    count, fault = 0, None
    try:
        torch.cuda.current_device()  # which begins CUDA; `device_count` alone gives 0 and no reason
        count = torch.cuda.device_count()
    except Exception as error:  # AssertionError of a build without CUDA, RuntimeError of the rest
        fault = first_line(error)
    return {
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "torch_rocm": torch.version.hip,
        "fault": fault,
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "driver": _driver_facts(),
        "gpus": [_gpu(number) for number in range(count)],
    }


def _gpu(number: int) -> dict[str, Any]:
    """A GPU as torch has it; bytes of memory, of which `free` is what no program holds."""
    import torch

    properties = torch.cuda.get_device_properties(number)
    found = {
        "name": properties.name,
        "memory": properties.total_memory,
        "free": 0,
        "capability": (properties.major, properties.minor),
        "bf16": False,
        "fault": None,
    }
    try:
        with torch.cuda.device(number):
            found["free"] = torch.cuda.mem_get_info()[0]
            found["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
            ones = torch.ones(SIDE, SIDE, device="cuda")
            if (ones @ ones)[0, 0].item() != SIDE:
                found["fault"] = "multiplies wrongly"
    except Exception as error:  # full, in exclusive use, or of an architecture that torch was not built for
        found["fault"] = first_line(error)
    return found


def _driver_facts() -> dict[str, Any]:
    """The driver's GPUs, its version and the newest CUDA that it can run, without torch."""
    gpus, fault = _ask_smi()
    return {
        "gpus": gpus,
        "fault": fault,
        "version": gpus[0]["driver_version"] if gpus else _driver_version(),
        "cuda": _driver_cuda(),
    }


def _ask_smi() -> tuple[list[dict[str, str]], str | None]:
    if shutil.which("nvidia-smi") is None:
        return [], None
    command = ["nvidia-smi", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=SMI_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi doesn't answer ({first_line(error)})"
    if told.returncode:
        words = (told.stdout + told.stderr).strip()
        return [], f"nvidia-smi fails ({words.splitlines()[0] if words else told.returncode})"
    rows = [[cell.strip() for cell in line.split(",")] for line in told.stdout.splitlines() if line.strip()]
    return [dict(zip(SMI_FIELDS, row, strict=True)) for row in rows if len(row) == len(SMI_FIELDS)], None


def _driver_version() -> str | None:
    """Of the kernel's module, where nvidia-smi is not installed; None where there is no driver."""
    with suppress(OSError, IndexError):
        words = DRIVER_FILE.read_text().split("Kernel Module", 1)[1].split()
        return next((word for word in words if word[0].isdigit()), None)
    return None


def _driver_cuda() -> str | None:
    """By `cuDriverGetVersion`, which needs no device: 12080 is 12.8."""
    number = ctypes.c_int(0)
    with suppress(OSError, AttributeError):
        if ctypes.CDLL(LIBCUDA).cuDriverGetVersion(ctypes.byref(number)) == 0:
            return f"{number.value // 1000}.{number.value % 1000 // 10}"
    return None


def bitsandbytes_facts(_: Mapping[str, str]) -> dict[str, str]:
    """Where its 8-bit AdamW takes a step; raises what it fails with.

    Raises:
        Exception: the package is missing, or can't be used on this machine's GPU.
    """
    import torch
    from bitsandbytes.optim import AdamW8bit

    device = "cuda" if torch.cuda.is_available() else "cpu"
    weight = torch.nn.Parameter(torch.ones(SIDE, SIDE, device=device))
    weight.grad = torch.ones_like(weight)
    AdamW8bit([weight], lr=0.1).step()
    if not float(weight.detach()[0, 0]) < 1.0:
        raise ValueError(f"its 8-bit AdamW changes no weight on {device}")
    return {"device": device}
