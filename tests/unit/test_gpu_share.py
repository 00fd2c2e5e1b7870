"""Several trials on one GPU: whether a part of it holds one."""

from __future__ import annotations

import pytest

from raylora.config import Experiment
from raylora.errors import ConfigError
from raylora.execution.gpu_share import CONTEXT_BYTES, check_fits, check_parts, least_bytes
from raylora.execution.share import Share

GIB = 2**30
FULL_SD15 = Experiment().with_params({"model.base_model": "stable-diffusion-v1-5/stable-diffusion-v1-5"})
UNET_SD15, TEXT_SD15 = 859_520_964, 123_060_480
"""Weights of the published model's parts."""


def test_what_a_training_takes_is_counted_on_the_layers() -> None:
    bf16 = FULL_SD15.with_params({"model.train_text_encoder": False, "training.mixed_precision": "bf16"})
    assert least_bytes(bf16) == CONTEXT_BYTES + 2 * (UNET_SD15 + TEXT_SD15)
    float32 = bf16.with_params({"training.mixed_precision": "no"})
    assert least_bytes(float32) == CONTEXT_BYTES + 4 * (UNET_SD15 + TEXT_SD15)


def test_a_large_lora_counts_with_gradients_and_optimizer() -> None:
    large = FULL_SD15.with_params(
        {"lora.rank": 512, "model.train_text_encoder": True, "training.mixed_precision": "bf16"}
    )
    adamw, lion = (least_bytes(large.with_params({"optimizer.name": name})) for name in ("adamw", "lion"))
    trained = (adamw - lion) / 4  # two moments against one
    of_weights = CONTEXT_BYTES + 2 * (UNET_SD15 + TEXT_SD15)
    assert trained > 5e7
    assert adamw == of_weights + 16 * trained


@pytest.mark.parametrize(
    ("needed_gib", "part", "mend"),
    [
        (9, 0.3, "--gpus-per-trial 0.5 or more"),
        (7, 0.25, "--gpus-per-trial 0.33 "),
        (13, 0.5, "--gpus-per-trial 1,"),
    ],
)
def test_a_trial_that_can_not_fit_is_told_with_the_part_that_would_do(needed_gib: int, part: float, mend: str) -> None:
    with pytest.raises(ConfigError, match=rf"{needed_gib}.0 GiB.*of node small's GPU is {24 * part:.1f} GiB.*{mend}"):
        check_fits(needed_gib * GIB, part, {"large": 80 * GIB, "small": 24 * GIB})


def test_what_fits_is_left_in_peace() -> None:
    check_fits(12 * GIB, 0.5, {"small": 24 * GIB})
    check_fits(12 * GIB, 0.5, {})


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_whole_gpus_are_not_asked(gpus: int) -> None:
    check_parts(FULL_SD15, Share(1, gpus, 1, 1))  # would need a cluster
