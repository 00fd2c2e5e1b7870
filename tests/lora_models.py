"""Tiny pipelines of both families with LoRAs of peft's own on them, for tests of files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers import UNet2DConditionModel as UNet
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from raylora.bundled import DEMO_BASE
from raylora.diffusion.kohya_names import Naming, naming
from raylora.diffusion.lora_weights import LoraModule, LoraWeights, from_peft
from tests.tiny import WIDTH

NAME = "trained"
UNET_LAYERS = (r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2"
               r"|conv1|conv2|conv_shortcut|time_emb_proj|(down|up)samplers\.0\.conv)")  # fmt: skip
TEXT_LAYERS = r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


@dataclass(frozen=True)
class Variant:
    """A way of training that the files must keep."""

    rank: int = 4
    alpha: float = 3.0
    ranks: tuple[tuple[str, int], ...] = ()
    """Ending of U-Net paths → rank."""
    alphas: tuple[tuple[str, float], ...] = ()
    dora: bool = False

    def config(self, part: str) -> LoraConfig:
        unet = part == "unet"
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft takes fractions
            rank_pattern=dict(self.ranks) if unet else {},
            alpha_pattern=dict(self.alphas) if unet else {},
            target_modules=UNET_LAYERS if unet else TEXT_LAYERS,
            use_dora=self.dora,
        )


VARIANTS = {
    "even": Variant(),
    "ranks": Variant(ranks=((r"up_blocks\.0\..*", 6), ("conv1", 2))),
    "by block": Variant(ranks=((r"up_blocks\.0\..*", 6), ("conv1", 2)), alphas=((r"mid_block\..*", 1.5),)),
    "dora": Variant(dora=True),
}


@dataclass(frozen=True)
class Trained:
    """A pipeline whose models carry a LoRA, and that LoRA apart from it."""

    family: str
    pipe: Any
    weights: LoraWeights

    @property
    def names(self) -> Naming:
        return naming(self.family, self.pipe.unet.config)


def text_config(projection: int = WIDTH) -> CLIPTextConfig:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_BASE / "tokenizer")
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=0,
        eos_token_id=1,
        projection_dim=projection,
    )


def sdxl_unet() -> UNet:
    """A U-Net of SDXL's kind: text and time beside, linear projections, several transformer layers, none at the top."""
    return UNet(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(WIDTH, 2 * WIDTH),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=(2, 4),
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )


def make_pipe(family: str, folder: Path) -> Any:
    """The same pipeline at every call; SD1.5's is the tests' tiny base."""
    if family == "sd15":
        return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_BASE / "tokenizer")
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8),
        text_encoder=CLIPTextModel(text_config()),
        text_encoder_2=CLIPTextModelWithProjection(text_config()),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=sdxl_unet(),
        scheduler=DDIMScheduler(),
    )


def parts_of(pipe: Any) -> dict[str, nn.Module]:
    names = ("unet", "text_encoder", "text_encoder_2")
    return {name: module for name in names if (module := getattr(pipe, name, None)) is not None}


def train(family: str, folder: Path, variant: Variant, **metadata: str) -> Trained:
    """A pipeline with a LoRA on every layer that can have one, of random numbers that do something."""
    pipe = make_pipe(family, folder)
    state, alphas = {}, {}
    generator = torch.Generator().manual_seed(1)
    for part, module in parts_of(pipe).items():
        inject_adapter_in_model(variant.config(part), module, adapter_name=NAME)
        for name, weight in module.named_parameters():
            if f".lora_A.{NAME}" in name or f".lora_B.{NAME}" in name:
                weight.data = torch.randn(weight.shape, generator=generator) * 0.1
            elif "lora_magnitude_vector" in name:
                weight.data = weight.data * (1 + 0.2 * torch.randn(weight.shape, generator=generator))
        state[part] = dict(get_peft_model_state_dict(module, adapter_name=NAME))
        alphas[part] = {
            path: layer.lora_alpha[NAME] for path, layer in module.named_modules() if hasattr(layer, "lora_alpha")
        }
    return Trained(family, pipe, from_peft(family, state, alphas, metadata))


def answers(pipe: Any) -> dict[str, Tensor]:
    """What the models answer to fixed inputs, by part."""
    generator = torch.Generator().manual_seed(2)
    unet = pipe.unet
    width = unet.config.cross_attention_dim
    sample = torch.randn(2, 4, 8, 8, generator=generator)
    context = torch.randn(2, 5, width, generator=generator)
    added = {
        "text_embeds": torch.randn(2, WIDTH, generator=generator),
        "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2),
    }
    ids = torch.arange(14).reshape(2, 7)
    with torch.no_grad():
        told: dict[str, Tensor] = {"unet": unet(sample, 500, context, added_cond_kwargs=added).sample}
        for part, module in parts_of(pipe).items():
            if part != "unet":
                told[part] = module(ids).last_hidden_state
    return told


def kohya_file(path: Path, **changes: torch.Tensor | None) -> Path:
    """A file of one layer."""
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors: dict[str, Any] = {
        f"{name}.lora_down.weight": torch.randn(4, 32),
        f"{name}.lora_up.weight": torch.randn(32, 4),
        f"{name}.alpha": torch.tensor(2.0),
    }
    tensors |= {f"{name}.{field.replace('__', '.')}": tensor for field, tensor in changes.items()}
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, path)
    return path


def only(weights: LoraWeights) -> LoraModule:
    ((_, _, module),) = weights.modules()
    return module


def assert_same(one: LoraWeights, other: LoraWeights) -> None:
    assert one.family == other.family
    told = {(part, path): module for part, path, module in one.modules()}
    again = {(part, path): module for part, path, module in other.modules()}
    assert told.keys() == again.keys()
    for place, module in told.items():
        twin = again[place]
        assert module.alpha == twin.alpha, place
        for mine, its in ((module.down, twin.down), (module.up, twin.up), (module.magnitude, twin.magnitude)):
            assert (mine is None) == (its is None), place
            assert mine is None or its is None or (mine.dtype == its.dtype and torch.equal(mine, its)), place
