"""Configurations from far underfit to far overfit, and trainings whose quality is known beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from raylora.bundled import DEMO_DATASET, DEMO_JUDGE

STYLES_FOLDER = Path(__file__).parent.parent / "styles"

Learned = Literal["own", "other style", "shuffled captions", "4 pictures"]


@dataclass(frozen=True)
class Style:
    """A data set to learn, and pictures of the same kind that no training sees."""

    name: str
    dataset: Path
    judge: Path


@dataclass(frozen=True)
class Case:
    """One training, told by what differs from the guide's own on the demo."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    learned: Learned = "own"
    is_truth: bool = False
    """Whether its quality is known beforehand; the others are what a search may meet."""


def rate(unet: float) -> dict[str, Any]:
    """The text encoder learns at half of the U-Net's rate, as the guide has it."""
    return {"optimizer.unet_lr": unet, "optimizer.text_encoder_lr": unet / 2}


STYLES = {
    style.name: style
    for style in (
        Style("adventurer", DEMO_DATASET, DEMO_JUDGE),
        Style("lorelei", STYLES_FOLDER / "lorelei" / "dataset", STYLES_FOLDER / "lorelei" / "judge"),
    )
}
GOOD = "rate 2e-3"
CASES = {
    case.name: case
    for case in (
        Case("rate 1e-4", rate(1e-4)),
        Case("rate 3e-4", rate(3e-4)),
        Case("rate 1e-3 (guide)", rate(1e-3)),
        Case(GOOD, rate(2e-3)),
        Case("rate 4e-3", rate(4e-3)),
        Case("rate 8e-3", rate(8e-3)),
        Case("rank 4", {**rate(2e-3), "lora.rank": 4, "lora.alpha": 2}),
        Case("constant", {**rate(2e-3), "lr_scheduler.name": "constant"}),
        Case("a third as long", {**rate(2e-3), "training.max_images": 400}),
        Case("lion", {**rate(2e-4), "optimizer.name": "lion"}),
        Case("another style", rate(2e-3), "other style", is_truth=True),
        Case("shuffled captions", rate(2e-3), "shuffled captions", is_truth=True),
        Case("4 pictures only", rate(2e-3), "4 pictures", is_truth=True),
        Case("collapse", rate(3e-2), is_truth=True),
    )
}
"""`4 pictures only` sees each picture 300 times, the others 40 times: memorization."""
