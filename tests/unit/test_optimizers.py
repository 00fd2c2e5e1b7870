"""Parameter groups, and what is said of an optimizer that can't be made; the table itself is the contract suite's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from raylora.config import LrSchedulerConfig, OptimizerConfig
from raylora.errors import ConfigError
from raylora.training.optimizers import build_lr_scheduler, build_optimizer, check_optimizer, param_groups


class Stubborn(torch.optim.Optimizer):
    """Made without complaint, and then never steps."""

    def __init__(self, params: Any, lr: float = 1e-3):
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise RuntimeError("not today")


def config(**settings: Any) -> OptimizerConfig:
    return OptimizerConfig.model_validate(settings)


def lora(part: str) -> list[tuple[str, Parameter]]:
    names = ("q.lora_A.one.weight", "q.lora_B.one.weight", "e.lora_embedding_B.one", "k.lora_B.one.weight")
    return [(f"{part}.{name}", Parameter(torch.ones(2, 2))) for name in names]


def weights(*pairs: tuple[str, Parameter]) -> list[int]:
    return [id(weight) for _, weight in pairs]


def groups_of(named: dict[str, list[tuple[str, Parameter]]], **settings: Any) -> list[tuple[float, list[int]]]:
    groups = param_groups(named, config(**settings))
    return [(group["lr"], [id(weight) for weight in group["params"]]) for group in groups]


def test_a_part_is_a_group_at_its_rate() -> None:
    unet, first, second = lora("u"), lora("t"), lora("s")
    named = {"unet": unet, "text_encoder": first, "text_encoder_2": second}
    assert groups_of(named, unet_lr=3e-4, text_encoder_lr=1e-4) == [
        (3e-4, weights(*unet)),
        (1e-4, weights(*first)),
        (1e-4, weights(*second)),
    ]


def test_parts_without_weights_have_no_group() -> None:
    unet = lora("u")
    assert groups_of({"unet": unet, "text_encoder": []}) == [(1e-4, weights(*unet))]
    assert len(groups_of({"unet": unet, "text_encoder": []}, loraplus_ratio=4)) == 2


def test_lora_plus_speeds_up_the_b_matrices_of_every_part_and_no_embedding() -> None:
    unet, text = lora("u"), lora("t")
    assert groups_of({"unet": unet, "text_encoder": text}, unet_lr=1e-4, text_encoder_lr=2e-5, loraplus_ratio=16) == [
        (1e-4, weights(unet[0], unet[2])),
        (pytest.approx(16e-4), weights(unet[1], unet[3])),
        (2e-5, weights(text[0], text[2])),
        (pytest.approx(32e-5), weights(text[1], text[3])),
    ]


def test_lora_plus_reaches_the_weights() -> None:
    (_, a), (_, b), *_ = pairs = lora("u")
    settings = config(learning_rate=1e-3, loraplus_ratio=8, weight_decay=0)
    optimizer = build_optimizer(param_groups({"unet": pairs}, settings), settings)
    for _, weight in pairs:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert (1 - a).mean().item() == pytest.approx(1e-3, rel=1e-3)
    assert (1 - b).mean().item() == pytest.approx(8e-3, rel=1e-3)


def made(**settings: Any) -> torch.optim.Optimizer:
    return build_optimizer(param_groups({"unet": lora("u")}, config(**settings)), config(**settings))


def test_arguments_reach_the_class() -> None:
    assert made(arguments={"betas": [0.8, 0.95], "eps": "1e-6"}).defaults["betas"] == (0.8, 0.95)
    assert made(arguments={"eps": "1e-6"}).defaults["eps"] == 1e-6
    assert made(name="lion", arguments={"betas": (0.95, 0.98)}).defaults["betas"] == (0.95, 0.98)
    assert (
        made(name="prodigy", learning_rate=1, arguments={"safeguard_warmup": False}).defaults["safeguard_warmup"]
        is False
    )


def test_any_class_can_be_named() -> None:
    optimizer = made(name="torch.optim:SGD", learning_rate=0.5, weight_decay=0.25, arguments={"momentum": 0.9})
    assert type(optimizer) is torch.optim.SGD
    assert [(group["lr"], group["weight_decay"], group["momentum"]) for group in optimizer.param_groups] == [
        (0.5, 0.25, 0.9)
    ]
    check_optimizer(config(name="schedulefree:RAdamScheduleFree"))


class HandsOn(torch.optim.AdamW):
    """Takes whatever AdamW does."""

    def __init__(self, params: Any, **arguments: Any):
        super().__init__(params, **arguments)


class WithoutRate(torch.optim.SGD):
    """Has its rates from its groups alone."""

    def __init__(self, params: Any):
        super().__init__(params)
        del self.defaults["lr"]


def test_a_class_that_takes_any_keyword_gets_the_shared_settings() -> None:
    assert made(name=f"{__name__}:HandsOn", weight_decay=0.3).defaults["weight_decay"] == 0.3


def test_a_class_without_a_rate_of_its_own_can_follow_every_schedule() -> None:
    build_lr_scheduler(made(name=f"{__name__}:WithoutRate"), LrSchedulerConfig(name="polynomial"), 10)


def test_a_class_without_weight_decay_gets_none() -> None:
    assert "weight_decay" not in made(name="torch.optim:Rprop").defaults


ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, ON_GPU])])
def test_adamw_is_fused(device: str) -> None:
    groups = [{"params": [Parameter(torch.ones(2, 2, device=device))], "lr": 1e-3}]
    assert build_optimizer(groups, config()).defaults["fused"] is True
    assert not build_optimizer(groups, config(arguments={"foreach": True})).defaults["fused"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"arguments": {"bets": [0.9, 0.99]}}, ["optimizer.arguments", "torch.optim:AdamW", "'bets'", "mean betas?"]),
        ({"name": "lion", "arguments": {"eps": 1e-8}}, ["optimizer.arguments", "lion_pytorch:Lion", "'eps'", "betas"]),
        ({"arguments": {"betas": [0.9, 7]}}, ["optimizer", "torch.optim:AdamW", "beta parameter"]),
        ({"name": "no_such_package:Adam"}, ["optimizer.name", "no_such_package:Adam", "install its package"]),
        ({"name": "torch.optim:Adamm"}, ["optimizer.name", "torch.optim:Adamm", "can't be imported"]),
        ({"name": "collections:OrderedDict"}, ["optimizer.name", "collections:OrderedDict", "is no torch.optim"]),
        ({"name": "torch.optim:lr_scheduler"}, ["torch.optim:lr_scheduler", "no torch.optim.Optimizer"]),
        ({"name": "tests.unit.test_optimizers:Stubborn"}, ["Stubborn", "first step fails", "not today"]),
        ({"name": "prodigyopt:Prodigy", "loraplus_ratio": 4}, ["prodigyopt:Prodigy", "first step fails"]),
    ],
)  # fmt: skip
def test_an_optimizer_that_cannot_be_made_is_told_before_training(settings: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_optimizer(config(**settings))
    for fragment in told:
        assert fragment in str(caught.value)


def test_unequal_rates_show_where_the_parts_are_known() -> None:
    rates = config(name="prodigyopt:Prodigy", unet_lr=1, text_encoder_lr=0.5)
    check_optimizer(rates)
    with pytest.raises(ConfigError, match="first step fails"):
        check_optimizer(rates, ("unet", "text_encoder"))
