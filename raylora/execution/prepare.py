"""From settings to a checked job: the dataset read and split, the plan made, everything wrong told first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raylora.bundled import DEMO_NAME
from raylora.config import Experiment
from raylora.dataset.folder import Picture, ReadOptions, read_folder, resolve_dataset
from raylora.dataset.split import Split, read_split, split_pictures
from raylora.diffusion.families import TRAINABLE_FAMILIES, resolve_base
from raylora.errors import ConfigError, ModelError
from raylora.evaluation.encoders import check_encoder
from raylora.execution.plan import Plan, make_plan
from raylora.search.space import SearchSpace, check_space
from raylora.tracking.mlflow_runs import check_reachable, tracking_uri

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A job that can start: every part of it was looked at."""

    experiment: Experiment
    space: SearchSpace | None
    pictures: list[Picture]
    split: Split
    plan: Plan


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
    resolve_base(experiment.model.base_model)
    check_encoder(experiment.evaluation.encoder)
    pictures = read_pictures(experiment, warn)
    split = (
        read_split(split_file, pictures)
        if split_file
        else split_pictures(pictures, experiment.dataset.holdout_fraction)
    )
    return Job(experiment, space, pictures, split, make_plan(experiment, space, pictures, split))


def read_pictures(experiment: Experiment, warn: Warn) -> list[Picture]:
    """The pictures of the experiment's dataset."""
    dataset = experiment.dataset
    if dataset.path is None:
        raise ConfigError("no dataset: give --dataset, a folder of images with captions")
    options = ReadOptions(trigger=dataset.trigger, skip_bad_images=dataset.skip_bad_images)
    return read_folder(resolve_dataset(dataset.path), options, warn)


def check_trainable(experiment: Experiment) -> None:
    """Whether this version trains the family.

    Raises:
        ModelError: it can be planned for but not trained.
    """
    if experiment.model.family not in TRAINABLE_FAMILIES:
        raise ModelError(f"model.family {experiment.model.family}: this version trains SD1.5 only; --dry-run plans it")


def check_tracking(experiment: Experiment, out: Path) -> str:
    """The absolute tracking URI, once something answers there. The default store needs no asking."""
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
        params["model.base_model"] = resolve_base(base)
    if encoder != DEMO_NAME and Path(encoder).expanduser().is_dir():
        params["evaluation.encoder"] = str(Path(encoder).expanduser().resolve())
    return experiment.with_params(params)
