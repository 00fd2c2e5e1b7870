"""What the machines do at the moment, in a line for who watches a search."""

from __future__ import annotations

from contextlib import suppress

import pynvml
import ray

GIB = 2**30


def usage() -> str:
    """`3 of 4 GPUs; here 97% busy, 21.3 of 24.0 GiB`, or `2 of 2 CPU cores`; empty where no Ray is connected.

    Ray knows what it has given away, on all nodes; how busy a GPU is, only its own machine's driver.
    """
    if not ray.is_initialized():
        return ""
    with suppress(Exception):  # a cluster that doesn't answer just now must not end what is only looked at
        return "; here ".join(filter(None, [_given_away(), _gpus_here()]))
    return ""


def _given_away() -> str:
    whole, free = ray.cluster_resources(), ray.available_resources()
    kind, unit = ("GPU", "GPUs") if whole.get("GPU") else ("CPU", "CPU cores")
    return f"{whole[kind] - free.get(kind, 0):g} of {whole[kind]:g} {unit}" if whole.get(kind) else ""


def _gpus_here() -> str:
    """The mean over this machine's GPUs of how busy they are, and their memory in all; empty where there is none."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ""
    try:
        gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        busy = [pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu for gpu in gpus]
        memory = [pynvml.nvmlDeviceGetMemoryInfo(gpu) for gpu in gpus]
    except pynvml.NVMLError:  # parts of a GPU (MIG) tell no use
        return ""
    finally:
        pynvml.nvmlShutdown()
    if not gpus:
        return ""
    used, total = sum(one.used for one in memory) / GIB, sum(one.total for one in memory) / GIB
    return f"{sum(busy) / len(busy):.0f}% busy, {used:.1f} of {total:.1f} GiB"
