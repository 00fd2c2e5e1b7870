"""One contract for every family of base models."""

from __future__ import annotations

from typing import Any

import pytest

from raylora.config import LoraConfig
from raylora.diffusion.adapters import count_parameters, target_modules
from raylora.diffusion.families import FAMILIES, skeleton


def megabytes(family: str, rank: int, parts: tuple[str, ...]) -> float:
    """The size of a LoRA file in fp16."""
    modules = skeleton(FAMILIES[family], None)
    return sum(count_parameters(modules[part], part, LoraConfig(rank=rank)) for part in parts) * 2 / 1e6


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_skeleton_without_weights(name: str) -> None:
    parts = skeleton(FAMILIES[name], None)
    assert tuple(parts) == FAMILIES[name].parts
    assert {weight.device.type for module in parts.values() for weight in module.parameters()} == {"meta"}
    published = {"sd15": 859_520_964, "sdxl": 2_567_463_684}
    assert sum(weight.numel() for weight in parts["unet"].parameters()) == published[name]
    assert FAMILIES[name].name == name


@pytest.mark.parametrize(("name", "layers"), [("sd15", (192, 72)), ("sdxl", (722, 72, 192))])
def test_the_default_targets_are_kohyas(name: str, layers: tuple[int, int]) -> None:
    """sd-scripts counts them in its log: "create LoRA for U-Net: 192 modules"."""
    for (part, module), count in zip(skeleton(FAMILIES[name], None).items(), layers, strict=True):
        endings = tuple(f".{ending}" for ending in target_modules(part, LoraConfig()))
        assert sum(path.endswith(endings) for path, _ in module.named_modules()) == count


@pytest.mark.parametrize(("rank", "guides"), [(128, 140), (64, 70), (32, 40)])
def test_files_for_sd15_are_as_large_as_the_guide_says(rank: int, guides: float) -> None:
    assert megabytes("sd15", rank, FAMILIES["sd15"].parts) == pytest.approx(guides, rel=0.15)


@pytest.mark.parametrize(("rank", "guides"), [(32, 200), (16, 100), (8, 50)])
def test_files_for_sdxl_are_about_as_large_as_the_guide_says(rank: int, guides: float) -> None:
    """The guide's hold text encoders too, which its own advice leaves untrained."""
    assert megabytes("sdxl", rank, ("unet",)) == pytest.approx(guides, rel=0.2)


@pytest.mark.parametrize("name", FAMILIES)
def test_fewer_targets_make_smaller_files(name: str) -> None:
    unet = skeleton(FAMILIES[name], None)["unet"]
    targets: list[tuple[Any, ...]] = [("attention",), ("attention", "feed_forward"), ("attention", "projections")]
    sizes = [count_parameters(unet, "unet", LoraConfig(targets=chosen)) for chosen in targets]
    everything = count_parameters(unet, "unet", LoraConfig())
    assert sizes[1] + sizes[2] - sizes[0] == everything
    assert 0 < sizes[0] < min(sizes[1], sizes[2])


def test_a_lora_of_twice_the_rank_is_twice_as_large() -> None:
    assert megabytes("sdxl", 16, ("unet",)) == pytest.approx(2 * megabytes("sdxl", 8, ("unet",)))
