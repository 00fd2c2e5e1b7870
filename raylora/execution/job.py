"""A job: settings, a search space and pictures; and what a search that goes on needs of it.

Without torch or diffusers, but where a plan is asked for or a model is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.bundled import DEMO_NAME
from raylora.config import Experiment
from raylora.dataset.folder import Picture, ReadOptions, dataset_digest
from raylora.dataset.remote import read_dataset
from raylora.dataset.split import Split, read_splits, split_as
from raylora.errors import ConfigError
from raylora.execution.material import Material
from raylora.own_code import is_own_name
from raylora.search.space import SearchSpace
from raylora.search.warm_start import Taken

if TYPE_CHECKING:
    from raylora.execution.plan import Plan

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A job that can start or go on: every part of it was looked at."""

    experiment: Experiment
    space: SearchSpace | None
    pictures: list[Picture]
    splits: tuple[Split, ...]
    """One, or one for each fold; where nothing is held out, one that learns all."""
    regularization: list[Picture]
    warm_start: tuple[Taken, ...] = ()
    """What a search takes from earlier ones."""

    @property
    def digest(self) -> str:
        """Of all pictures and captions that are learned or held out."""
        return dataset_digest([*self.pictures, *self.regularization])

    def lines(self) -> list[tuple[str, str]]:
        """Label and text of each line of the plan, as printed."""
        return [*self.plan.lines(), *(("Warm start", str(taken)) for taken in self.warm_start)]

    @property
    def materials(self) -> tuple[Material, ...]:
        """The pictures of a trial, of each fold: the split's two parts and the regularization pictures."""
        return tuple(Material(split.train, split.holdout, self.regularization) for split in self.splits)

    @cached_property
    def plan(self) -> Plan:
        """What is about to happen. It is counted on the model's layers, which takes seconds."""
        from raylora.execution.plan import make_plan

        return make_plan(self.experiment, self.space, self.materials)


def job_again(experiment: Experiment, space: SearchSpace, split_file: Path, warn: Warn) -> Job:
    """What a search that goes on needs: its settings were checked when it began, but what they name may be gone.

    Raises:
        UserError: pictures, base model or image encoder aren't what they were.
    """
    pictures, regularization = read_pictures(experiment, warn), read_regularization(experiment, warn)
    encoder = experiment.evaluation.encoder
    if is_own_name(encoder) or not all(path.exists() for path in local_paths(experiment)):
        from raylora.execution.checked_job import check_models  # seconds, to say what is wrong in its words

        check_models(experiment)
    return Job(experiment, space, pictures, splits_of(pictures, experiment, split_file, warn), regularization)


def splits_of(pictures: list[Picture], experiment: Experiment, file: Path | None, warn: Warn) -> tuple[Split, ...]:
    """What is held out: as a file has it, or else one split or several, as the settings want it.

    Raises:
        UserError: the file is wrong or has another number of folds, or there are too few pictures.
    """
    dataset = experiment.dataset
    if file is not None:
        splits = read_splits(file, pictures)
        if len(splits) != dataset.folds:
            raise ConfigError(
                f"{file}: has {len(splits)} fold{'s' * (len(splits) > 1)}, and dataset.folds is {dataset.folds}; "
                f"with `raylora tune` set dataset.folds={len(splits)}, or leave --split out"
            )
        return splits
    return split_as(dataset, pictures, warn)


def read_pictures(experiment: Experiment, warn: Warn, measured: bool = False) -> list[Picture]:
    """The pictures of the experiment's dataset.

    Args:
        measured: whether their blur is wanted, for the plan.
    """
    dataset = experiment.dataset
    assert dataset.path is not None
    options = ReadOptions(
        trigger=dataset.trigger,
        skip_bad_images=dataset.skip_bad_images,
        measured_for=dataset if measured else None,
    )  # fmt: skip
    return read_dataset(dataset.path, options, warn)


def read_regularization(experiment: Experiment, warn: Warn) -> list[Picture]:
    """The regularization pictures, if there are to be any. They need no captions and get no trigger word."""
    dataset = experiment.dataset
    if dataset.regularization is None:
        return []
    options = ReadOptions(skip_bad_images=dataset.skip_bad_images, fewest=1, needs_captions=False)
    return read_dataset(dataset.regularization, options, warn)


def local_paths(experiment: Experiment) -> list[Path]:
    """What an absolute experiment reads from the disk: images, base model, encoder; not what is bundled or remote."""
    dataset, base = experiment.dataset, experiment.model.base_model
    named = (dataset.path, dataset.regularization, base, experiment.evaluation.encoder)
    return [Path(name) for name in named if name and name != DEMO_NAME and Path(name).is_absolute()]
