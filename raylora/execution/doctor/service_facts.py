"""What MLflow, the hub and the images say."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raylora.bundled import DEMO_NAME
from raylora.dataset.folder import Picture
from raylora.dataset.frames import frame_of
from raylora.diffusion.hub import is_cached, why_silent
from raylora.errors import DatasetError, UserError
from raylora.execution.doctor.asking import Probe
from raylora.execution.doctor.questions import ServiceQuestion
from raylora.execution.job import Warn, read_pictures, read_regularization, splits_of

INDEX, BASE_WEIGHTS = "model_index.json", ("unet/*.safetensors",)
LEFT_OUT = "; left out"


def try_mlflow(question: ServiceQuestion) -> dict[str, Any]:
    """Where MLflow puts files, and which one stays there. Without a tracking URI its own file is tried elsewhere: the
    output folder stays new."""
    from raylora.tracking.check import try_writing
    from raylora.tracking.mlflow_store import tracking_uri

    tracking = question.experiment.tracking
    if tracking.uri is not None:
        return asdict(try_writing(tracking_uri(tracking.uri, question.out), tracking.experiment))
    with tempfile.TemporaryDirectory() as folder:
        written = try_writing(tracking_uri(None, Path(folder)), tracking.experiment)
    return asdict(written) | {"place": str(question.out)}


def try_storage(question: ServiceQuestion) -> str:
    """The folder that trials on other machines work from, which must be writable and empty."""
    from raylora.execution.mirror import check_storage

    storage = question.experiment.search.storage
    assert storage is not None
    check_storage(question.experiment)
    return storage


def try_base(question: ServiceQuestion) -> dict[str, Any]:
    """Where the base model is: `disk`, `cache` or `hub`."""
    from raylora.diffusion.families import check_base_on_hub, resolve_base

    model = question.experiment.model
    assert model.base_model is not None
    resolved = resolve_base(model.base_model, model.family)
    if model.base_model == DEMO_NAME or Path(resolved).exists():
        return _found(model.base_model, "disk")
    check_base_on_hub(model.base_model, model.family)
    return _on_hub(model.base_model, is_cached(model.base_model, INDEX, BASE_WEIGHTS))


def try_encoder(question: ServiceQuestion) -> dict[str, Any]:
    """Where the image encoder is."""
    from raylora.evaluation.encoder_place import place_here
    from raylora.evaluation.encoders import check_encoder_on_hub

    encoder = question.experiment.evaluation.encoder
    check_encoder_on_hub(encoder)
    place = place_here(encoder)
    return _found(encoder, "disk") if place == encoder else _on_hub(encoder, cached=place is not None)


def _on_hub(reference: str, cached: bool) -> dict[str, Any]:
    return _found(reference, "cache") if cached else _found(reference, "hub", why_silent())


def _found(reference: str, where: str, silent: str | None = None) -> dict[str, Any]:
    """`silent`: why the hub can't be asked for it."""
    return {"reference": reference, "where": where, "silent": silent}


def ask_hub(_: ServiceQuestion) -> str | None:
    """Why the hub can't be asked, if so."""
    return why_silent()


def read_dataset(question: ServiceQuestion) -> dict[str, Any]:
    """The images, and all that is wrong with them."""

    def read(experiment: Any, warn: Warn) -> list[Picture]:
        pictures = read_pictures(experiment, warn)
        splits_of(pictures, experiment, None, warn)
        return pictures

    return _read(question, read)


def read_regularized(question: ServiceQuestion) -> dict[str, Any]:
    """The same of the regularization images."""
    return _read(question, read_regularization)


def _read(question: ServiceQuestion, read: Callable[[Any, Warn], Sequence[Picture]]) -> dict[str, Any]:
    """Read to the end, though a search would stop at the first image that can't be read, unless it is to skip them."""
    skips = question.experiment.dataset.skip_bad_images
    warnings: list[str] = []
    problems: list[str] = []
    pictures: Sequence[Picture] = []
    try:
        pictures = read(question.experiment.with_params({"dataset.skip_bad_images": True}), warnings.append)
    except UserError as error:
        problems.append(str(error))
    problems += [problem for picture in pictures if (problem := _misfit(picture, question))]
    bad = [] if skips else [text for text in warnings if text.endswith(LEFT_OUT)]
    return {
        "pictures": len(pictures),
        "problems": [f"{text.removesuffix(LEFT_OUT)}; mend or remove it, or give --skip-bad-images" for text in bad]
        + problems,
        "warnings": [text for text in warnings if text not in bad],
    }


def _misfit(picture: Picture, question: ServiceQuestion) -> str | None:
    try:
        frame_of(picture.size, question.experiment.dataset)
    except DatasetError as error:
        return f"{picture.path}: {error}"
    return None


FACTS: dict[str, Probe] = {
    "mlflow": Probe(try_mlflow, limit_s=180),
    "storage": Probe(try_storage, limit_s=180),
    "base model": Probe(try_base, limit_s=180),
    "encoder": Probe(try_encoder, limit_s=180),
    "hub": Probe(ask_hub),
    "dataset": Probe(read_dataset, limit_s=180),
    "regularization": Probe(read_regularized, limit_s=180),
}
