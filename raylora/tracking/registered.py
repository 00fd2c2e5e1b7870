"""A LoRA in MLflow's model registry: found by its URI, and brought here with what its model says of it.

Of the model two files are read, `MLmodel` as plain YAML and the weights as safetensors: MLflow's own loader would put
code that came with a model on Python's path.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from raylora.diffusion.model_files import is_plain_name
from raylora.errors import ModelError, TrackingError
from raylora.files import MOST_TEXT_BYTES, parse_json, read_ordinary
from raylora.tracking.finding import answering, check_registry, version_at
from raylora.tracking.mlflow_store import REACH_S, UPLOAD_S, patience, reason_of, tracking_uri
from raylora.yaml_text import load_yaml

BARS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
DESCRIPTION = "MLmodel"
WEIGHTS = "pytorch_lora_weights.safetensors"
"""As MLflow calls a LoRA that was one file (`mlflow/diffusers`, `save_model`)."""
PARAMETERS = {"num_inference_steps": "sampling.steps", "guidance_scale": "sampling.guidance_scale"}
STRENGTH_TAG = "raylora.strength"


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
            place = _place(client, version)
        with patience(UPLOAD_S), _without_bars():
            return _brought(reference, version, get_artifact_repository(place, tracking_uri=uri), folder)


@contextmanager
def _without_bars() -> Iterator[None]:
    """MLflow draws a bar for each file."""
    before = os.environ.get(BARS)
    os.environ[BARS] = "false"
    try:
        yield
    finally:
        os.environ.pop(BARS) if before is None else os.environ.update({BARS: before})


def _place(client: MlflowClient, version: ModelVersion) -> str:
    """Where a version's files lie. MLflow's own way asks whatever registry is the process's current one."""
    if model_id := getattr(version, "model_id", None):
        return str(client.get_logged_model(model_id).artifact_location)
    return str(client.get_model_version_download_uri(version.name, version.version))


def _brought(reference: str, version: ModelVersion, files: Any, folder: Path) -> RegisteredLora:
    described = _download(reference, files, DESCRIPTION, folder)
    try:
        model = load_yaml(read_ordinary(described, MOST_TEXT_BYTES).decode())
        flavour = model["flavors"]["diffusers"]
        weights, name = flavour["adapter_weights"], flavour.get("weight_name") or WEIGHTS
        base = flavour["base_model"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ModelError(
            f"{reference}: is no LoRA (its {DESCRIPTION} has no flavour diffusers); name another"
        ) from None
    if not all(isinstance(part, str) and is_plain_name(part) for part in (weights, name)) or not isinstance(base, str):
        raise ModelError(f"{reference}: its {DESCRIPTION} names files in other places; register the LoRA again")
    file = _download(reference, files, f"{weights}/{name}", folder)
    return RegisteredLora(version.name, str(version.version), file, base, _settings(model), _strength(version))


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


def _settings(model: Mapping[str, Any]) -> dict[str, Any]:
    """The steps, guidance and size at which the model's own `predict` makes pictures (`registry.log_lora`)."""
    found: dict[str, Any] = {}
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        told = {one["name"]: one["default"] for one in parse_json(model["signature"]["params"])}
        found = {PARAMETERS[name]: value for name, value in told.items() if name in PARAMETERS}
        found["dataset.resolution"] = [int(told["width"]), int(told["height"])]
    return found
