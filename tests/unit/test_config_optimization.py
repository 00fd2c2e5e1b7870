"""Rules between optimizer, schedule and loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raylora.config import Experiment
from raylora.config_files import (
    Layer,
    build_experiment,
    parse_assignments,
    read_experiment,
    write_experiment,
)
from raylora.errors import ConfigError


def complaint(*layers: tuple[str, dict[str, Any]]) -> str:
    with pytest.raises(ConfigError) as caught:
        build_experiment(Layer(source, settings) for source, settings in layers)
    return str(caught.value)


def setting(*assignments: str) -> Experiment:
    return build_experiment([parse_assignments(assignments)])


def test_a_warm_up_that_the_schedule_has_not_is_told() -> None:
    constant = Experiment().with_params({"lr_scheduler.name": "constant", "lr_scheduler.warmup_ratio": 0.1})
    assert any("constant_with_warmup" in warning for warning in constant.warnings())
    assert not constant.with_params({"lr_scheduler.name": "constant_with_warmup"}).warnings()


def test_an_unknown_optimizer_names_the_nearest() -> None:
    message = complaint(("job.yaml", {"optimizer": {"name": "AdamW_8bit"}}))
    assert message.startswith("job.yaml: optimizer.name: should be 'adamw', 'adamw8bit', ")
    assert "package.module:Class" in message
    assert "did you mean adamw8bit?" in message
    assert "(found 'AdamW_8bit')" in message


@pytest.mark.parametrize("name", ["torch.optim:RAdam", "schedulefree:RAdamScheduleFree", "my_package.sub:MyAdam2"])
def test_any_class_can_be_an_optimizer(name: str) -> None:
    assert setting(f"optimizer.name={name}").optimizer.name == name


@pytest.mark.parametrize(
    "name", ["sgd", "torch.optim", ":Adam", "torch:", "a b:C", "torch..optim:Adam", "1:2", "C:Adam", ""]
)
def test_other_names_are_no_optimizers(name: str) -> None:
    assert "optimizer.name" in complaint(("file", {"optimizer": {"name": name}}))


def test_arguments_of_optimizers() -> None:
    written = setting("optimizer.arguments={betas: [0.9, 0.99], eps: 1e-6, foreach: true}", "optimizer.arguments.k=2")
    assert written.optimizer.arguments == {"betas": (0.9, 0.99), "eps": 1e-6, "foreach": True, "k": 2}
    assert setting("optimizer.arguments={}").optimizer.arguments is None
    assert Experiment().with_params({"optimizer.arguments.eps": 1e-6}).optimizer.arguments == {"eps": 1e-6}


@pytest.mark.parametrize("arguments", [{"lr": 1}, {"weight_decay": 0}, {"a b": 1}, {"x": {"y": 1}}, {"x": 1e999}, 3])
def test_arguments_that_are_none(arguments: object) -> None:
    assert "file: optimizer.arguments" in complaint(("file", {"optimizer": {"arguments": arguments}}))


def test_arguments_survive_the_file(tmp_path: Path) -> None:
    experiment = setting("optimizer.arguments={betas: [0.9, 0.99], eps: 1e-6, foreach: null, name: '1e-3x'}")
    write_experiment(experiment, tmp_path / "experiment.yaml")
    assert read_experiment(tmp_path / "experiment.yaml") == experiment


def test_prodigy_and_lora_plus_exclude_each_other() -> None:
    prodigy = ("job.yaml", {"optimizer": {"name": "prodigy", "learning_rate": 1, "loraplus_ratio": 16}})
    message = complaint(prodigy)
    assert message.startswith("job.yaml: optimizer.loraplus_ratio: Prodigy")
    assert "16" in message
    assert setting("optimizer.name=adamw", "optimizer.loraplus_ratio=16").warnings() == []


@pytest.mark.parametrize("name", ["adamw_schedule_free", "schedulefree:SGDScheduleFree"])
def test_schedule_free_optimizers_want_no_falling_rate(name: str) -> None:
    (warning,) = setting(f"optimizer.name={name}").warnings()
    assert "lr_scheduler.name cosine" in warning
    assert name in warning
    for schedule in ("constant", "constant_with_warmup"):
        assert setting(f"optimizer.name={name}", f"lr_scheduler.name={schedule}").warnings() == []


@pytest.mark.parametrize(
    "name", ["constant", "constant_with_warmup", "linear", "cosine", "polynomial", "piecewise_constant"]
)
def test_restarts_of_a_schedule_that_has_none_are_an_error(name: str) -> None:
    message = complaint(("job.yaml", {"lr_scheduler": {"name": name, "num_restarts": 3}}))
    assert message.startswith(f"job.yaml: lr_scheduler.num_restarts: {name} has no restarts")
    assert "cosine_with_restarts" in message


def test_restarts_that_are_not_set_are_none() -> None:
    assert setting("lr_scheduler.name=cosine_with_restarts").lr_scheduler.num_restarts is None
    assert setting("lr_scheduler.num_restarts=null").lr_scheduler.num_restarts is None
    both = setting("lr_scheduler.name=cosine_with_restarts", "lr_scheduler.num_restarts=5")
    assert both.lr_scheduler.num_restarts == 5


def test_piecewise_constant_and_its_rules_need_each_other() -> None:
    missing = complaint(("--set", {"lr_scheduler": {"name": "piecewise_constant"}}))
    assert missing.startswith("--set: lr_scheduler: piecewise_constant needs step_rules such as 1:10")
    lone = complaint(("--set", {"lr_scheduler": {"step_rules": "1:10,0.1"}}))
    assert lone.startswith("--set: lr_scheduler.step_rules: cosine has no rules")
    piecewise = setting("lr_scheduler.name=piecewise_constant", "lr_scheduler.step_rules=1:10,0.1:20,0.01")
    assert piecewise.lr_scheduler.step_rules == "1:10,0.1:20,0.01"
    (warning,) = piecewise.with_params({"lr_scheduler.warmup_ratio": 0.1}).warnings()
    assert "no effect on piecewise_constant" in warning


@pytest.mark.parametrize(
    "rules", ["", "1:10", "1:10,", "1:10, 1", "a:10,1", "1:1.5,1", "-1:10,1", "1:20,0.5:20,1", "1:20,2:9,1"]
)
def test_rules_that_are_none(rules: str) -> None:
    message = complaint(("file", {"lr_scheduler": {"name": "piecewise_constant", "step_rules": rules}}))
    assert message.startswith("file: lr_scheduler.step_rules: ")
    assert f"(found {rules!r})" in message


def test_the_power_is_polynomials() -> None:
    assert setting("lr_scheduler.name=polynomial", "lr_scheduler.power=2").warnings() == []
    (warning,) = setting("lr_scheduler.power=2").warnings()
    assert "no effect on cosine" in warning


def test_polynomial_ends_where_diffusers_ends_it() -> None:
    low = ("file", {"optimizer": {"unet_lr": 1e-8}, "lr_scheduler": {"name": "polynomial"}})
    assert "file: lr_scheduler: polynomial ends at a rate of 1e-07" in complaint(low)


def test_multires_noise_needs_iterations_and_discount() -> None:
    iterations = complaint(("file", {"loss": {"multires_noise_iterations": 6}}))
    assert iterations.startswith("file: loss.multires_noise_iterations: 6 iterations need a discount")
    assert "0.3 to 0.8" in iterations
    discount = complaint(("file", {"loss": {"multires_noise_discount": 0.3}}))
    assert discount.startswith("file: loss.multires_noise_discount: a discount of 0.3")
    assert "6 to 10" in discount
    both = setting("loss.multires_noise_iterations=6", "loss.multires_noise_discount=0.3")
    assert both.warnings() == []
    (warning,) = both.with_params({"loss.noise_offset": 0.1}).warnings()
    assert "use one of them" in warning


def test_the_loss_is_plain_unless_asked() -> None:
    assert Experiment().loss.model_dump(exclude_none=True) == {
        "type": "mse",
        "huber_c": 0.1,
        "noise_offset": 0,
        "multires_noise_iterations": 0,
        "input_perturbation": 0,
    }
