"""SDXL through every room, on a tiny model of its shape: two text encoders, pooled embeddings, time ids."""

from __future__ import annotations

import io
import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file

from raylora.config import Experiment, LoraConfig, ModelConfig, SamplingConfig
from raylora.dataset.pixels import Pixels
from raylora.dataset.split import split_pictures
from raylora.diffusion.adapters import Adapter
from raylora.diffusion.base import BaseModel
from raylora.diffusion.encode import encode_prompts
from raylora.diffusion.families import load_base
from raylora.diffusion.generate import Request, generate
from raylora.diffusion.lora_file import LoraCard, load_lora, write_diffusers, write_kohya
from raylora.diffusion.objective import Cells, denoising_losses
from raylora.diffusion.places import DIFFUSERS_NAME, KOHYA_NAME
from raylora.diffusion.tensor_cache import TensorCache
from raylora.errors import ConfigError, ModelError
from raylora.execution.job import read_pictures
from raylora.execution.node_cache import Material, training_set
from raylora.tracking.mlflow_runs import MlflowTracker
from raylora.tracking.registry import Handed, log_lora, place, register
from raylora.training.trainer import Trainer
from tests.conftest import Cli
from tests.integration.test_train_resume import without_costs

PROMPTS = ["sks portrait, red hair", "sks"]
SAMPLING = SamplingConfig(steps=3, guidance_scale=2.0)
REQUESTS = [Request(prompt, seed, (64, 64)) for seed, prompt in enumerate(PROMPTS, 1)]
CARD = LoraCard(title="sks", resolution=(64, 64), train_images=9, save_precision="fp32")
PARTS = {"unet", "text_encoder", "text_encoder_2"}


@pytest.fixture
def sdxl_experiment(tiny_experiment: Experiment, tiny_sdxl_folder: Path) -> Experiment:
    return tiny_experiment.with_params({"model.base_model": str(tiny_sdxl_folder), "model.family": "sdxl"})


@pytest.fixture
def pipe(tiny_sdxl_folder: Path) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline.from_pretrained(tiny_sdxl_folder, add_watermarker=False)


def pictures_of(pipe: StableDiffusionXLPipeline) -> list[Pixels]:
    """As diffusers makes them from plain prompts, with an empty negative prompt encoded as webuis do."""
    images = [
        pipe(
            request.prompt, negative_prompt="", width=64, height=64, num_inference_steps=3, guidance_scale=2.0,
            output_type="np", generator=torch.Generator().manual_seed(request.seed),
        ).images[0]
        for request in REQUESTS
    ]  # fmt: skip
    return [np.round(image * 255).astype(np.uint8) for image in images]


def difference(first: list[Pixels], second: list[Pixels]) -> int:
    return int(np.abs(np.stack(first).astype(int) - np.stack(second)).max())


def random_adapter(base: BaseModel) -> Adapter:
    adapter = Adapter(base, LoraConfig(rank=4, alpha=2), "random", train_text_encoder=True, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in adapter.peft_configs:
            for _, weight in adapter.parameters(part):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    adapter.activate()
    return adapter


def test_pictures_are_those_of_diffusers(tiny_sdxl: BaseModel, pipe: StableDiffusionXLPipeline) -> None:
    assert difference(generate(tiny_sdxl, REQUESTS, SAMPLING), pictures_of(pipe)) <= 1


@pytest.mark.parametrize(("clip_skip", "diffusers_skip"), [(None, None), (2, None), (3, 1)])
def test_conditioning_is_that_of_diffusers(
    clip_skip: int | None, diffusers_skip: int | None, tiny_sdxl_folder: Path, pipe: StableDiffusionXLPipeline
) -> None:
    base = load_base(str(tiny_sdxl_folder), model=ModelConfig(family="sdxl", clip_skip=clip_skip))
    with torch.no_grad():
        ours = encode_prompts(base, PROMPTS)
        embeddings, _, pooled, _ = pipe.encode_prompt(PROMPTS, device="cpu", clip_skip=diffusers_skip)
    assert ours.pooled is not None
    assert torch.equal(ours.embeddings, embeddings)
    assert torch.equal(ours.pooled, pooled)


def test_the_loss_is_the_plain_formula_with_the_pictures_own_sizes(tiny_sdxl: BaseModel) -> None:
    latents, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    timesteps, time_ids = torch.tensor([100, 800]), torch.tensor([[64, 64, 0, 0, 64, 64], [512, 256, 32, 0, 64, 64]])
    with torch.no_grad():
        conditioning = encode_prompts(tiny_sdxl, PROMPTS)
        losses = denoising_losses(tiny_sdxl, Cells(latents, conditioning, time_ids, timesteps), noise)
        abar = tiny_sdxl.noise_scheduler.alphas_cumprod[timesteps].reshape(2, 1, 1, 1)
        told = {"text_embeds": conditioning.pooled, "time_ids": time_ids}
        prediction = tiny_sdxl.unet(
            abar.sqrt() * latents + (1 - abar).sqrt() * noise, timesteps, conditioning.embeddings,
            added_cond_kwargs=told,
        ).sample  # fmt: skip
    assert torch.allclose(losses, ((prediction - noise) ** 2).mean(dim=(1, 2, 3)), atol=1e-6)
    other = Cells(latents, conditioning, time_ids.flip(0), timesteps)
    assert not torch.allclose(losses, denoising_losses(tiny_sdxl, other, noise), atol=1e-6)


@pytest.mark.parametrize("trains_text", [True, False])
def test_training_changes_every_part_that_is_trained(
    trains_text: bool, tiny_sdxl: BaseModel, sdxl_experiment: Experiment
) -> None:
    experiment = sdxl_experiment.with_params({"model.train_text_encoder": trains_text})
    split = split_pictures(read_pictures(experiment, lambda _: None), 0.25)
    material = Material(split.train, split.holdout)
    data = training_set(tiny_sdxl, material, experiment, TensorCache(None))
    trainer = Trainer(tiny_sdxl, data, experiment, material.schedule(experiment))
    trainer.advance(8)
    weights = trainer.weights()
    trainer.close()
    assert set(weights) == (PARTS if trains_text else {"unet"})
    # The second encoder's last layers reach only its pooled vector, its first ones both.
    assert all(
        any(value.abs().sum() > 0 for key, value in part.items() if "lora_B" in key) for part in weights.values()
    )


@pytest.mark.parametrize("name", [KOHYA_NAME, DIFFUSERS_NAME])
def test_diffusers_and_raylora_load_the_files(
    name: str, tiny_sdxl: BaseModel, tiny_sdxl_folder: Path, pipe: StableDiffusionXLPipeline, tmp_path: Path
) -> None:
    adapter = random_adapter(tiny_sdxl)
    write_kohya(adapter, tmp_path / KOHYA_NAME, CARD)
    write_diffusers(adapter, tmp_path, "fp32", CARD)
    expected = generate(tiny_sdxl, REQUESTS, SAMPLING)
    assert difference(pictures_of(pipe), expected) > 5
    if name == DIFFUSERS_NAME:  # kohya's SGM names can be read by diffusers for the usual number of blocks
        pipe.load_lora_weights(str(tmp_path), weight_name=name)
        assert difference(pictures_of(pipe), expected) <= 1
    own = load_base(str(tiny_sdxl_folder), model=ModelConfig(family="sdxl"))
    load_lora(own, tmp_path / name)
    assert difference(generate(own, REQUESTS, SAMPLING), expected) <= 1


def test_mlflow_alone_loads_it_from_the_registry(tiny_sdxl: BaseModel, tiny_sdxl_folder: Path, tmp_path: Path) -> None:
    adapter = random_adapter(tiny_sdxl)
    write_diffusers(adapter, tmp_path, "fp32", CARD)
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "sdxl")
    tracker.start("search", {}, {})
    lora = tmp_path / DIFFUSERS_NAME
    handed = Handed(lora, str(tiny_sdxl_folder), (64, 64), steps=3, guidance_scale=2)
    uri = log_lora(tracker.uri, tracker.parent_run_id, handed)
    registered = place(tracker.uri, "tiny-sdxl", register(tracker.uri, uri, "tiny-sdxl")).registered
    model = mlflow.pyfunc.load_model(f"models:/{registered['name']}@{registered['alias']}")
    assert difference(pictures_of(model.get_raw_model()), generate(tiny_sdxl, REQUESTS, SAMPLING)) <= 1
    with Image.open(io.BytesIO(model.predict({"prompt": ["sks"]})[0])) as picture:
        assert picture.size == (64, 64)


