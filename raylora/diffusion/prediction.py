"""What a base model's U-Net predicts, as its settings and its own files say; read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from raylora.bundled import DEMO_BASE, DEMO_NAME
from raylora.config import ModelConfig
from raylora.diffusion.hub import cached_folder, is_hub_id
from raylora.files import is_file, is_folder, read_mapping

V = "v_prediction"
V_MARK, ZERO_SNR_MARK = "v_pred", "ztsnr"
"""Empty tensors by which files of v-prediction models say so, and that the last timestep is noise alone; ComfyUI's
`supported_models.py` reads them too, and diffusers doesn't."""
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"


@dataclass(frozen=True)
class Prediction:
    """What is known of it; `kind` is None where nothing is."""

    kind: str | None = None
    zero_snr: bool = False
    """Whether the last timestep is noise alone (Lin et al. 2023, https://arxiv.org/abs/2305.08891)."""
    is_marked: bool = False
    """Whether a single file says so by its mark, which other programs read too."""

    @property
    def is_v(self) -> bool:
        return self.kind == V


def marks_of(file: Path) -> set[str]:
    """A single file's marks.

    Raises:
        OSError, SafetensorError: it can't be read.
    """
    with safe_open(str(file), framework="np") as opened:
        return {V_MARK, ZERO_SNR_MARK} & set(opened.keys())


def prediction_of(model: ModelConfig) -> Prediction:
    """What the settings say, else the files of a base model that is here; nothing of one that isn't."""
    base = str(DEMO_BASE) if model.base_model == DEMO_NAME else model.base_model or ""
    if base.endswith(".safetensors"):
        return _of_file(Path(base), model.prediction_type)
    folder = Path(base) if base and is_folder(Path(base)) else None
    if folder is None and is_hub_id(base):
        folder = cached_folder(base, SCHEDULER_CONFIG, ("unet/*.safetensors",))
    told = _scheduler_of(folder) if folder else {}
    return Prediction(model.prediction_type or told.get("prediction_type"), told.get("rescale_betas_zero_snr") is True)


def _of_file(file: Path, wanted: str | None) -> Prediction:
    try:
        marks = marks_of(file) if is_file(file) else set()
    except (OSError, SafetensorError):
        marks = set()
    kind = wanted or (V if V_MARK in marks else None)
    return Prediction(kind, kind == V and ZERO_SNR_MARK in marks, V_MARK in marks)


def _scheduler_of(folder: Path) -> dict[str, Any]:
    try:
        return read_mapping(folder / SCHEDULER_CONFIG)
    except (OSError, ValueError):
        return {}
