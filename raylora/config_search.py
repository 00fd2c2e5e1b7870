"""How a search goes about its trials: what it may try, what stops it, what a trial may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from raylora.config_section import Section, nearest
from raylora.storage import checked_uri

HIGHER_IS_BETTER = {
    "score": True,
    "similarity_gain": True,
    "sample_similarity": True,
    "prompt_alignment": True,
    "diversity": True,
    "holdout_loss": False,
    "holdout_loss_ratio": False,
    "copying": False,
    "lora_mb": False,
    "train_s": False,
    "peak_memory_gib": False,
}
"""What trials can be weighed by, and in which direction."""
GROWS_WITH_TRAINING = ("train_s",)
"""Costs that a trial has the less of, the earlier it was stopped."""


def _known_measure(name: str) -> str:
    if name not in HIGHER_IS_BETTER:
        known = list(HIGHER_IS_BETTER)
        raise ValueError(f"there is no measure {name}{nearest(name, known)}; measures are {', '.join(known)}")
    return name


Measure = Annotated[str, AfterValidator(_known_measure)]


class LimitsConfig(Section):
    """Each names a cost in a trial's reports. A trial that goes over one can't win."""

    lora_mb: float | None = Field(
        None, gt=0, description="Largest LoRA file in MB (10^6 bytes); larger ones aren't trained."
    )
    peak_memory_gib: float | None = Field(
        None,
        gt=0,
        description="Most memory in GiB that training may take: of its GPU, or without one of its process, the base "
        "model included. A trial that takes more is stopped at its next rung.",
    )
    train_s: float | None = Field(
        None,
        gt=0,
        description="Most seconds that training may take, measuring left out. A trial that takes longer is stopped at "
        "its next rung.",
    )


class SearchConfig(Section):
    trials: int = Field(20, ge=1, description="Trials in all, the guide's own configuration among them.")
    trial_scheduler: Literal["forecast", "asha", "median", "none"] = Field(
        "forecast",
        description="What stops weak trials early: a forecast of their ends, or their places at the rungs (`asha`, "
        "`median`), which also serve while too little is known for a forecast.",
    )
    grace_period: int = Field(200, ge=1, description="First rung, in images seen: no trial is stopped before it.")
    reduction_factor: float = Field(2.0, gt=1, description="Each rung is this many times the one before.")
    overfit_patience: int = Field(
        2, ge=1, description="Evaluations in a row with rising held-out loss and no rising similarity that end a trial."
    )
    optuna_sampler: Literal["forecast", "tpe", "random"] = Field(
        "forecast",
        description="How new trials are proposed: by a forecast of their ends, which takes the score's parts and their "
        "noise apart; by Optuna's TPE, as always after a warm start; or at random.",
    )
    startup_trials: int = Field(
        6, ge=0, description="Trials before any proposal is learned: the first points, then random ones."
    )
    max_failures: int = Field(
        5, ge=1, description="So many failed trials, and none that was ever measured, and the search gives up."
    )
    confirm_trials: int = Field(
        3, ge=0, description="Best trials that, with the first point, are trained again with new seeds; 0: none."
    )
    confirm_seeds: int = Field(2, ge=1, description="New seeds for each of them.")
    refit: bool = Field(True, description="Train the winner's settings once more, on all images, for `best/`.")
    gpus_per_trial: float = Field(
        1.0, gt=0, description="Share of a GPU, or number of GPUs, of a trial; without a GPU, number of CPU workers."
    )
    hang_s: float = Field(
        900.0,
        gt=0,
        description="Seconds without a single step of training or sampling after which a trial's worker counts as hung "
        "and is replaced.",
    )
    max_concurrent: int | None = Field(None, ge=1, description="Most trials at once; unset: as many as fit.")
    tradeoffs: tuple[Measure, ...] = Field(
        ("score", "lora_mb"),
        min_length=1,
        description=f"Measures to weigh against each other: the trials that none beats in all of them are told at the "
        f"end. Of {', '.join(HIGHER_IS_BETTER)}.",
    )
    storage: str | None = Field(
        None,
        description="Folder of this search alone on a storage that all machines of its cluster reach, such as "
        "s3://bucket/my_search: there its trials keep their checkpoints and the encoded images. Unset: in the output "
        "folder, which all machines must share then.",
    )
    limits: LimitsConfig = Field(LimitsConfig(), description="What a trial may cost.")

    @field_validator("storage")
    @classmethod
    def _is_uri(cls, value: str | None) -> str | None:
        return None if value is None else checked_uri(value)

    @field_validator("tradeoffs")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"must name each measure once, such as {', '.join(dict.fromkeys(value))}")
        return value

    @field_validator("gpus_per_trial")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("must be below 1 or a whole number")
        return value
