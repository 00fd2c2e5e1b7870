"""Half precision: where a LoRA begins, what is cast, and gradients that overflow."""

from __future__ import annotations

from dataclasses import replace
from math import log2
from pathlib import Path

import pytest

from raylora.config import Experiment
from raylora.diffusion.adapters import tuner_layers
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import load_base
from raylora.diffusion.tensor_cache import TensorCache
from raylora.errors import TrainingDivergedError
from raylora.execution.node_cache import training_set
from raylora.training.trainer import RECORDED_TOGETHER, Trainer
from tests.integration.test_trainer import losses_of, make_material, opened


def set_casts(base: BaseModel, wanted: bool) -> dict[str, set[bool]]:
    """Whether peft casts the inputs of a part's layers; from now on as wanted."""
    before = {}
    for part, module in base.parts.items():
        before[part] = {layer.cast_input_dtype_enabled for layer in tuner_layers(module)}
        for layer in tuner_layers(module):
            layer.cast_input_dtype_enabled = wanted
    return before


@pytest.mark.parametrize("targets", [("attention", "feed_forward"), ("attention", "convolutions")])
@pytest.mark.parametrize("mixed_precision", ["bf16", "fp16"])
def test_inputs_are_not_cast_for_nothing(
    mixed_precision: str, targets: tuple[str, ...], tiny_base_folder: Path, tiny_experiment: Experiment
) -> None:
    experiment = tiny_experiment.with_params({"training.mixed_precision": mixed_precision, "lora.targets": targets})
    base = load_base(str(tiny_base_folder), mixed_precision)
    with opened(base, experiment) as trainer:
        assert set_casts(base, True) == {"unet": {False}, "text_encoder": {True}}
        trainer.advance(1000)
        casting = [loss for _, loss in trainer.losses]
    assert losses_of(base, experiment) == casting
    assert set_casts(base, True) == {"unet": {True}, "text_encoder": {True}}  # as peft has it, once all is over


def test_dora_has_its_inputs_cast(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    """Also beside a LoRA that has not: whichever is active has its own way."""
    with_dora = tiny_experiment.with_params({"lora.use_dora": True})
    with opened(tiny_base, with_dora) as trainer, opened(tiny_base, tiny_experiment) as plain:
        for images in (2, 4):
            trainer.advance(images)
            assert set_casts(tiny_base, False)["unet"] == {True}
            plain.advance(images)
            assert set_casts(tiny_base, True)["unet"] == {False}


@pytest.mark.parametrize("targets", [("attention", "feed_forward"), ("attention", "convolutions")])
@pytest.mark.parametrize("mixed_precision", ["no", "bf16", "fp16"])
def test_dora_begins_as_the_base_model(
    mixed_precision: str, targets: tuple[str, ...], tiny_base_folder: Path, tiny_experiment: Experiment
) -> None:
    """As a plain LoRA does, to the bit, in every number format."""
    experiment = tiny_experiment.with_params({"training.mixed_precision": mixed_precision, "lora.targets": targets})
    plain = losses_of(load_base(str(tiny_base_folder), mixed_precision), experiment, (2,))
    with_dora = experiment.with_params({"lora.use_dora": True})
    assert losses_of(load_base(str(tiny_base_folder), mixed_precision), with_dora, (2,)) == plain


def weighing(folder: Path, experiment: Experiment, weight: float) -> Trainer:
    """A trainer in fp16 on losses times `weight`: the larger, the sooner gradients overflow."""
    base, material = load_base(str(folder), "fp16"), make_material(experiment)
    data = training_set(base, material, experiment, TensorCache(None))
    weighed = replace(data, weights=[weight] * len(data.weights))
    return Trainer(base, weighed, experiment, material.schedule(experiment))


FP16 = {"training.mixed_precision": "fp16", "training.epochs": 100}


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_a_loss_scale_that_falls_to_nothing_is_an_error_soon(
    optimizer: str, tiny_base_folder: Path, tiny_experiment: Experiment
) -> None:
    experiment = tiny_experiment.with_params({**FP16, "optimizer.name": optimizer})
    trainer = weighing(tiny_base_folder, experiment, 1e9)
    with pytest.raises(TrainingDivergedError, match=r"fp16's loss scale fell to .*bf16 or a lower rate"):
        trainer.advance(1000)
    assert trainer.images_seen == RECORDED_TOGETHER * experiment.training.batch_size


def test_a_step_that_overflows_moves_no_schedule(
    tiny_base_folder: Path, tiny_experiment: Experiment, recwarn: pytest.WarningsRecorder
) -> None:
    """The first steps overflow, until the scale fits; torch would warn of a schedule that moves before the weights."""
    own = {"optimizer.name": "lion", "optimizer.learning_rate": 1e-4, "training.ema_decay": 0.9}
    trainer = weighing(tiny_base_folder, tiny_experiment.with_params({**FP16, **own}), 1e3)
    trainer.advance(40)
    state = trainer.state_dict()
    skipped = round(log2(65536 / state["scaler"]["scale"]))
    assert 0 < skipped < 15
    assert state["lr_scheduler"]["last_epoch"] == state["averages"]["ema"]["optimization_step"] == 20 - skipped
    assert not [warning for warning in recwarn if "lr_scheduler" in str(warning.message)]
