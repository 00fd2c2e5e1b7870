"""Stage `clip`: text and image towers trained together; the text tower then guides the U-Net."""

# mypy: disable-error-code="no-untyped-call"
# (diffusers, transformers and parts of torch come without types.)

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

from demo.drawings import Drawings, load_drawings
from demo.loop import LossOfStep, train
from demo.settings import IMAGE_SIZE, MAX_TOKENS, Round, Workshop, write_folder
from demo.tokenizer import load_tokenizer, token_ids

WIDTH = 128
TEXT_BATCH = 256


def train_clip(shop: Workshop) -> None:
    """Trains the towers with CLIP's contrastive loss and writes `clip` and `text_encoder`."""
    plan = shop.recipe.clip
    drawings = load_drawings(shop, held_out=False)
    tokenizer = load_tokenizer(shop.part("tokenizer"))
    torch.manual_seed(plan.seed)
    loss_of = _batch_loss(drawings, token_ids(tokenizer, drawings.captions), plan)
    clip: Any = train(new_clip(tokenizer), plan, loss_of, shop.checkpoint("clip"), shop.recipe.save_every)
    write_folder(shop.part("text_encoder"), lambda folder: text_tower(clip).save_pretrained(folder))
    write_folder(shop.part("clip"), lambda folder: clip.save_pretrained(folder))


def new_clip(tokenizer: Any) -> Any:
    """An untrained CLIPModel of 1.5 million parameters: two towers of 4 layers (untyped upstream)."""
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"image_size": IMAGE_SIZE, "patch_size": IMAGE_SIZE // 8}
    common = {**tower, "projection_dim": WIDTH}
    return CLIPModel(
        CLIPConfig(text_config={**common, **text}, vision_config={**common, **vision}, projection_dim=WIDTH)
    )


def text_tower(clip: Any) -> Any:
    """The text tower as the CLIPTextModel that a Stable Diffusion pipeline holds."""
    tower = CLIPTextModel(clip.config.text_config)
    weights = clip.text_model.state_dict()
    if not set(weights) <= set(tower.state_dict()):  # older transformers nest the tower one level deeper
        weights = {f"text_model.{name}": weight for name, weight in weights.items()}
    tower.load_state_dict(weights)
    return tower.eval().requires_grad_(False)


def load_clip(folder: Path) -> Any:
    """The finished CLIPModel in float32, for inference."""
    return CLIPModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


def load_text_encoder(folder: Path) -> Any:
    """The finished text tower in float32, for inference."""
    return CLIPTextModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


def encode_captions(text_encoder: Any, ids: Tensor) -> Tensor:
    """Hidden states that the U-Net attends to, float [N, 32, 128], from ids [N, 32]."""
    with torch.no_grad():
        return torch.cat([text_encoder(batch)[0] for batch in ids.split(TEXT_BATCH)])


def embed(clip: Any, pictures: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Unit image and text embeddings, each float [N, 128], of pictures [N, 3, 64, 64] and ids [N, 32]."""
    with torch.no_grad():
        out = clip(input_ids=ids, pixel_values=pictures)
    return functional.normalize(out.image_embeds, dim=-1), functional.normalize(out.text_embeds, dim=-1)


def retrieval(images: Tensor, texts: Tensor) -> float:
    """Share of the pictures whose own caption is the nearest of all N; both float [N, 128]."""
    return float(((images @ texts.T).argmax(1) == torch.arange(len(images))).float().mean())


def _batch_loss(drawings: Drawings, ids: Tensor, plan: Round) -> LossOfStep:
    def loss_of(clip: nn.Module, _step: int) -> Tensor:
        chosen = torch.randint(0, len(drawings), (plan.batch,))
        out = clip(input_ids=ids[chosen], pixel_values=drawings.inputs(chosen), return_loss=True)
        loss: Tensor = out.loss
        return loss

    return loss_of
