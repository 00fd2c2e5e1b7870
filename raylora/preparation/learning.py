"""How a prepared folder is meant to be learned, and what the data set check says of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from raylora.config import Experiment
from raylora.dataset.check import check_dataset
from raylora.dataset.findings import Finding
from raylora.errors import DatasetError
from raylora.preparation.settings import PrepareSettings

LARGEST_SD15_PX = 768**2
"""Larger sizes are SDXL's."""


def training_params(settings: PrepareSettings) -> dict[str, Any]:
    """The settings of a training, by dotted path, that follow from how the pictures were prepared."""
    params: dict[str, Any] = {"dataset.resolution": max(settings.sizes, key=math.prod)}
    if settings.crop == "none" or len(settings.sizes) > 1:
        params["dataset.buckets"] = True
    if settings.trigger:
        params["dataset.trigger"] = settings.trigger
    return params


def is_for_sdxl(settings: PrepareSettings) -> bool:
    """Whether the pictures are larger than SD1.5 learns them."""
    return max(map(math.prod, settings.sizes)) > LARGEST_SD15_PX


def check_prepared(root: Path, settings: PrepareSettings) -> list[Finding]:
    """What the check finds in the folder as training will read it, the worst first. No encoder is asked."""
    experiment = Experiment().with_params(training_params(settings))
    try:
        return check_dataset(str(root), experiment, against=(), split_file=None, embed=None)
    except DatasetError as error:  # of what somebody else has put there
        found, _, mend = str(error).rpartition("; ")
        return [Finding("error", "readable", found or mend, "no training begins with it", mend)]
