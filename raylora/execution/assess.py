"""`raylora evaluate`: every measure of any LoRA file on any captioned folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raylora.config import Experiment
from raylora.dataset.folder import Picture, ReadOptions
from raylora.dataset.remote import naming_objects, read_dataset
from raylora.diffusion.families import resolve_base
from raylora.diffusion.lora_file import load_lora
from raylora.diffusion.lora_reading import check_lora_file
from raylora.diffusion.memory import enough_memory
from raylora.diffusion.places import check_lora_place, lora_file_in
from raylora.diffusion.tensor_cache import TensorCache
from raylora.errors import ConfigError
from raylora.evaluation.scorecard import Evaluator, Metrics
from raylora.execution.checked_job import check_hub
from raylora.execution.node_cache import image_set
from raylora.execution.trial import encoder_of, fresh_base, pick_device

Warn = Callable[[str], None]


def evaluate_lora(lora: Path, dataset: str, train_dataset: str | None, experiment: Experiment, warn: Warn) -> Metrics:
    """Measure a LoRA on all images of `dataset`; none of them may have been trained on for the numbers to mean much.

    Args:
        train_dataset: the images that the LoRA learned; `train_probe_loss` and `copying` need them.
        experiment: gives base model, resolution, encoder, sampling and the score's weights.

    Raises:
        UserError: a file, folder or model can't be used.
    """
    check_lora_place(lora)
    check_lora_file(lora_file_in(lora))
    if experiment.model.base_model is None:
        raise ConfigError("no base model: give --base-model, or evaluate a LoRA that lies beside its experiment.yaml")
    resolve_base(experiment.model.base_model, experiment.model.family)
    held_out = _read(dataset, experiment, warn)
    learned = _read(train_dataset, experiment, warn) if train_dataset else []
    unseen = _without(learned, held_out)
    if known := len(learned) - len(unseen):
        warn(f"{known} of the {len(held_out)} images to judge by are in the LoRA's own data set; if it learned them, "
             "the numbers say little")  # fmt: skip
    check_hub(experiment)
    less = "use --set evaluation.batch_size=1 or training.mixed_precision=bf16"
    with naming_objects(dataset, train_dataset), enough_memory("as it is measured", less):
        return _measured(lora, held_out, unseen, experiment)


def _measured(lora: Path, held_out: list[Picture], unseen: list[Picture], experiment: Experiment) -> Metrics:
    """A LoRA on its base model, by images to judge by and those that it alone has learned."""
    device, cache = pick_device(), TensorCache(None)
    base = fresh_base(experiment, device)
    encoder = encoder_of(experiment, device)
    evaluator = Evaluator(
        encoder,
        holdout=image_set(base, encoder, held_out, experiment.dataset, cache),
        train=image_set(base, encoder, unseen, experiment.dataset, cache, keeps_pixels=False) if unseen else None,
        evaluation=experiment.evaluation.model_copy(update={"max_images": len(held_out)}),
        sampling=experiment.sampling,
    )
    reference = evaluator.reference(base)
    load_lora(base, lora)
    return evaluator.measure(base, reference).metrics


def _read(dataset: str, experiment: Experiment, warn: Warn) -> list[Picture]:
    options = ReadOptions(
        trigger=experiment.dataset.trigger, skip_bad_images=experiment.dataset.skip_bad_images, fewest=2
    )
    return read_dataset(dataset, options, warn)


def _without(pictures: list[Picture], others: list[Picture]) -> list[Picture]:
    """Pictures that aren't among the others, so that a folder which holds both parts of a split serves too."""
    known = {picture.digest for picture in others}
    return [picture for picture in pictures if picture.digest not in known]
