"""Optimizers and learning-rate schedules, each from its own library."""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from raylora.config import LrSchedulerConfig, OptimizerConfig
from raylora.config_section import nearest
from raylora.errors import ConfigError, first_line
from raylora.own_code import load_named

ParamGroups = list[dict[str, Any]]
NamedParameters = Sequence[tuple[str, Parameter]]

LORA_B = ".lora_B."
"""In peft's names of the matrices that begin at zero. Those of embeddings are `lora_embedding_B`, and not meant."""
FUSED_DEVICES = ("cpu", "cuda")
DEFAULT_RESTARTS = 3
"""The fewest that the guide advises."""


@dataclass(frozen=True)
class Recipe:
    """A class as `package.module:Class`, and the arguments that it gets unless the configuration says otherwise."""

    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


OPTIMIZERS: dict[str, Recipe] = {
    # Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101
    "adamw": Recipe("torch.optim:AdamW"),
    # Dettmers et al. 2022, https://arxiv.org/abs/2110.02861; tensors under 4,096 elements keep 32-bit states
    "adamw8bit": Recipe("bitsandbytes.optim:AdamW8bit"),
    # Chen et al. 2023, https://arxiv.org/abs/2302.06675, meant for about a tenth of AdamW's rate
    "lion": Recipe("lion_pytorch:Lion"),
    "lion8bit": Recipe("bitsandbytes.optim:Lion8bit"),
    # Mishchenko & Defazio 2023, https://arxiv.org/abs/2306.06101, which finds its own rate from 1
    "prodigy": Recipe("prodigyopt:Prodigy", {"safeguard_warmup": True, "use_bias_correction": True}),
    # Shazeer & Stern 2018, https://arxiv.org/abs/1804.04235. transformers', because torch.optim.Adafactor can't leave
    # out the scaling by the weights' own size: LoRA's B matrices begin at zero, so they would begin at 1/1000 of the
    # rate; and its rate is capped at 1/sqrt(step), a schedule beside the configured one.
    "adafactor": Recipe("transformers.optimization:Adafactor", {"scale_parameter": False, "relative_step": False}),
    # Defazio et al. 2024, https://arxiv.org/abs/2405.15682; its averaged weights are `averages.py`'s business
    "adamw_schedule_free": Recipe("schedulefree:AdamWScheduleFree"),
}


def param_groups(named: Mapping[str, NamedParameters], config: OptimizerConfig) -> ParamGroups:
    """One group per part with weights, at the part's rate; with LoRA+ two, the second for the B matrices.

    LoRA+ (Hayou et al. 2024, https://arxiv.org/abs/2402.12354): B learns at `loraplus_ratio` times A's rate.

    Args:
        named: by part ("unet", "text_encoder", "text_encoder_2"), names and weights; text encoders share one rate.
    """
    groups = []
    for part, weights in named.items():
        rate = config.unet_rate if part == "unet" else config.text_encoder_rate
        if config.loraplus_ratio is None:
            groups.append({"params": [weight for _, weight in weights], "lr": rate})
        else:
            groups.append({"params": [weight for name, weight in weights if LORA_B not in name], "lr": rate})
            fast = [weight for name, weight in weights if LORA_B in name]
            groups.append({"params": fast, "lr": rate * config.loraplus_ratio})
    return [group for group in groups if group["params"]]


def build_optimizer(groups: ParamGroups, config: OptimizerConfig) -> Optimizer:
    """The optimizer of `config.name` over parameter groups that carry their own `lr`, ready to step.

    Raises:
        ConfigError: the class can't be imported, is no optimizer, or refuses its arguments.
    """
    recipe = OPTIMIZERS.get(config.name) or Recipe(config.name)
    kind = _import_class(recipe.path)
    arguments = _arguments(kind, recipe, config, groups)
    try:
        with redirect_stdout(io.StringIO()):  # prodigyopt prints when it is made; stdout is for results
            optimizer: Optimizer = kind(groups, **arguments)
    except Exception as error:  # a class of the user's own may raise anything
        raise ConfigError(f"optimizer: {recipe.path} refuses its arguments: {first_line(error)}") from None
    optimizer.defaults.setdefault("lr", groups[0]["lr"])  # which diffusers' polynomial schedule reads
    if hasattr(optimizer, "train"):
        optimizer.train()  # schedulefree's classes take no step before
    return optimizer


