"""LoRA files against the programs that load them: diffusers itself, and the key rules of the others."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from raylora.config import LoraConfig, SamplingConfig
from raylora.dataset.pixels import Pixels
from raylora.diffusion.adapters import Adapter, count_parameters
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import SD15, load_base, skeleton
from raylora.diffusion.generate import Request, generate
from raylora.diffusion.lora_file import LoraCard, load_lora, write_diffusers, write_kohya
from raylora.diffusion.places import DIFFUSERS_NAME, KOHYA_NAME, lora_file_in
from raylora.errors import ModelError

REQUESTS = [Request("sks portrait, red hair", 1, (64, 64)), Request("sks", 2, (64, 64))]
SAMPLING = SamplingConfig(steps=3, guidance_scale=2.0)
CARD = LoraCard(
    title="sks",
    resolution=(64, 64),
    train_images=9,
    save_precision="fp32",
    trigger="sks",
    tag_frequency={"sks": {"a": 1}},
)


def random_adapter(base: BaseModel, alpha: float = 2.0) -> Adapter:
    """An adapter whose effect can be seen; alpha is not the rank, so a wrong scale shows."""
    adapter = Adapter(base, LoraConfig(rank=4, alpha=alpha), "random", train_text_encoder=True, seed=0)
    generator = torch.Generator().manual_seed(1)
    for part in ("unet", "text_encoder"):
        for _, weight in adapter.parameters(part):
            with torch.no_grad():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    adapter.activate()
    return adapter


def pictures(base: BaseModel) -> Pixels:
    return np.stack(generate(base, REQUESTS, SAMPLING))


@pytest.fixture
def written(tiny_base: BaseModel, tmp_path: Path) -> tuple[Path, Pixels]:
    adapter = random_adapter(tiny_base)
    write_kohya(adapter, tmp_path / KOHYA_NAME, CARD)
    write_diffusers(adapter, tmp_path, "fp32")
    return tmp_path, pictures(tiny_base)


@pytest.mark.parametrize("name", [KOHYA_NAME, DIFFUSERS_NAME])
def test_diffusers_loads_the_file_and_makes_the_same_pictures(
    name: str, written: tuple[Path, Pixels], tiny_base_folder: Path
) -> None:
    folder, expected = written
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base_folder, safety_checker=None)
    plain = pipe(REQUESTS[0].prompt, width=64, height=64, num_inference_steps=3, guidance_scale=2.0, output_type="np",
                 generator=torch.Generator().manual_seed(1)).images[0]  # fmt: skip
    pipe.load_lora_weights(str(folder), weight_name=name)
    for request, picture in zip(REQUESTS, expected, strict=True):
        image = pipe(request.prompt, width=64, height=64, num_inference_steps=3, guidance_scale=2.0, output_type="np",
                     generator=torch.Generator().manual_seed(request.seed)).images[0]  # fmt: skip
        assert np.abs(np.round(image * 255) - picture.astype(float)).max() <= 1
    assert np.abs(np.round(plain * 255) - expected[0].astype(float)).max() > 5


@pytest.mark.parametrize("name", [KOHYA_NAME, DIFFUSERS_NAME])
def test_raylora_loads_its_own_files(name: str, written: tuple[Path, Pixels], tiny_base_folder: Path) -> None:
    base = load_base(str(tiny_base_folder))
    load_lora(base, written[0] / name)
    assert np.abs(pictures(base).astype(int) - written[1]).max() <= 1


def test_kohya_keys_and_alphas(written: tuple[Path, Pixels]) -> None:
    tensors = load_file(written[0] / KOHYA_NAME)
    assert all(key.startswith(("lora_unet_", "lora_te_text_model_encoder_layers_")) for key in tensors)
    modules = {key.partition(".")[0] for key in tensors}
    for module in modules:
        down, up = tensors[f"{module}.lora_down.weight"], tensors[f"{module}.lora_up.weight"]
        assert down.shape[0] == up.shape[1] == 4
        assert tensors[f"{module}.alpha"].item() == 2.0
        assert tensors[f"{module}.alpha"].shape == ()
    assert len(tensors) == 3 * len(modules)
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj" in modules
    assert "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0" in modules


def test_metadata(written: tuple[Path, Pixels]) -> None:
    path = written[0] / KOHYA_NAME
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["ss_network_dim"] == "4"
    assert metadata["ss_network_alpha"] == "2.0"
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.trigger_phrase"] == "sks"
    assert json.loads(metadata["ss_tag_frequency"]) == {"sks": {"a": 1}}
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert metadata["sshs_model_hash"] == hashlib.sha256(content[8 + header :]).hexdigest()


def test_predicted_size_is_the_files_size(tiny_base: BaseModel, tmp_path: Path) -> None:
    adapter = random_adapter(tiny_base)
    write_kohya(adapter, tmp_path / KOHYA_NAME, CARD)
    weights = sum(
        value.numel() for key, value in load_file(tmp_path / KOHYA_NAME).items() if not key.endswith(".alpha")
    )
    predicted = count_parameters(tiny_base.unet, "unet", adapter.config)
    adapter.close()
    clean = load_base(tiny_base.reference)
    parts = (("unet", clean.unet), ("text_encoder", clean.text_encoder))
    assert weights == sum(count_parameters(module, part, adapter.config) for part, module in parts)
    assert predicted <= weights


def test_full_size_sd15_has_kohyas_module_count() -> None:
    """sd-scripts prints 192 U-Net modules and 72 text-encoder modules for SD1.x."""
    unet, text_encoder = skeleton(SD15, None).values()
    from raylora.diffusion.adapters import target_modules

    config = LoraConfig()
    for module, part, expected in ((unet, "unet", 192), (text_encoder, "text_encoder", 72)):
        endings = tuple("." + ending for ending in target_modules(part, config))
        assert sum(name.endswith(endings) for name, _ in module.named_modules()) == expected


def test_refusals(tmp_path: Path, tiny_base: BaseModel) -> None:
    (tmp_path / "old.pt").write_bytes(b"pickle")
    (tmp_path / "broken.safetensors").write_bytes(b"not a header")
    for name, reason in (
        ("old.pt", "pickled"),
        ("broken.safetensors", "not a readable"),
        ("gone.safetensors", "no such"),
    ):
        with pytest.raises(ModelError, match=reason):
            load_lora(tiny_base, tmp_path / name)


def test_a_lora_for_other_shapes_is_refused(written: tuple[Path, Pixels]) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        load_lora(load_base("demo"), written[0] / KOHYA_NAME)


def test_lora_file_in_finds_the_file(written: tuple[Path, Pixels]) -> None:
    assert lora_file_in(written[0]) == written[0] / KOHYA_NAME
    assert lora_file_in(written[0] / DIFFUSERS_NAME) == written[0] / DIFFUSERS_NAME
