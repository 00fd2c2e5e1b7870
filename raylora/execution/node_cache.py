"""What all trials share: latents, embeddings and the base model's own measures, made once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from raylora.config import Experiment
from raylora.dataset.batches import own_repeats
from raylora.dataset.folder import Picture
from raylora.dataset.pixels import load_pixels
from raylora.dataset.split import Split
from raylora.diffusion.encode import encode_images
from raylora.diffusion.families import BaseModel
from raylora.diffusion.lora_file import write_atomically
from raylora.evaluation.encoders import ImageEncoder
from raylora.evaluation.scorecard import Evaluator, ImageSet, Reference
from raylora.training.trainer import TrainingSet

TENSORS_NAME, TEXTS_NAME = "images.safetensors", "images.json"


@dataclass(frozen=True)
class SharedData:
    """Training and held-out images with all that is cached of them."""

    train: ImageSet
    holdout: ImageSet
    folder_repeats: Sequence[int]
    """Of each training image, as its folder's name says."""
    reference: Reference

    def training_set(self, experiment: Experiment) -> TrainingSet:
        """What a trial learns, with its own repeats."""
        repeats = own_repeats(self.folder_repeats, experiment.training)
        return TrainingSet(self.train.latents, self.train.captions, repeats)

    def evaluator(self, encoder: ImageEncoder, experiment: Experiment) -> Evaluator:
        prompts = look_prompts(experiment)
        return Evaluator(encoder, self.holdout, self.train, experiment.evaluation, experiment.sampling, prompts)


def look_prompts(experiment: Experiment) -> list[str]:
    """The user's sample prompts with the trigger word filled in."""
    trigger = experiment.dataset.trigger or ""
    return [prompt.replace("{trigger}", trigger) for prompt in experiment.sampling.prompts]


def image_set(base: BaseModel, encoder: ImageEncoder, pictures: Sequence[Picture], size: tuple[int, int]) -> ImageSet:
    """Read pictures and encode them, at `size` = (width, height) px."""
    pixels = np.stack([load_pixels(picture.path, size) for picture in pictures])
    return ImageSet(
        pixels=pixels,
        latents=encode_images(base, pixels),
        captions=[picture.caption for picture in pictures],
        embeddings=encoder.images(pixels),
    )


def make_shared(base: BaseModel, encoder: ImageEncoder, split: Split, experiment: Experiment) -> SharedData:
    """Encode a split's images and measure the base model on the held-out ones."""
    size = experiment.dataset.resolution
    train = image_set(base, encoder, split.train, size)
    holdout = image_set(base, encoder, split.holdout, size)
    evaluator = Evaluator(encoder, holdout, train, experiment.evaluation, experiment.sampling)
    repeats = [picture.repeats for picture in split.train]
    return SharedData(train, holdout, repeats, evaluator.reference(base))


def write_shared(folder: Path, shared: SharedData) -> None:
    """Keep it for all trials: the texts last, so that a folder with texts is whole."""
    tensors: dict[str, Tensor] = {"holdout.pixels": torch.from_numpy(shared.holdout.pixels)}
    texts: dict[str, object] = {"repeats": list(shared.folder_repeats), "reference": shared.reference.as_dict()}
    for name, images in (("train", shared.train), ("holdout", shared.holdout)):
        tensors |= {f"{name}.latents": images.latents, f"{name}.embeddings": images.embeddings}
        texts[name] = list(images.captions)
    write_atomically(folder / TENSORS_NAME, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    write_atomically(folder / TEXTS_NAME, json.dumps(texts).encode())


def read_shared(folder: Path) -> SharedData:
    """What `write_shared` kept. Pixels of training images, which no measure needs, are not among it."""
    tensors = load_file(folder / TENSORS_NAME)
    texts = json.loads((folder / TEXTS_NAME).read_text(encoding="utf-8"))
    pixels = {"holdout": tensors["holdout.pixels"].numpy(), "train": tensors["holdout.pixels"].numpy()[:0]}
    train, holdout = (
        ImageSet(pixels[name], tensors[f"{name}.latents"], texts[name], tensors[f"{name}.embeddings"])
        for name in ("train", "holdout")
    )
    return SharedData(train, holdout, texts["repeats"], Reference(**texts["reference"]))


def is_shared(folder: Path) -> bool:
    return (folder / TEXTS_NAME).is_file()
