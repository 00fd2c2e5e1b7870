"""A LoRA in MLflow's model registry: found by its URI, and brought here with what its model says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from raylora.errors import ModelError, TrackingError
from raylora.tracking.entry import STRENGTH_TAG
from raylora.tracking.finding import answering, check_registry, version_at
from raylora.tracking.logged_lora import DESCRIPTION, files_of, read_description
from raylora.tracking.mlflow_store import REACH_S, UPLOAD_S, patience, reason_of, tracking_uri, without_news


@dataclass(frozen=True)
class RegisteredLora:
    """A version of a registered model."""

    name: str
    version: str
    file: Path
    """Its weights, on this machine."""
    base_model: str
    settings: Mapping[str, Any]
    """What its model says of pictures: settings by dotted path."""
    strength: float | None = None
    """The one to use it at, where its version's tags say so."""


def fetch(reference: str, configured: str, folder: Path) -> RegisteredLora:
    """Bring a registered LoRA into a folder.

    Args:
        reference: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        configured: the tracking URI of its registry.

    Raises:
        ConfigError: nothing is registered under this name, alias or version.
        TrackingError: no such registry, or no answer.
        ModelError: what is registered there is no LoRA.
    """
    uri = tracking_uri(configured, Path())
    check_registry(uri)
    client = MlflowClient(uri, uri)
    with answering(uri):
        with patience(REACH_S):
            version = version_at(client, reference)
            files = files_of(client, version)
        with patience(UPLOAD_S), without_news():
            return _brought(reference, version, files, folder)


def _brought(reference: str, version: ModelVersion, files: Any, folder: Path) -> RegisteredLora:
    try:
        told = read_description(_download(reference, files, DESCRIPTION, folder))
    except ModelError as error:
        raise ModelError(f"{reference}: {error}; name another") from None
    file = _download(reference, files, told.weights, folder)
    number, strength = str(version.version), _strength(version)
    return RegisteredLora(version.name, number, file, told.base_model, told.settings, strength)


def _download(reference: str, files: Any, name: str, folder: Path) -> Path:
    try:
        return Path(files.download_artifacts(name, str(folder)))
    except Exception as error:  # artifact stores and clouds raise many kinds
        raise TrackingError(
            f"{reference}: its {name} can't be brought ({reason_of(error)}); let this machine read where the registry "
            "keeps its files"
        ) from None


def _strength(version: ModelVersion) -> float | None:
    with suppress(ValueError):
        strength = float((version.tags or {}).get(STRENGTH_TAG, "nan"))
        return strength if math.isfinite(strength) else None
    return None
