"""How weights are moved: the settings of optimizer, learning-rate schedule and loss, and the rules between them."""

from __future__ import annotations

import difflib
import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from raylora.config_section import Section
from raylora.own_code import OWN_NAME

POLYNOMIAL_END = 1e-7
"""Where diffusers' polynomial schedule ends (`lr_end`, which `get_scheduler` doesn't hand on)."""
OPTIMIZER_NAMES = ("adamw", "adamw8bit", "lion", "lion8bit", "prodigy", "adafactor", "adamw_schedule_free")
"""The keys of `training.optimizers.OPTIMIZERS`, which this room may not import."""


def _check_optimizer_name(name: str) -> str:
    if name in OPTIMIZER_NAMES or OWN_NAME.fullmatch(name):
        return name
    close = difflib.get_close_matches(name.lower(), OPTIMIZER_NAMES, n=1)
    raise ValueError(
        f"should be {', '.join(map(repr, OPTIMIZER_NAMES))} or package.module:Class such as torch.optim:RAdam"
        + (f"; did you mean {close[0]}?" if close else "")
    )


def _read_argument(value: Any) -> Any:
    """Lists become tuples, and `1e-8`, which YAML reads as text, a number."""
    if isinstance(value, (list, tuple)):
        return tuple(_read_argument(part) for part in value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    if value is None or isinstance(value, (int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{value!r} is no finite number, no text and no list of them")


def _check_arguments(arguments: dict[str, Any] | None) -> dict[str, Any] | None:
    for name in arguments or {}:
        if name in ("params", "lr", "weight_decay"):
            raise ValueError(f"{name} is not set here but by the optimizer's other settings")
        if not name.isidentifier():
            raise ValueError(f"{name!r} is no name of an argument")
    return {name: _read_argument(value) for name, value in arguments.items()} if arguments else None


class OptimizerConfig(Section):
    name: Annotated[str, AfterValidator(_check_optimizer_name)] = Field(
        "adamw",
        description="Guide: AdamW8bit; AdamW for SDXL; Lion at a tenth of AdamW's rate; Prodigy at rate 1. Any other "
        "class that is installed: package.module:Class.",
    )
    arguments: Annotated[dict[str, Any] | None, AfterValidator(_check_arguments)] = Field(
        None, description="More arguments for the optimizer's class, such as {betas: [0.9, 0.99]}."
    )
    learning_rate: float = Field(1e-4, gt=0, description="For every part without a rate of its own. Guide: from 1e-4.")
    unet_lr: float | None = Field(None, gt=0, description="The U-Net's rate. Guide: 1e-4; SDXL character 2e-4.")
    text_encoder_lr: float | None = Field(
        None, gt=0, description="The text encoder's rate. Guide: a half to a tenth of the U-Net's."
    )
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    loraplus_ratio: float | None = Field(
        None, gt=0, description="LoRA+: the B matrices learn at this many times the rate. Its paper: 16."
    )

    @property
    def unet_rate(self) -> float:
        return self.learning_rate if self.unet_lr is None else self.unet_lr

    @property
    def text_encoder_rate(self) -> float:
        return self.learning_rate if self.text_encoder_lr is None else self.text_encoder_lr

    @property
    def is_prodigy(self) -> bool:
        return self.name in ("prodigy", "prodigyopt:Prodigy")

    @property
    def is_schedule_free(self) -> bool:
        return "schedulefree" in self.name.lower().replace("_", "")


def _check_step_rules(rules: str | None) -> str | None:
    """Factors of the rate and the optimizer steps at which they end, the last without an end."""
    number = r"\d+(\.\d*)?([eE][+-]?\d+)?"
    if rules is None:
        return rules
    if not re.fullmatch(rf"({number}:\d+,)*{number}", rules):
        raise ValueError('should be factor:step,…,factor such as "1:10,0.1:20,0.01": 1 for 10 steps, 0.1 until step 20')
    ends = [int(rule.partition(":")[2]) for rule in rules.split(",")[:-1]]
    if ends != sorted(set(ends)):
        raise ValueError(f"the steps must rise from rule to rule, not {', '.join(map(str, ends))}")
    return rules


class LrSchedulerConfig(Section):
    name: Literal[
        "constant", "constant_with_warmup", "piecewise_constant",
        "linear", "cosine", "cosine_with_restarts", "polynomial",
    ] = Field(
        "cosine", description="How the rate falls over the run. Guide: cosine; with 3-5 restarts; constant for SDXL."
    )  # fmt: skip
    num_restarts: int | None = Field(
        None, ge=1, description="Cycles of cosine_with_restarts, and of no other; unset: 3. Guide: 3-5."
    )
    step_rules: Annotated[str | None, AfterValidator(_check_step_rules)] = Field(
        None,
        description="For piecewise_constant, in diffusers' spelling: 1:10,0.1:20,0.01 is the whole rate for 10 "
        "optimizer steps, a tenth until step 20, then a hundredth.",
    )
    power: float = Field(1.0, gt=0, description="Power of polynomial; 1 is a straight line. Others don't use it.")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="Share of the steps over which the rate rises from 0.")


class LossConfig(Section):
    """What the training loss is; the measures that judge a trial don't depend on it."""

    type: Literal["mse", "huber"] = Field(
        "mse", description="Squared error, or pseudo-Huber, which counts outliers less."
    )
    huber_c: float = Field(
        0.1,
        gt=0,
        description="Error, in standard deviations of the noise, from which huber grows linearly. kohya: 0.1.",
    )
    snr_gamma: float | None = Field(
        None, gt=0, description="Min-SNR weights: easy timesteps count less. Its paper: 5; kohya's min_snr_gamma."
    )
    noise_offset: float = Field(
        0.0, ge=0, description="Shift of each channel's noise, in its standard deviations; 0 is off. kohya: about 0.1."
    )
    multires_noise_iterations: int = Field(
        0, ge=0, description="Levels of multires (pyramid) noise; 0 is off. Guide: 6-10, with a discount."
    )
    multires_noise_discount: float | None = Field(
        None, gt=0, le=1, description="Weight of a level of multires noise over the one before. Guide: 0.3-0.8."
    )
    input_perturbation: float = Field(
        0.0, ge=0, description="Extra noise in the U-Net's input alone, in standard deviations; 0 is off. Paper: 0.1."
    )


def check_rates(optimizer: OptimizerConfig, trains_text: bool) -> None:
    """prodigyopt raises when parameter groups have different rates.

    Raises:
        ValueError: Prodigy would get more than one rate.
    """
    unet, text = optimizer.unet_rate, optimizer.text_encoder_rate
    if optimizer.is_prodigy and trains_text and unet != text:
        raise ValueError(
            f"optimizer: Prodigy needs one rate for all parts, but unet_lr is {unet:g} and "
            f"text_encoder_lr is {text:g}; set both to 1: --set optimizer.unet_lr=1 --set optimizer.text_encoder_lr=1"
        )
    if optimizer.is_prodigy and optimizer.loraplus_ratio not in (None, 1):
        raise ValueError(
            "optimizer.loraplus_ratio: Prodigy needs one rate for all weights, and LoRA+ gives the B matrices "
            f"{optimizer.loraplus_ratio:g} times the others'; unset it or choose another optimizer"
        )


def check_schedule(schedule: LrSchedulerConfig, optimizer: OptimizerConfig) -> None:
    """Settings that belong to one schedule alone.

    Raises:
        ValueError: the schedule has no such setting, lacks it, or would end above its own beginning.
    """
    if schedule.num_restarts is not None and schedule.name != "cosine_with_restarts":
        raise ValueError(
            f"lr_scheduler.num_restarts: {schedule.name} has no restarts, but num_restarts is "
            f"{schedule.num_restarts}; unset it or set lr_scheduler.name to cosine_with_restarts"
        )
    if schedule.step_rules is None and schedule.name == "piecewise_constant":
        raise ValueError("lr_scheduler: piecewise_constant needs step_rules such as 1:10,0.1:20,0.01; set them")
    if schedule.step_rules is not None and schedule.name != "piecewise_constant":
        raise ValueError(
            f"lr_scheduler.step_rules: {schedule.name} has no rules, but step_rules is {schedule.step_rules}; "
            "unset it or set lr_scheduler.name to piecewise_constant"
        )
    if schedule.name == "polynomial" and optimizer.unet_rate <= POLYNOMIAL_END:
        raise ValueError(
            f"lr_scheduler: polynomial ends at a rate of {POLYNOMIAL_END:g}, so the U-Net's rate must be above it, "
            f"not {optimizer.unet_rate:g}"
        )


def check_loss(loss: LossConfig) -> None:
    """Multires noise needs both of its settings.

    Raises:
        ValueError: one is there without the other.
    """
    iterations, discount = loss.multires_noise_iterations, loss.multires_noise_discount
    if iterations and discount is None:
        raise ValueError(
            f"loss.multires_noise_iterations: {iterations} iterations need a discount; "
            "set loss.multires_noise_discount, by the guide 0.3 to 0.8"
        )
    if discount is not None and not iterations:
        raise ValueError(
            f"loss.multires_noise_discount: a discount of {discount:g} has no effect without iterations; "
            "set loss.multires_noise_iterations, by the guide 6 to 10, or unset the discount"
        )


def optimization_warnings(optimizer: OptimizerConfig, schedule: LrSchedulerConfig, loss: LossConfig) -> list[str]:
    """What is allowed here but has no effect, or goes against the advice of those who made it."""
    found = []
    if optimizer.is_prodigy and not math.isclose(optimizer.unet_rate, 1.0):
        found.append(f"optimizer: Prodigy expects every rate at 1, not {optimizer.unet_rate:g}")
    if schedule.name in ("constant", "piecewise_constant") and schedule.warmup_ratio:
        found.append(f"lr_scheduler.warmup_ratio has no effect on {schedule.name}; use constant_with_warmup")
    if schedule.name != "polynomial" and schedule.power != 1:
        found.append(f"lr_scheduler.power has no effect on {schedule.name}; it is polynomial's")
    if optimizer.is_schedule_free and schedule.name not in ("constant", "constant_with_warmup"):
        found.append(
            f"lr_scheduler.name {schedule.name}: {optimizer.name} averages weights in place of a falling "
            "rate; use constant or constant_with_warmup"
        )
    if loss.type != "huber" and loss.huber_c != LossConfig().huber_c:
        found.append("loss.huber_c has no effect without loss.type huber")
    if loss.noise_offset and loss.multires_noise_iterations:
        found.append(
            "loss: noise_offset and multires_noise_iterations both shift the noise of whole images; "
            "kohya advises to use one of them"
        )
    return found