def test_kohyas_keys_are_those_of_sd_scripts(tiny_sdxl: BaseModel, tmp_path: Path) -> None:
    write_kohya(random_adapter(tiny_sdxl), tmp_path / KOHYA_NAME, CARD)
    modules = {key.partition(".")[0] for key in load_file(tmp_path / KOHYA_NAME)}
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q" in modules
    assert "lora_unet_middle_block_1_proj_in" in modules
    assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj" in modules
    assert "lora_te2_text_model_encoder_layers_2_mlp_fc1" in modules


def test_an_sdxl_model_under_sd15_is_refused_with_the_mend(tiny_sdxl_folder: Path, tiny_base_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"is a Stable Diffusion XL model.*model\.family=sdxl"):
        load_base(str(tiny_sdxl_folder))
    with pytest.raises(ModelError, match=r"is a Stable Diffusion 1\.5 model.*model\.family=sd15"):
        load_base(str(tiny_base_folder), model=ModelConfig(family="sdxl"))


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_clip_skip_beyond_the_encoders_layers_is_refused(
    family: str, tiny_base_folder: Path, tiny_sdxl_folder: Path
) -> None:
    folder = {"sd15": tiny_base_folder, "sdxl": tiny_sdxl_folder}[family]
    model = ModelConfig.model_validate({"family": family, "clip_skip": 4})
    with pytest.raises(ConfigError, match="clip_skip 4: the text encoder has 3 layers"):
        load_base(str(folder), model=model)


def test_train_measure_and_evaluate_by_the_command_line(
    cli: Cli, tmp_path: Path, tiny_sdxl_folder: Path, pictures_folder: Path
) -> None:
    settings = [
        "model.family=sdxl", "dataset.resolution=64", "training.repeats=1", "training.epochs=2",
        "training.batch_size=4", "lora.rank=2", "lora.alpha=1", "sampling.steps=2", "sampling.seeds=[0]",
        "evaluation.encoder=demo", "evaluation.timesteps=[500]", "search.grace_period=8", "dataset.buckets=true",
        "model.train_text_encoder=false", "loss.snr_gamma=5",
    ]  # fmt: skip
    common = ["--base-model", tiny_sdxl_folder, *(word for setting in settings for word in ("--set", setting))]
    run = cli("train", "--dataset", pictures_folder, *common, "--holdout", "--out", "out", "--json", timeout_s=300)
    assert run.returncode == 0, run.stderr
    metrics = json.loads(run.stdout)["best"]["metrics"]
    assert (tmp_path / "out/best/samples/grid.png").is_file()
    again = cli("evaluate", "out/best", "--dataset", pictures_folder, "--json", timeout_s=300)
    assert again.returncode == 0, again.stderr
    assert set(json.loads(again.stdout)["metrics"]) >= set(without_costs(metrics)) - {
        "train_loss",
        "best_score",
        "lora_mb",
    }
