"""What all trials share: latents, embeddings and the base model's own measures, made once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from raylora.config import DatasetConfig, Experiment
from raylora.dataset.batches import own_repeats
from raylora.dataset.folder import Picture
from raylora.dataset.frames import frame_of
from raylora.dataset.pixels import Pixels
from raylora.diffusion.base import BaseModel
from raylora.diffusion.tensor_cache import Framed, TensorCache, cached_latents, framed_pixels
from raylora.errors import DatasetError, ModelError
from raylora.evaluation.encoders import ImageEncoder, cached_embeddings
from raylora.evaluation.scorecard import Evaluator, ImageSet, Reference, is_finite
from raylora.execution.material import TEXTS_NAME, Material, look_prompts
from raylora.execution.outputs import BASE_GRID_NAME
from raylora.files import fold_folders, write_atomically
from raylora.training.feed import TrainingSet

TENSORS_NAME, ENTRIES_NAME = "images.safetensors", "entries"


@dataclass(frozen=True)
class SharedData:
    """A split's pictures with all that is cached of them."""

    material: Material
    train: ImageSet
    holdout: ImageSet
    reference: Reference
    base_grid: Pixels | None = None
    """The held-out images above the base model's samples: kept for people, so not read again."""

    def evaluator(self, encoder: ImageEncoder, experiment: Experiment) -> Evaluator:
        prompts = look_prompts(experiment)
        return Evaluator(encoder, self.holdout, self.train, experiment.evaluation, experiment.sampling, prompts)


def entries_in(folder: Path) -> TensorCache:
    """The cache of latents and embeddings below a job's cache folder."""
    return TensorCache(folder / ENTRIES_NAME)


def framed(pictures: Sequence[Picture], config: DatasetConfig, mirrored: bool = False) -> list[Framed]:
    """Where each picture is cut.

    Raises:
        DatasetError: one is too small for buckets.
    """
    found = []
    for picture in pictures:
        try:
            found.append(Framed(picture.path, picture.digest, frame_of(picture.size, config), mirrored))
        except DatasetError as error:
            raise DatasetError(f"{picture.path}: {error}") from None
    return found


def image_set(
    base: BaseModel,
    encoder: ImageEncoder,
    pictures: Sequence[Picture],
    config: DatasetConfig,
    cache: TensorCache,
    keeps_pixels: bool = True,
) -> ImageSet:
    """Read pictures and encode them, for the measures.

    Args:
        keeps_pixels: whether they are also shown; pictures that are only measured needn't stay in memory.
    """
    cuts = framed(pictures, config)
    return ImageSet(
        pixels=[framed_pixels(cut) for cut in cuts] if keeps_pixels else [],
        latents=cached_latents(base, cuts, cache),
        captions=[picture.caption for picture in pictures],
        embeddings=cached_embeddings(encoder, cuts, cache),
        time_ids=_time_ids(cuts),
    )


def training_set(base: BaseModel, material: Material, experiment: Experiment, cache: TensorCache) -> TrainingSet:
    """What a run learns: the training pictures with its own repeats, and the regularization pictures."""
    dataset, pictures = experiment.dataset, [*material.train, *material.regularization]
    cuts = framed(pictures, dataset)
    repeats = own_repeats([picture.repeats for picture in material.train], experiment.training)
    weights = [1.0] * len(material.train) + [dataset.prior_loss_weight] * len(material.regularization)
    mirrored = framed(pictures, dataset, mirrored=True) if dataset.random_flip else []
    return TrainingSet(
        latents=cached_latents(base, cuts, cache),
        captions=[picture.caption for picture in pictures],
        repeats=[*repeats, *(picture.repeats for picture in material.regularization)],
        time_ids=_time_ids(cuts),
        weights=weights,
        mirrored=cached_latents(base, mirrored, cache),
        cache=cache,
    )


def _time_ids(cuts: Sequence[Framed]) -> Tensor:
    return torch.tensor([cut.frame.time_ids for cut in cuts])


