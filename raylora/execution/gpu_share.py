"""Several trials on one GPU: whether they fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import nn

from raylora.config import Experiment
from raylora.diffusion.adapters import count_trained
from raylora.diffusion.base import UNET
from raylora.diffusion.families import DTYPES, FAMILIES, resolve_base, skeleton
from raylora.errors import ConfigError
from raylora.execution.gpu_part import CONTEXT_BYTES
from raylora.execution.share import Share, slots_per_gpu

MOMENT_BYTES = {"adamw": 8, "adamw8bit": 2, "lion": 4, "lion8bit": 1}
"""An optimizer's state for each trained weight, at least; of those not named, none is counted."""
WEIGHT_AND_GRADIENT_BYTES = 8
ASK_S = 60
"""So long a GPU that others keep busy may leave the question for its memory unanswered; then nothing is compared."""


def check_parts(experiment: Experiment, share: Share) -> None:
    """Whether a part of a GPU holds a trial, on every node of the connected cluster that is there already.

    Args:
        experiment: of a trial that surely runs, such as the first point's.

    Raises:
        ConfigError: it doesn't, whatever the pictures.
    """
    if 0 < share.gpus < 1:
        check_fits(least_bytes(experiment), share.gpus, _memories(share.gpus))


def check_fits(needed: int, gpus_per_trial: float, memories: Mapping[str, int]) -> None:
    """Compare what a trial needs at least with its part of each GPU.

    Args:
        needed: in bytes, CUDA's own included.
        memories: of a GPU on each node, in bytes.

    Raises:
        ConfigError: it can't fit.
    """
    if not memories:
        return
    node = min(memories, key=lambda name: memories[name])
    part = memories[node] * gpus_per_trial
    if needed > part:
        raise ConfigError(
            f"search.gpus_per_trial {gpus_per_trial:g}: a trial needs {needed / 2**30:.1f} GiB of GPU memory before it "
            f"sees a picture, and {gpus_per_trial:g} of node {node}'s GPU is {part / 2**30:.1f} GiB; give "
            f"--gpus-per-trial {_part_that_holds(needed, memories[node], gpus_per_trial)}, or take less by "
            "training.mixed_precision=bf16 or a lower lora.rank"
        )


def _part_that_holds(needed: int, memory: int, too_small: float) -> str:
    """The smallest part that holds a trial and leaves room for as many others: 0.33 for a third."""
    parts = [int(100 / count) / 100 for count in range(slots_per_gpu(too_small), 1, -1)]
    return next((f"{part:g} or more" for part in parts if needed <= part * memory), "1")


def least_bytes(experiment: Experiment) -> int:
    """Least GPU memory that a training takes, in bytes, CUDA's own included.

    The base model's parts, as they are all loaded; then those that stay, with the LoRA, its gradients and the
    optimizer's state. Activations, which depend on the kernels, and the VAE are left out.
    """
    model = experiment.model
    family = FAMILIES[model.family]
    parts = skeleton(family, resolve_base(model.base_model, model.family) if model.base_model else None)
    size = DTYPES[experiment.training.mixed_precision].itemsize
    kept = parts if model.train_text_encoder else {UNET: parts[UNET]}
    each = WEIGHT_AND_GRADIENT_BYTES + MOMENT_BYTES.get(experiment.optimizer.name, 0)
    trained = count_trained(parts, experiment.lora, model.train_text_encoder) * each
    return CONTEXT_BYTES + max(_weights(parts.values()) * size, _weights(kept.values()) * size + trained)


def _weights(modules: Iterable[nn.Module]) -> int:
    return sum(weight.numel() for module in modules for weight in module.parameters())


def _memories(gpus: float) -> dict[str, int]:
    """The memory of a GPU on each node that has any, asked for there; of nodes that don't answer, none."""
    ask = ray.remote(num_cpus=0, num_gpus=gpus)(_memory_here)
    nodes = {
        node["NodeManagerHostname"]: ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU")
    }
    answered, late = ray.wait(list(nodes.values()), num_returns=len(nodes), timeout=ASK_S) if nodes else ([], [])
    for task in late:
        ray.cancel(task)
    told = {name: _told(task) for name, task in nodes.items() if task in answered}
    return {name: memory for name, memory in told.items() if memory}


def _told(task: Any) -> int | None:
    """What a node's process said; None of one that died, or that lacks raylora."""
    with suppress(ray.exceptions.RayError):
        memory: int | None = ray.get(task)
        return memory
    return None


def _memory_here() -> int | None:
    """Of the GPU that was given to this process; None where torch finds none."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
