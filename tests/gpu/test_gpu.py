"""What only a GPU shows: number formats, speed options, parked parts, and steps in which nobody waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raylora.config import Experiment
from raylora.diffusion.base import BaseModel
from raylora.diffusion.encode import encode_images, encode_prompts
from raylora.diffusion.families import load_base
from tests.integration.test_trainer import losses_of, losses_through_a_state, opened

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

DEVICE = "cuda"
FAMILIES = ["sd15", "sdxl"]
TOLERANCES = {"no": 1e-3, "bf16": 0.1, "fp16": 0.05}
"""Of a first loss against float32 on the CPU, by number format: relative."""
OPTIONS = ["compile", "channels_last", "gradient_checkpointing"]


@pytest.fixture(params=FAMILIES)
def experiment(
    request: pytest.FixtureRequest, tiny_base_folder: Path, tiny_sdxl_folder: Path, tiny_experiment: Experiment
) -> Experiment:
    folder = {"sd15": tiny_base_folder, "sdxl": tiny_sdxl_folder}[request.param]
    return tiny_experiment.with_params({"model.family": request.param, "model.base_model": str(folder)})


def base_on(device: str, experiment: Experiment) -> BaseModel:
    """As a trial loads it."""
    training = experiment.training
    options = {"channels_last": training.channels_last, "compile_blocks": training.compile}
    return load_base(
        str(experiment.model.base_model), training.mixed_precision, device, model=experiment.model, **options
    )


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("number_format", TOLERANCES)
def test_every_option_learns_what_a_cpu_does(number_format: str, option: str, experiment: Experiment) -> None:
    with opened(base_on("cpu", experiment), experiment) as trainer:
        trainer.advance(2)
        expected = trainer.losses[0][1]
    chosen = experiment.with_params({"training.mixed_precision": number_format, f"training.{option}": True})
    base = base_on(DEVICE, chosen)
    with opened(base, chosen) as trainer:
        trainer.advance(8)
        learned = [value for weights in trainer.weights().values() for key, value in weights.items() if "lora_B" in key]
        losses = [loss for _, loss in trainer.losses]
    assert losses[0] == pytest.approx(expected, rel=TOLERANCES[number_format])
    assert np.isfinite(losses).all()
    assert any(bool(weight.any()) for weight in learned)
    assert {weight.dtype for weight in learned} == {torch.float32}
    if option == "channels_last":
        assert base.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("number_format", TOLERANCES)
def test_a_run_goes_on_from_its_state(number_format: str, experiment: Experiment, tmp_path: Path) -> None:
    """To rounding: the order of additions on a GPU is not promised."""
    chosen = experiment.with_params({"training.mixed_precision": number_format})
    base = base_on(DEVICE, chosen)
    straight = losses_of(base, chosen)
    assert losses_through_a_state(base, chosen, (6, 14), tmp_path) == pytest.approx(straight, rel=0.02)


@pytest.mark.parametrize("trains_text", [False, True])
def test_parts_that_no_step_needs_leave_the_memory_and_come_back(trains_text: bool, experiment: Experiment) -> None:
    chosen = experiment.with_params({"model.train_text_encoder": trains_text})
    base = base_on(DEVICE, chosen)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        latents, prompts = encode_images(base, pixels), encode_prompts(base, ["sks"]).embeddings
    with opened(base, chosen) as trainer:
        trainer.advance(2)
        assert device_of(base.vae) == "cpu"
        assert {device_of(encoder) for encoder in base.text_encoders.values()} == {DEVICE if trains_text else "cpu"}
        assert device_of(base.unet) == DEVICE
    with torch.no_grad():
        assert torch.allclose(encode_images(base, pixels), latents, atol=1e-4)
        assert torch.allclose(encode_prompts(base, ["sks"]).embeddings, prompts, atol=1e-4)
    assert {device_of(module) for module in (base.vae, *base.text_encoders.values())} == {DEVICE}


def device_of(module: torch.nn.Module) -> str:
    return next(module.parameters()).device.type


@pytest.mark.parametrize("trains_text", [False, True])
def test_no_step_waits_for_the_gpu(trains_text: bool, experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the losses, which are read once per `advance`."""
    settings = {"training.mixed_precision": "bf16", "model.train_text_encoder": trains_text}
    chosen = experiment.with_params(settings)
    with opened(base_on(DEVICE, chosen), chosen) as trainer:
        trainer.advance(4)  # what is moved once has been moved
        monkeypatch.setattr(trainer, "_record", partial(waiting, trainer._record))
        with waits("error"):
            trainer.advance(8)
            trainer.advance(12)
        assert len(trainer.losses) == 6


def waiting(record: Any, steps: Any) -> None:
    with waits("default"):
        record(steps)


@contextmanager
def waits(mode: str) -> Iterator[None]:
    """What happens where the program waits for the GPU: `default` is nothing."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
