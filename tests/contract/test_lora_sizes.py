"""How large LoRA files of full-size models are, beside the figures of the guide (T11).

`python -m tests.contract.test_lora_sizes` prints the table.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from raylora.diffusion.families import FAMILIES, skeleton
from raylora.diffusion.kohya_names import kohya_name, naming
from raylora.diffusion.lora_file import save_kohya
from raylora.diffusion.lora_weights import LoraModule, LoraWeights

LAYERS = {
    "unet": ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
    "text_encoder": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}
"""What kohya adapts unless told of convolutions."""
PARTS = {"sd15": ("unet", "text_encoder"), "sdxl": ("unet",)}
"""The guide leaves SDXL's text encoders untrained."""
GUIDE_MB = {
    ("sd15", 128): 140,
    ("sd15", 64): 70,
    ("sd15", 32): 40,
    ("sdxl", 32): 200,
    ("sdxl", 16): 100,
    ("sdxl", 8): 50,
}
KINDS = ("lora_down.weight", "lora_up.weight", "alpha")
RANKS = (8, 16, 32, 64, 128)


def lora_of(family: str, rank: int) -> LoraWeights:
    """A LoRA of this rank on a full-size model, without numbers."""
    unet, text_encoder, *_ = skeleton(FAMILIES[family], None).values()
    models = {"unet": unet, "text_encoder": text_encoder}
    parts = {part: {path: module_of(layer, rank) for path, layer in models[part].named_modules()
                    if path.endswith(LAYERS[part])} for part in PARTS[family]}  # fmt: skip
    return LoraWeights(family, parts)


def module_of(layer: nn.Module, rank: int) -> LoraModule:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    outputs, inputs, *kernel = layer.weight.shape
    down = torch.empty(rank, inputs, *kernel, dtype=torch.float16, device="meta")
    return LoraModule(down, torch.empty(outputs, rank, *[1] * len(kernel), dtype=torch.float16, device="meta"), rank)


def file_mb(weights: LoraWeights) -> float:
    """Megabytes of the file in kohya's layout, fp16: the safetensors header with every tensor's entry, the tensors."""
    names = naming(weights.family, FAMILIES[weights.family].unet)
    entry = {"dtype": "F16", "shape": [128, 1280], "data_offsets": [10**8, 10**8]}
    header, numbers = 0, 0
    for part, path, module in weights.modules():
        name = kohya_name(names, part, path)
        header += sum(len(json.dumps({f"{name}.{kind}": entry})) for kind in KINDS)
        numbers += module.down.numel() + module.up.numel() + 1
    return (header + 2 * numbers) / 1e6


def table() -> list[str]:
    lines = ["| rank | SD1.5, MB | guide | SDXL, MB | guide |", "| --- | --- | --- | --- | --- |"]
    for rank in RANKS:
        sizes = {family: file_mb(lora_of(family, rank)) for family in PARTS}
        guide = {family: GUIDE_MB.get((family, rank), "") for family in PARTS}
        lines.append(f"| {rank} | {sizes['sd15']:.0f} | {guide['sd15']} | {sizes['sdxl']:.0f} | {guide['sdxl']} |")
    return lines


@pytest.mark.parametrize(("family", "rank"), GUIDE_MB)
def test_files_are_about_as_large_as_the_guide_says(family: str, rank: int) -> None:
    assert file_mb(lora_of(family, rank)) == pytest.approx(GUIDE_MB[family, rank], rel=0.2)


def test_the_prediction_is_the_files_size(tmp_path: Path) -> None:
    weights = lora_of("sd15", 2)
    zeros = LoraWeights(
        "sd15",
        {part: {path: LoraModule(torch.zeros_like(module.down, device="cpu"),
                                 torch.zeros_like(module.up, device="cpu"), 2.0)
                for path, module in modules.items()} for part, modules in weights.parts.items()},
    )  # fmt: skip
    save_kohya(zeros, naming("sd15", FAMILIES["sd15"].unet), tmp_path / "lora.safetensors")
    assert (tmp_path / "lora.safetensors").stat().st_size / 1e6 == pytest.approx(file_mb(weights), rel=0.02)


if __name__ == "__main__":
    print("\n".join(table()))
