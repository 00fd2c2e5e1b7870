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
    dataset = experiment.dataset
    if experiment.model.base_model is not None:
        base_place(experiment.model.base_model)
    for reference in (dataset.path, dataset.regularization):
        if reference is not None and not is_uri(reference):
            check_folder(resolve_dataset(reference))
    if split_file is not None:
        check_split_file(split_file)
