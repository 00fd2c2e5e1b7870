"""What the machines do at the moment, in a line for who watches a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pynvml
import ray

GIB = 2**30


def usage() -> str:
    """`3 of 4 GPUs; here 97% busy, 21.3 of 24.0 GiB`, or `2 of 2 CPU cores`; empty where no Ray is connected.

    Ray knows what it has given away, on all nodes; how busy a GPU is, only its own machine's driver. Both may take
    seconds to answer, or not at all.
    """
    if not ray.is_initialized():
        return ""
    return "; here ".join(filter(None, [_if_told(_given_away), _if_told(_gpus_here)]))


def _if_told(part: Callable[[], str]) -> str:
    try:
        return part()
    except Exception:  # what doesn't answer just now must not end what is only looked at, nor take the rest with it
        return ""


def _given_away() -> str:
    whole, free = ray.cluster_resources(), ray.available_resources()
    kind, unit = ("GPU", "GPUs") if whole.get("GPU") else ("CPU", "CPU cores")
    return f"{whole[kind] - free.get(kind, 0):g} of {whole[kind]:g} {unit}" if whole.get(kind) else ""


@lru_cache(maxsize=1)
def _gpus() -> Sequence[Any]:
    """This machine's GPUs as its driver has them, which is woken once; none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]


def _gpus_here() -> str:
    """The mean over this machine's GPUs of how busy they are, and their memory in all; empty where there is none.

    Raises:
        pynvml.NVMLError: they tell no use, as parts of a GPU (MIG).
    """
    if not _gpus():
        return ""
    busy = [pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu for gpu in _gpus()]
    memory = [pynvml.nvmlDeviceGetMemoryInfo(gpu) for gpu in _gpus()]
    used, total = sum(one.used for one in memory) / GIB, sum(one.total for one in memory) / GIB
    return f"{sum(busy) / len(busy):.0f}% busy, {used:.1f} of {total:.1f} GiB"
