"""A LoRA file in another layout, at another strength, of a lower rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylora.bundled import DEMO_BASE, DEMO_NAME
from raylora.diffusion.families import FAMILIES, read_component_config
from raylora.diffusion.kohya_names import naming
from raylora.diffusion.lora_file import network_metadata, save_diffusers, save_kohya, with_comment
from raylora.diffusion.lora_reading import read_lora
from raylora.diffusion.lora_weights import LoraWeights, with_one_alpha, with_strength
from raylora.diffusion.places import lora_file_in
from raylora.diffusion.resize import Kept, with_rank
from raylora.errors import ConfigError, OutputError
from raylora.files import exists, is_folder, resolved

LAYOUTS = ("kohya", "diffusers")
PRECISIONS = ("fp16", "bf16", "fp32")
SUFFIX = ".safetensors"
MOST_STRENGTH = 1000
"""Alphas are float32, and of LoRAs that anybody uses at most in the hundreds."""


@dataclass(frozen=True)
class Export:
    """What is wanted of an export."""

    lora: Path
    """A LoRA file, or a folder that holds one."""
    layout: str
    out: Path
    strength: float = 1.0
    rank: int | None = None
    precision: str | None = None
    """None keeps each tensor's."""
    base_model: str | None = None
    """A diffusers folder or `demo`: needed only where an SDXL's blocks are not the usual ones."""


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    file: Path
    layout: str
    family: str
    layers: int
    rank: str
    alpha: str
    size_bytes: int
    kept: Kept | None
    """Where the rank was lowered."""


def export_lora(wanted: Export) -> Exported:
    """Read a LoRA file, change it as wanted, and write it; the base model's weights are not needed.

    Raises:
        ConfigError: an option that makes no sense.
        OutputError: the file exists, or is not called .safetensors.
        ModelError: not a LoRA that can be read, or not one that can be changed so.
    """
    _check_options(wanted)
    _check_out(wanted.out)
    family, unet_config = _base(wanted.base_model)
    weights = read_lora(lora_file_in(wanted.lora), family, unet_config)
    changed, kept = _changed(weights, wanted)
    changed = with_one_alpha(changed) if wanted.layout == "kohya" else changed
    try:
        if wanted.layout == "kohya":
            names = naming(changed.family, unet_config or FAMILIES[changed.family].unet)
            save_kohya(changed, names, wanted.out, wanted.precision)
        else:
            save_diffusers(changed, wanted.out, wanted.precision)
    except OSError as error:
        raise OutputError(f"--out {wanted.out}: can't be written ({error.strerror}); name another file") from None
    metadata = network_metadata(changed)
    return Exported(
        file=wanted.out,
        layout=wanted.layout,
        family=changed.family,
        layers=sum(1 for _ in changed.modules()),
        rank=metadata["ss_network_dim"],
        alpha=metadata["ss_network_alpha"],
        size_bytes=wanted.out.stat().st_size,
        kept=kept,
    )


def _check_options(wanted: Export) -> None:
    if wanted.layout not in LAYOUTS:
        raise ConfigError(f"--to {wanted.layout}: the layouts are {' and '.join(LAYOUTS)}")
    if wanted.precision not in (None, *PRECISIONS):
        raise ConfigError(f"--save-precision {wanted.precision}: the formats are {', '.join(PRECISIONS)}")
    if not 0 < wanted.strength <= MOST_STRENGTH:
        raise ConfigError(
            f"--strength {wanted.strength:g}: must be above 0 and at most {MOST_STRENGTH}; 1 leaves the LoRA as it is"
        )
    if wanted.rank is not None and wanted.rank < 1:
        raise ConfigError(f"--rank {wanted.rank}: must be at least 1")


def _check_out(out: Path) -> None:
    if out.suffix != SUFFIX:
        raise OutputError(f"--out {out}: a LoRA file is called {out.stem or 'lora'}{SUFFIX}; name it so")
    if exists(out):
        raise OutputError(f"--out {out}: exists already; name another file")


def _base(reference: str | None) -> tuple[str | None, Mapping[str, Any] | None]:
    """Family and U-Net configuration of a diffusers folder; nothing without one."""
    if reference is None:
        return None, None
    folder = DEMO_BASE if reference == DEMO_NAME else resolved(Path(reference))
    if not is_folder(folder):
        raise ConfigError(f"--base-model {reference}: is no folder; an export needs a diffusers folder, or none at all")
    config = read_component_config(folder, "unet")
    return "sdxl" if config.get("addition_embed_type") == "text_time" else "sd15", config


def _changed(weights: LoraWeights, wanted: Export) -> tuple[LoraWeights, Kept | None]:
    kept = None
    if wanted.rank is not None:
        before = weights.rank
        weights, kept = with_rank(weights, wanted.rank)
        weights = with_comment(weights, f"rank {before} resized to {wanted.rank}, {kept.overall:.1%} of the norm kept")
    if wanted.strength != 1:
        weights = with_comment(with_strength(weights, wanted.strength), f"strength {wanted.strength:g} in alpha")
    return weights, kept
