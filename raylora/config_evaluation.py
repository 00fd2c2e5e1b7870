"""What trials are judged by: the settings of measures and score, and the rule between the score's weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raylora.config_section import Section


class ScoreConfig(Section):
    """score = w_loss (1 - holdout_loss_ratio)/(1 - ratio_ref) + w_sim similarity_gain - w_copy max(0, copying)."""

    w_loss: float = Field(1.0, ge=0, description="Weight of the held-out loss.")
    w_sim: float = Field(0.5, ge=0, description="Weight of the similarity gain.")
    w_copy: float = Field(
        0.0,
        ge=0,
        description="Weight against copying the training images; 0, as docs/measures.md says that it can't tell.",
    )
    ratio_ref: float = Field(
        0.97, gt=0, lt=1, description="The held-out loss ratio of a good LoRA: 0.97 for real models, 0.37 in the demo."
    )

    @property
    def loss_weight(self) -> float:
        """What a held-out loss that is lower by the base model's whole one adds to the score."""
        return self.w_loss / (1 - self.ratio_ref)


def check_score(score: ScoreConfig) -> None:
    """Without any weight every trial has the score 0.

    Raises:
        ValueError: no weight is above 0.
    """
    if not (score.w_loss or score.w_sim or score.w_copy):
        raise ValueError(
            "evaluation.score.w_loss: it, w_sim and w_copy are all 0, so all trials score 0; set one above 0"
        )


class EvaluationConfig(Section):
    encoder: str = Field(
        "openai/clip-vit-large-patch14",
        description="Image encoder: hub id or folder (CLIP, OpenCLIP, SigLIP, SigLIP 2, DINOv2), `demo`, or a class of "
        "your own, as for faces: package.module:Class, made by `Class(device)`; its `images(pixels)` gives a tensor "
        "(pictures, width) of vectors of length 1 for a list of uint8 arrays (height, width, 3). It may have "
        "`texts(prompts)` too, and a `version` to tell its cached vectors by.",
    )
    timesteps: tuple[Annotated[int, Field(ge=0, lt=1000)], ...] = Field(
        (100, 300, 500, 700, 900), min_length=1, description="Timesteps of the frozen grid."
    )
    noises: int = Field(1, ge=1, description="Noise draws per image and timestep of the frozen grid.")
    max_images: int = Field(16, ge=1, description="Most held-out (and training) images that a measure looks at.")
    batch_size: int = Field(8, ge=1, description="Images at once while measuring; changes speed and memory only.")
    score: ScoreConfig = Field(ScoreConfig(), description="How the measures become one score.")
