"""From settings to a checked job: the dataset read and split, the plan made, everything wrong told first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from raylora.bundled import DEMO_NAME
from raylora.config import Experiment
from raylora.config_files import check_complete
from raylora.dataset.folder import named_repeats, resolve_dataset
from raylora.dataset.remote import naming_objects
from raylora.dataset.split import Split
from raylora.diffusion.base_digest import base_digest
from raylora.diffusion.families import check_base_on_hub, resolve_base
from raylora.errors import ConfigError, UnreachableError
from raylora.evaluation.encoders import check_encoder, check_encoder_on_hub, embeds_texts
from raylora.execution.check_data import tell_data
from raylora.execution.job import Job, Warn, read_pictures, read_regularization, splits_of
from raylora.execution.node_cache import framed
from raylora.execution.plan import Plan
from raylora.files import is_folder, resolved
from raylora.search.limits import in_words, over_limits
from raylora.search.space import SearchSpace, check_space
from raylora.storage import is_uri
from raylora.training.optimizers import check_optimizer

ALIGNMENT = "prompt_alignment"
MOST_IMAGES_PER_EPOCH = 10**7


def checked_job(
    experiment: Experiment,
    space: SearchSpace | None,
    split_file: Path | None,
    warn: Warn,
    holds_out: bool = True,
    goes_on: bool = False,
) -> Job:
    """Read and check everything that a job needs, without starting anything.

    Args:
        holds_out: whether images are held out to judge by; without, all are learned.
        goes_on: whether it has begun before: with what data, is not judged again.

    Raises:
        UserError: whatever is wrong with settings, dataset, base model or search space.
    """
    check_complete(experiment)
    _check_folds(experiment, searches=space is not None, holds_out=holds_out)
    tried = check_space(space, experiment) if space else [experiment]
    _warn_of_settings(tried, warn)
    check_models(experiment)
    _check_optimizers(tried)
    pictures = read_pictures(experiment, warn, measured=not goes_on)
    regularization = read_regularization(experiment, warn)
    with naming_objects(experiment.dataset.path, experiment.dataset.regularization):
        framed([*pictures, *regularization], experiment.dataset)
        splits = splits_of(pictures, experiment, split_file, warn) if holds_out else (Split(tuple(pictures), ()),)
    job = Job(experiment, space, pictures, splits, regularization)
    _check_epoch(job.plan)
    if not goes_on:
        tell_data(job, warn, split_file)
    _warn_of_repeats(job.plan, warn)
    if space:
        _warn_of_idle_gpus(job.plan.experiment, warn)
        _warn_of_size(job.plan, space, warn)
    return job


def check_models(experiment: Experiment) -> None:
    """Whether base model and image encoder are there, as far as that can be said without asking the hub.

    Raises:
        ModelError: one of them isn't, or is no such model.
    """
    assert experiment.model.base_model is not None
    resolve_base(experiment.model.base_model, experiment.model.family)
    check_encoder(experiment.evaluation.encoder)


def _check_folds(experiment: Experiment, searches: bool, holds_out: bool) -> None:
    """Whether what is wanted of several folds can be had: each trains a LoRA, and none of these is the answer.

    Raises:
        ConfigError: it can't.
    """
    folds = experiment.dataset.folds
    if folds > 1 and holds_out and not searches:
        raise ConfigError(
            f"dataset.folds {folds}: with images held out `raylora train` trains one LoRA and judges it by one split; "
            "add --set dataset.folds=1, or search with `raylora tune`"
        )
    if folds > 1 and searches and not experiment.search.refit:
        raise ConfigError(
            f"search.refit false: with dataset.folds {folds} a trial has {folds} LoRAs, and the one that is handed "
            "over is trained on all images; leave search.refit at true, or set dataset.folds=1"
        )


def check_hub(experiment: Experiment, judges: bool = True, weighs: bool = False, warn: Warn | None = None) -> None:
    """Whether base model and encoder can be had, before anything is written.

    Args:
        judges: whether anything is measured, so that the encoder is needed.
        weighs: whether trials are weighed against each other, by measures that the encoder must give.
        warn: told of what can't be asked for from here, instead of an error: enough for a plan.

    Raises:
        ModelError: one of them isn't there.
    """
    base = experiment.model.base_model
    assert base is not None
    look_ups = [partial(check_base_on_hub, base, experiment.model.family)]
    look_ups += [partial(check_encoder_on_hub, experiment.evaluation.encoder)] if judges else []
    look_ups += [partial(_check_weighed, experiment)] if weighs and ALIGNMENT in experiment.search.tradeoffs else []
    for look_up in look_ups:
        try:
            look_up()
        except UnreachableError as error:
            if warn is None:
                raise
            warn(str(error))


def _check_weighed(experiment: Experiment) -> None:
    """Whether the measures of `search.tradeoffs` are measured.

    Raises:
        ConfigError: the encoder takes no prompts.
    """
    encoder = experiment.evaluation.encoder
    if not embeds_texts(encoder):
        raise ConfigError(
            f"search.tradeoffs: {ALIGNMENT} is not measured by evaluation.encoder {encoder}, which takes pictures "
            "alone; leave it out, or choose a CLIP or SigLIP model"
        )


def _check_optimizers(configurations: Sequence[Experiment]) -> None:
    """Each class with each of its arguments once: draws differ in their rates."""
    optimizers = [configuration.optimizer for configuration in configurations]
    for optimizer in {(one.name, str(one.arguments)): one for one in optimizers}.values():
        check_optimizer(optimizer)


def _warn_of_settings(configurations: Sequence[Experiment], warn: Warn) -> None:
    """Each kind of warning once: draws differ in their numbers."""
    told = set()
    for warning in (warning for configuration in configurations for warning in configuration.warnings()):
        kind = re.sub(r"[\d.]+(e[+-]?\d+)?", "", warning)
        if kind not in told:
            warn(warning)
        told.add(kind)


def _check_epoch(plan: Plan) -> None:
    """Whether an epoch's order of images, which is drawn as a whole, fits into memory.

    Raises:
        ConfigError: it is longer than any training.
    """
    if plan.trial.images_per_epoch > MOST_IMAGES_PER_EPOCH:
        raise ConfigError(
            f"training.repeats: an epoch would be {plan.trial.images_per_epoch:,} images, and "
            f"{MOST_IMAGES_PER_EPOCH:,} are the most; lower it, and raise training.epochs"
        )


def _warn_of_repeats(plan: Plan, warn: Warn) -> None:
    """Repeats that folders' names ask for in vain."""
    dataset = plan.experiment.dataset
    named = named_repeats(plan.everything)
    if named and "training.repeats" in plan.searched and dataset.path != DEMO_NAME:
        warn(
            f"the folders' names say {' and '.join(map(str, named))} repeats; the space searches training.repeats "
            "instead; --set training.repeats=null keeps the folders'"
        )


