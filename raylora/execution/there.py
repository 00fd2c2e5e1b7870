"""Whether what was named is there, asked without torch: a mistyped path is told before what takes seconds to load."""

from __future__ import annotations

from pathlib import Path

from raylora.config import Experiment
from raylora.dataset.folder import check_folder, resolve_dataset
from raylora.dataset.split import check_split_file
from raylora.diffusion.places import base_place
from raylora.storage import is_uri


def check_there(experiment: Experiment, split_file: Path | None) -> None:
    """Whether base model, pictures and split may be where they are said to be, as far as names tell.

    Raises:
        UserError: one of them isn't; in the words of who reads it.
    """
    check_base(experiment.model.base_model)
    check_pictures(experiment.dataset.path, experiment.dataset.regularization)
    if split_file is not None:
        check_split_file(split_file)


def check_base(reference: str | None) -> None:
    """The same of a base model, if one is named."""
    if reference is not None:
        base_place(reference)


def check_pictures(*references: str | None) -> None:
    """The same of data sets on this machine, if any are named."""
    for reference in references:
        if reference is not None and not is_uri(reference):
            check_folder(resolve_dataset(reference))