def make_shared(
    base: BaseModel, encoder: ImageEncoder, material: Material, experiment: Experiment, folder: Path
) -> SharedData:
    """Encode a job's pictures and measure the base model on the held-out ones.

    Raises:
        ModelError: the base model's own measures are no numbers.
    """
    cache = entries_in(folder)
    train = image_set(base, encoder, material.train, experiment.dataset, cache, keeps_pixels=False)
    holdout = image_set(base, encoder, material.holdout, experiment.dataset, cache)
    training_set(base, material, experiment, cache)  # fills the cache, for all trials
    evaluator = Evaluator(encoder, holdout, train, experiment.evaluation, experiment.sampling)
    reference, samples = evaluator.look_at_base(base)
    if not is_finite(reference.as_dict()):
        raise ModelError(
            f"{experiment.model.base_model}: the base model itself gives no numbers in "
            f"mixed_precision={experiment.training.mixed_precision}; try bf16 or no"
        )
    return SharedData(material, train, holdout, reference, evaluator.grid(samples))


def write_shared(folder: Path, shared: SharedData) -> None:
    """Keep it for all trials: the texts last, so that a folder with texts is whole."""
    if shared.base_grid is not None:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shared.base_grid).save(folder / BASE_GRID_NAME)
    tensors = {f"holdout.pixels.{place}": torch.tensor(pixels) for place, pixels in enumerate(shared.holdout.pixels)}
    texts: dict[str, Any] = {"reference": shared.reference.as_dict()}
    for name, images in (("train", shared.train), ("holdout", shared.holdout)):
        tensors |= {f"{name}.embeddings": images.embeddings, f"{name}.time_ids": images.time_ids}
        tensors |= {f"{name}.latents.{place}": latent for place, latent in enumerate(images.latents)}
    for name in ("train", "holdout", "regularization"):
        texts[name] = [_row(picture) for picture in getattr(shared.material, name)]
    write_atomically(folder / TENSORS_NAME, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    write_atomically(folder / TEXTS_NAME, json.dumps(texts).encode())


def read_shared(folder: Path) -> SharedData:
    """What `write_shared` kept. Pixels of training images, which no measure needs, are not among it."""
    tensors = load_file(folder / TENSORS_NAME)
    texts = json.loads((folder / TEXTS_NAME).read_text(encoding="utf-8"))
    material = Material(*(_pictures(texts[name]) for name in ("train", "holdout", "regularization")))
    pixels = [tensors[f"holdout.pixels.{place}"].numpy() for place in range(len(material.holdout))]
    return SharedData(
        material=material,
        train=_images("train", material.train, tensors, []),
        holdout=_images("holdout", material.holdout, tensors, pixels),
        reference=Reference(**texts["reference"]),
    )


def _row(picture: Picture) -> dict[str, Any]:
    """What a trial needs to know of a picture; the rest has served for the split and the plan."""
    row = {**asdict(picture), "path": str(picture.path)}
    return {name: value for name, value in row.items() if name not in ("thumbnail", "written", "look")}


def _pictures(rows: list[dict[str, Any]]) -> list[Picture]:
    return [Picture(**{**row, "path": Path(row["path"]), "size": tuple(row["size"])}) for row in rows]


def _images(name: str, pictures: Sequence[Picture], tensors: dict[str, Tensor], pixels: Sequence[Pixels]) -> ImageSet:
    return ImageSet(
        pixels=pixels,
        latents=[tensors[f"{name}.latents.{place}"] for place in range(len(pictures))],
        captions=[picture.caption for picture in pictures],
        embeddings=tensors[f"{name}.embeddings"],
        time_ids=tensors[f"{name}.time_ids"],
    )


def read_folds(folder: Path, experiment: Experiment) -> list[SharedData]:
    """What was kept of each fold below a job's cache folder; of the only split where there are none.

    Pictures of remote datasets are those of this machine's copy.
    """
    folds = [read_shared(place) for place in fold_folders(folder, experiment.dataset.folds)]
    return [replace(fold, material=fold.material.here(experiment)) for fold in folds]
