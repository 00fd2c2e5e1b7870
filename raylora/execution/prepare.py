"""From settings to a checked job: the dataset read and split, the plan made, everything wrong told first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raylora.bundled import DEMO_NAME
from raylora.config import Experiment
from raylora.dataset.folder import Picture, ReadOptions, read_folder, resolve_dataset
from raylora.dataset.split import Split, read_split, split_pictures
from raylora.diffusion.families import resolve_base
from raylora.errors import ConfigError
from raylora.evaluation.encoders import check_encoder
from raylora.execution.node_cache import Material, framed
from raylora.execution.plan import Plan, make_plan
from raylora.search.space import SearchSpace, check_space
from raylora.training.optimizers import check_optimizer

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A job that can start: every part of it was looked at."""

    experiment: Experiment
    space: SearchSpace | None
    pictures: list[Picture]
    split: Split
    regularization: list[Picture]
    plan: Plan

    @property
    def material(self) -> Material:
        """The pictures of a trial: the split's two parts and the regularization pictures."""
        return Material(self.split.train, self.split.holdout, self.regularization)


def prepare(experiment: Experiment, space: SearchSpace | None, split_file: Path | None, warn: Warn) -> Job:
    """Read and check everything that a job needs, without starting anything.

    Raises:
        UserError: whatever is wrong with settings, dataset, base model or search space.
    """
    if space is not None:
        check_space(space, experiment)
    for warning in experiment.warnings():
        warn(warning)
    if experiment.model.base_model is None:
        raise ConfigError("no base model: give --base-model, a hub id, a diffusers folder or a .safetensors file")
    resolve_base(experiment.model.base_model, experiment.model.family)
    check_optimizer(experiment.optimizer)
    check_encoder(experiment.evaluation.encoder)
    pictures = read_pictures(experiment, warn)
    regularization = read_regularization(experiment, warn)
    framed([*pictures, *regularization], experiment.dataset)
    split = (
        read_split(split_file, pictures)
        if split_file
        else split_pictures(pictures, experiment.dataset.holdout_fraction)
    )
    material = Material(split.train, split.holdout, regularization)
    plan = make_plan(experiment, space, material)
    if plan.regularization_images > plan.trial.images_per_epoch / 2:
        warn(
            f"dataset.regularization: {plan.regularization_images} regularization images an epoch and "
            f"{plan.trial.images_per_epoch - plan.regularization_images} of the set; the guide advises a smaller set"
        )
    return Job(experiment, space, pictures, split, regularization, plan)


def read_pictures(experiment: Experiment, warn: Warn) -> list[Picture]:
    """The pictures of the experiment's dataset."""
    dataset = experiment.dataset
    if dataset.path is None:
        raise ConfigError("no dataset: give --dataset, a folder of images with captions")
    options = ReadOptions(trigger=dataset.trigger, skip_bad_images=dataset.skip_bad_images)
    return read_folder(resolve_dataset(dataset.path), options, warn)


def read_regularization(experiment: Experiment, warn: Warn) -> list[Picture]:
    """The regularization pictures, if there are to be any. They need no captions and get no trigger word."""
    dataset = experiment.dataset
    if dataset.regularization is None:
        return []
    options = ReadOptions(skip_bad_images=dataset.skip_bad_images, fewest=1, needs_captions=False)
    return read_folder(resolve_dataset(dataset.regularization), options, warn)


def check_tracking(experiment: Experiment, out: Path) -> str:
    """The absolute tracking URI, once something answers there. The default store needs no asking."""
    from raylora.tracking.mlflow_runs import check_reachable, tracking_uri  # MLflow takes seconds; training needs none

    uri = tracking_uri(experiment.tracking.uri, out)
    if experiment.tracking.uri is not None:
        check_reachable(uri)
    return uri


def absolute(experiment: Experiment) -> Experiment:
    """The same experiment with paths that hold from any working directory, as kept in output folders."""
    assert experiment.dataset.path is not None and experiment.model.base_model is not None
    dataset, base, encoder = experiment.dataset.path, experiment.model.base_model, experiment.evaluation.encoder
    params = {}
    if dataset != DEMO_NAME:
        params["dataset.path"] = str(resolve_dataset(dataset))
    if base != DEMO_NAME:
        params["model.base_model"] = resolve_base(base, experiment.model.family)
    if experiment.dataset.regularization:
        params["dataset.regularization"] = str(resolve_dataset(experiment.dataset.regularization))
    if encoder != DEMO_NAME and Path(encoder).expanduser().is_dir():
        params["evaluation.encoder"] = str(Path(encoder).expanduser().resolve())
    return experiment.with_params(params)
