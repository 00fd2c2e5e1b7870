"""Optimizers and learning-rate schedules, each from its own library."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from raylora.config import LrSchedulerConfig, OptimizerConfig

ParamGroups = list[dict[str, Any]]
Builder = Callable[[ParamGroups, OptimizerConfig], Optimizer]


def adamw(groups: ParamGroups, config: OptimizerConfig) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101)."""
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def adamw8bit(groups: ParamGroups, config: OptimizerConfig) -> Optimizer:
    """AdamW with 8-bit states (Dettmers et al. 2022, https://arxiv.org/abs/2110.02861); tensors under 4,096
    elements keep 32-bit states, as bitsandbytes has it by default."""
    from bitsandbytes.optim import AdamW8bit

    optimizer: Optimizer = AdamW8bit(groups, weight_decay=config.weight_decay)
    return optimizer


def lion(groups: ParamGroups, config: OptimizerConfig) -> Optimizer:
    """Lion (Chen et al. 2023, https://arxiv.org/abs/2302.06675), meant for about a tenth of AdamW's rate."""
    from lion_pytorch import Lion

    optimizer: Optimizer = Lion(groups, weight_decay=config.weight_decay)
    return optimizer


def prodigy(groups: ParamGroups, config: OptimizerConfig) -> Optimizer:
    """Prodigy (Mishchenko & Defazio 2023, https://arxiv.org/abs/2306.06101), which finds its own rate from 1."""
    from prodigyopt import Prodigy

    with redirect_stdout(io.StringIO()):  # prodigyopt prints when it is made; stdout is for results
        optimizer: Optimizer = Prodigy(
            groups, lr=1.0, weight_decay=config.weight_decay, safeguard_warmup=True, use_bias_correction=True
        )
    return optimizer


OPTIMIZERS: dict[str, Builder] = {"adamw": adamw, "adamw8bit": adamw8bit, "lion": lion, "prodigy": prodigy}


def build_optimizer(groups: ParamGroups, config: OptimizerConfig) -> Optimizer:
    """The optimizer of `config.name` over parameter groups that carry their own `lr`."""
    return OPTIMIZERS[config.name](groups, config)


def build_lr_scheduler(optimizer: Optimizer, config: LrSchedulerConfig, optimizer_steps: int) -> LRScheduler:
    """diffusers' schedule of `config.name` over `optimizer_steps` steps."""
    scheduler: LRScheduler = get_scheduler(
        config.name,
        optimizer,
        num_warmup_steps=round(config.warmup_ratio * optimizer_steps),
        num_training_steps=optimizer_steps,
        num_cycles=config.num_restarts,
    )
    return scheduler