def _warn_of_idle_gpus(experiment: Experiment, warn: Warn) -> None:
    """A batch that has fewer images than a trial has GPUs leaves some of them without work."""
    gpus, images = experiment.search.gpus_per_trial, experiment.training.batch_size
    if images < gpus:
        warn(
            f"search.gpus_per_trial {gpus:g}: a trial's GPUs share each batch, and a batch of {images} keeps only "
            f"{images} of them busy; set training.batch_size to {gpus:g} or more"
        )


def _warn_of_size(plan: Plan, space: SearchSpace, warn: Warn) -> None:
    """A first point whose LoRA file is over its limit is trained all the same, for comparison."""
    limits, size = plan.experiment.search.limits, {"lora_mb": plan.lora_bytes / 1e6}
    if space.first_points and (over := over_limits(limits, size)):
        warn(
            f"search.limits.lora_mb: the first point's LoRA file is over the limit ({in_words(limits, over)}), so it "
            "can't win; raise the limit, or set a lower lora.rank"
        )


def check_tracking(experiment: Experiment, out: Path) -> str:
    """The absolute tracking URI, if something answers there. The default store needs no asking; nothing is made."""
    from raylora.tracking.mlflow_store import check_reachable, tracking_uri  # MLflow takes seconds; training needs none

    uri = tracking_uri(experiment.tracking.uri, out)
    if experiment.tracking.uri is not None:
        check_reachable(uri, experiment.tracking.experiment)
    return uri


def absolute(experiment: Experiment) -> Experiment:
    """The same experiment with paths that hold from any working directory, as kept in output folders."""
    assert experiment.dataset.path is not None and experiment.model.base_model is not None
    dataset, base, encoder = experiment.dataset.path, experiment.model.base_model, experiment.evaluation.encoder
    params = {}
    if dataset != DEMO_NAME and not is_uri(dataset):
        params["dataset.path"] = str(resolve_dataset(dataset))
    if base != DEMO_NAME:
        params["model.base_model"] = resolve_base(base, experiment.model.family)
    regularization = experiment.dataset.regularization
    if regularization and not is_uri(regularization):
        params["dataset.regularization"] = str(resolve_dataset(regularization))
    if encoder != DEMO_NAME and is_folder(resolved(Path(encoder))):
        params["evaluation.encoder"] = str(resolved(Path(encoder)))
    return experiment.with_params(params)


def digest_of_base(experiment: Experiment) -> str | None:
    """What the base model's weights are known by, wherever they lie; None of one on the hub."""
    assert experiment.model.base_model is not None
    return base_digest(experiment.model.base_model, experiment.model.family)