def check_optimizer(config: OptimizerConfig, parts: Sequence[str] = ("unet",)) -> None:
    """Make the optimizer on weights of its own, a small LoRA for each part, and take a step.

    Raises:
        ConfigError: it can't be made, or can't step; the message names class and argument.
    """
    named = {part: [(f"x{name}weight", Parameter(torch.ones(4, 4))) for name in (".lora_A.", LORA_B)] for part in parts}
    groups = param_groups(named, config)
    optimizer = build_optimizer(groups, config)
    for _, weight in [pair for pairs in named.values() for pair in pairs]:
        weight.grad = torch.ones_like(weight)
    try:
        with redirect_stdout(io.StringIO()):
            optimizer.step()
    except Exception as error:
        raise ConfigError(
            f"optimizer.name {config.name}: can't train a LoRA, its first step fails: {first_line(error)}"
        ) from None


def _import_class(path: str) -> type[Any]:
    """The optimizer class that `package.module:Class` names."""
    try:
        kind = load_named(path)
    except Exception as error:  # whatever the module raises while it is imported
        raise ConfigError(
            f"optimizer.name {path}: can't be imported ({first_line(error)}); "
            "install its package, or correct package.module:Class"
        ) from None
    if not isinstance(kind, type) or not issubclass(kind, Optimizer):
        raise ConfigError(f"optimizer.name {path}: is no torch.optim.Optimizer; name a class that is one")
    return kind


def _arguments(kind: type[Any], recipe: Recipe, config: OptimizerConfig, groups: ParamGroups) -> dict[str, Any]:
    """All keyword arguments of the class: the shared settings that it knows, the recipe's, the configuration's.

    A class that takes any keyword is given the shared ones: it is to hand them on.
    """
    parameters = inspect.signature(kind).parameters
    known = [name for name in parameters if name not in ("self", "params")]
    own = config.arguments or {}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in own:
        if name not in known and not open_ended:
            raise ConfigError(
                f"optimizer.arguments: {recipe.path} has no argument {name!r}{nearest(name, known)}; "
                f"it knows {', '.join(known)}"
            )
    shared = {"lr": groups[0]["lr"], "weight_decay": config.weight_decay}
    shared = {name: value for name, value in shared.items() if name in known or open_ended}
    return shared | _fused(recipe, own, groups) | dict(recipe.arguments) | own


def _fused(recipe: Recipe, own: Mapping[str, Any], groups: ParamGroups) -> dict[str, bool]:
    """torch's single kernel for AdamW, on devices that have one: six times as fast on the many small LoRA weights."""
    has_kernel = all(weight.device.type in FUSED_DEVICES for group in groups for weight in group["params"])
    wanted = recipe == OPTIMIZERS["adamw"] and not {"foreach", "differentiable"} & set(own)
    return {"fused": True} if has_kernel and wanted else {}


def build_lr_scheduler(optimizer: Optimizer, config: LrSchedulerConfig, optimizer_steps: int) -> LRScheduler:
    """diffusers' schedule of `config.name` over `optimizer_steps` steps."""
    scheduler: LRScheduler = get_scheduler(
        config.name,
        optimizer,
        step_rules=config.step_rules,
        num_warmup_steps=round(config.warmup_ratio * optimizer_steps),
        num_training_steps=optimizer_steps,
        num_cycles=config.num_restarts or DEFAULT_RESTARTS,
        power=config.power,
    )
    return scheduler
