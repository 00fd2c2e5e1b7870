"""What a LoRA's model in MLflow says of itself, and whether MLflow alone serves it as it was trained.

Of a model `MLmodel` is read as plain YAML, and raylora's own entry: MLflow's own loader would put code that came with a
model on Python's path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from raylora.diffusion.model_files import is_plain_name
from raylora.errors import ModelError
from raylora.files import MOST_TEXT_BYTES, parse_json, read_mapping, read_ordinary
from raylora.tracking.entry import ENTRY_FOLDER, ENTRY_NAME, TAG, Entry, read_entry
from raylora.tracking.mlflow_store import reason_of
from raylora.yaml_text import load_yaml

DESCRIPTION = "MLmodel"
WEIGHTS = "pytorch_lora_weights.safetensors"
"""As MLflow calls a LoRA that was one file (`mlflow/diffusers`, `save_model`)."""
PARAMETERS = {"num_inference_steps": "sampling.steps", "guidance_scale": "sampling.guidance_scale"}
AS_TRAINED = f"{TAG}as_trained"
"""Among a model's metadata: whether its base model is one that MLflow loads, and samples as the LoRA was trained."""
PREDICTION = "model.prediction_type"
LOGGED = re.compile(r"models:/(m-\w+)")
"""The source of a version that was made of a logged model."""
SCHEDULER = "scheduler/scheduler_config.json"


@dataclass(frozen=True)
class Description:
    """What the `MLmodel` of a LoRA says."""

    base_model: str
    """Hub id or absolute path."""
    weights: str
    """The LoRA's file, below the model's folder."""
    settings: Mapping[str, Any]
    """What it says of pictures: settings by dotted path."""
    is_as_trained: bool | None
    """See `AS_TRAINED`; None where it doesn't say."""


@dataclass(frozen=True)
class LoggedLora:
    """A LoRA's model, looked at."""

    base_model: str = ""
    entry: Entry | None = None
    """What raylora kept beside it."""
    fault: str | None = None
    """Why MLflow alone doesn't serve it as it was trained; None if it does."""


def logged_model(client: MlflowClient, version: ModelVersion) -> LoggedModel | None:
    """The model that a version was made of; None of one that is a folder of a run, as before MLflow 3.

    Not every store gives its id.
    """
    source = LOGGED.fullmatch(version.source or "")
    model_id = version.model_id or (source and source[1])
    return client.get_logged_model(model_id) if model_id else None


def files_of(client: MlflowClient, version: ModelVersion) -> Any:
    """The artifact repository of a version. MLflow's own way asks whatever registry is the process's current one."""
    if model := logged_model(client, version):
        return files_at(client, model.artifact_location)
    return files_at(client, client.get_model_version_download_uri(version.name, version.version))


def files_at(client: MlflowClient, location: str) -> Any:
    """The artifact repository of a model's files."""
    return get_artifact_repository(location, tracking_uri=client.tracking_uri, registry_uri=client.tracking_uri)


def read_description(file: Path) -> Description:
    """What an `MLmodel` says.

    Raises:
        ModelError: it is of no LoRA, or names files in other places; whose it is, the caller knows.
    """
    try:
        model = load_yaml(read_ordinary(file, MOST_TEXT_BYTES).decode())
        flavour = model["flavors"]["diffusers"]
        folder, name = flavour["adapter_weights"], flavour.get("weight_name") or WEIGHTS
        base, metadata = flavour["base_model"], model.get("metadata") or {}
        told = metadata.get(AS_TRAINED)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ModelError(f"is no LoRA (its {DESCRIPTION} has no flavour diffusers)") from None
    if not all(isinstance(part, str) and is_plain_name(part) for part in (folder, name)) or not isinstance(base, str):
        raise ModelError(f"its {DESCRIPTION} names files in other places")
    return Description(base, f"{folder}/{name}", _settings(model), told if isinstance(told, bool) else None)


def _settings(model: Mapping[str, Any]) -> dict[str, Any]:
    """The steps, guidance and size at which the model's own `predict` makes pictures (`registry.log_lora`)."""
    found: dict[str, Any] = {}
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        told = {one["name"]: one["default"] for one in parse_json(model["signature"]["params"])}
        found = {PARAMETERS[name]: value for name, value in told.items() if name in PARAMETERS}
        found["dataset.resolution"] = [int(told["width"]), int(told["height"])]
    return found


def entry_in(files: Any) -> Entry | None:
    """What was kept beside a model's files; None of one that raylora has not logged.

    Raises:
        Exception: it is there and can't be read; artifact stores raise many kinds.
    """
    wanted = f"{ENTRY_FOLDER}/{ENTRY_NAME}"
    if not _is_there(files, wanted):
        return None
    with TemporaryDirectory() as folder:
        return read_entry(Path(files.download_artifacts(wanted, folder)))


def _is_there(files: Any, wanted: str) -> bool:
    parent = PurePosixPath(wanted).parent.as_posix()
    return wanted in [file.path for file in files.list_artifacts(None if parent == "." else parent)]


def look_at(files: Any, status: LoggedModelStatus | None) -> LoggedLora:
    """What a LoRA's files in MLflow say, whatever is wrong with them.

    Args:
        status: the logged model's; None of a version that was made without one.
    """
    if status not in (None, LoggedModelStatus.READY):
        return LoggedLora(fault=f"its upload never came to its end (MLflow calls it {status})")
    try:
        described, entry = _description_in(files), entry_in(files)
        fault = _why_not_served(files, described, entry)
    except ModelError as error:
        return LoggedLora(fault=str(error))
    except Exception as error:  # of artifact stores, which raise many kinds, and of damaged entries
        return LoggedLora(fault=f"its files can't be read ({reason_of(error)})")
    return LoggedLora(described.base_model, entry, fault)


def _description_in(files: Any) -> Description:
    if not _is_there(files, DESCRIPTION):
        raise ModelError(f"its {DESCRIPTION} isn't there")
    with TemporaryDirectory() as folder:
        return read_description(Path(files.download_artifacts(DESCRIPTION, folder)))


def _why_not_served(files: Any, described: Description, entry: Entry | None) -> str | None:
    if not _is_there(files, described.weights):
        return f"its {described.weights} isn't there"
    if described.base_model.endswith(".safetensors"):
        return "its base model is one file, which MLflow doesn't load"
    wanted = entry.claim.judged_by.get(PREDICTION) if entry and entry.claim else None
    is_as_trained = described.is_as_trained
    if is_as_trained is None:  # logged before models said so
        is_as_trained = wanted is None or _predicts(described.base_model) == wanted
    return None if is_as_trained else f"MLflow would sample it without its {PREDICTION}, {wanted}"


def _predicts(base_model: str) -> str | None:
    """What a folder's own files say that its U-Net predicts; None of a model that isn't here."""
    with suppress(OSError, ValueError):
        return str(read_mapping(Path(base_model) / SCHEDULER).get("prediction_type"))
    return None
