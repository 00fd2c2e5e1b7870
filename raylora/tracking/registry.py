"""The winner in MLflow: a model that `mlflow` alone loads, registered under a name, with an alias that moves up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TypedDict

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from raylora.errors import first_line
from raylora.tracking.claims import Claim, why_not_better
from raylora.tracking.entry import ENTRY_FOLDER, ENTRY_NAME, LONGEST_TEXT, TAG, Entry, read_entry
from raylora.tracking.mlflow_store import quieten, set_current, uploading

CHAMPION = "champion"
MODEL_NAME = "lora"
WHOLE = f"{TAG}version"
"""The tag that a logged model is given once all of its files are there."""
NOT_THERE = (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), "INVALID_PARAMETER_VALUE")
"""What MLflow's stores say of an alias that no version has."""


class Registered(TypedDict):
    """Where a LoRA stands in the registry."""

    name: str
    version: str
    alias: str | None
    """None where it did not get it."""


@dataclass(frozen=True)
class Placed:
    """What became of an alias."""

    registered: Registered
    holder: str | None
    """The version that has, or had, the alias before; None if none did."""
    why_not: str | None = None
    """Why it stays there."""
    forced: str | None = None
    """Why it would have stayed, had it not been forced."""


def log_lora(
    uri: str, run_id: str, lora: Path, base_model: str, size: tuple[int, int], steps: int, guidance_scale: float,
    entry: Entry = Entry(), files: Mapping[str, Path] = MappingProxyType({}),
) -> str:  # fmt: skip
    """Log a LoRA with a reference to its base model, as MLflow's diffusers flavour; returns the model's URI.

    Args:
        lora: a file that diffusers loads.
        base_model: hub id or absolute folder of the base model.
        size: width and height in px that `predict` makes pictures at.
        entry: its tags and text go to the run too.
        files: what lies in the model beside its own files, by where: the model card and its pictures.
    """
    set_current(uri)
    quieten()
    client = MlflowClient(uri, uri)
    with uploading(client):
        with mlflow.start_run(run_id=run_id):
            info = mlflow.diffusers.log_model(
                str(lora), base_model=base_model, name=MODEL_NAME, signature=_signature(size, steps, guidance_scale)
            )
        with TemporaryDirectory() as folder:
            _gather(Path(folder), entry, files)
            client.log_model_artifacts(info.model_id, folder)
        if entry.tags:
            client.log_batch(run_id, tags=[RunTag(*tag) for tag in _run_tags(entry).items()])
            client.set_logged_model_tags(info.model_id, dict(entry.tags))
    return str(info.model_uri)


def _gather(folder: Path, entry: Entry, files: Mapping[str, Path]) -> None:
    entry.write(folder / ENTRY_FOLDER / ENTRY_NAME)
    for name, file in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)


def _run_tags(entry: Entry) -> dict[str, str]:
    """MLflow's pages show the note as the run's description."""
    return {**entry.tags, MLFLOW_RUN_NOTE: entry.text} if entry.text else dict(entry.tags)


def _signature(size: tuple[int, int], steps: int, guidance_scale: float) -> ModelSignature:
    """MLflow's own defaults are 512 x 512 and 30 steps, whatever the LoRA was trained at.

    Its flavour hands the pipeline these parameters and no others (`mlflow/diffusers/wrapper.py`): a seed or a strength
    would be taken and have no effect.
    """
    return ModelSignature(
        inputs=Schema([ColSpec(type=DataType.string, name="prompt")]),
        outputs=Schema([ColSpec(type=DataType.binary, name="image")]),
        params=ParamSchema(
            [
                ParamSpec(name="num_inference_steps", dtype=DataType.integer, default=steps),
                ParamSpec(name="guidance_scale", dtype=DataType.double, default=guidance_scale),
                ParamSpec(name="height", dtype=DataType.integer, default=size[1]),
                ParamSpec(name="width", dtype=DataType.integer, default=size[0]),
                ParamSpec(name="negative_prompt", dtype=DataType.string, default=""),
            ]
        ),
    )


def model_of(uri: str, run_id: str, whole: bool = True) -> str | None:
    """The URI of the LoRA that was last logged to a run; None if there is none.

    Args:
        whole: only one that all files and tags were written of.
    """
    client = MlflowClient(uri, uri)
    experiment = client.get_run(run_id).info.experiment_id
    newest = [{"field_name": "creation_timestamp", "ascending": False}]
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'", order_by=newest)
    able = [model for model in found if model.name == MODEL_NAME and (WHOLE in model.tags or not whole)]
    return _uri_of(able[0]) if able else None


def _uri_of(model: LoggedModel) -> str:
    return f"models:/{model.model_id}"


def register(uri: str, model_uri: str, name: str, entry: Entry | None = None) -> str:
    """The version of a model under `name`: the one that it has already, else a new one with its tags and text.

    Args:
        entry: what is known of it; left out, what was logged with it.
    """
    set_current(uri)
    quieten()
    client = MlflowClient(uri, uri)
    with uploading(client):
        model = client.get_logged_model(model_uri.removeprefix("models:/"))
        there = client.search_model_versions(f"run_id = '{model.source_run_id}'")
        found = [version for version in there if version.name == name and version.source == model_uri]
        if found:
            return str(max(found, key=lambda version: int(version.version)).version)
        entry = entry or entry_at(uri, model.artifact_location) or Entry()
        made = mlflow.register_model(model_uri, name, tags=dict(entry.tags))
        if entry.text:
            client.update_model_version(name, made.version, entry.text[:LONGEST_TEXT])
    return str(made.version)


def entry_at(uri: str, location: str) -> Entry | None:
    """What was kept beside a model's files; None of one that raylora has not logged.

    Raises:
        OSError, ValueError, KeyError, MlflowException: it is there and can't be read.
    """
    repository = get_artifact_repository(location, tracking_uri=uri, registry_uri=uri)
    wanted = f"{ENTRY_FOLDER}/{ENTRY_NAME}"
    if wanted not in [file.path for file in repository.list_artifacts(ENTRY_FOLDER)]:
        return None
    with TemporaryDirectory() as folder:
        return read_entry(Path(repository.download_artifacts(wanted, folder)))


def holder_of(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that has an alias; None if none has."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in NOT_THERE:
            return None
        raise


def place(uri: str, name: str, version: str, alias: str = CHAMPION, force: bool = False) -> Placed:
    """Give a version an alias, if no other has it or that other is worse; only recorded scores are compared.

    Args:
        force: give it in any case.
    """
    set_current(uri)
    client = MlflowClient(uri, uri)
    with uploading(client):
        holder = holder_of(client, name, alias)
        before = str(holder.version) if holder else None
        if before == version:
            return Placed(Registered(name=name, version=version, alias=alias), before)
        reason = _why_not(client, name, version, holder) if holder else None
        if reason and not force:
            return Placed(Registered(name=name, version=version, alias=None), before, reason)
        client.set_registered_model_alias(name, alias, version)
    return Placed(Registered(name=name, version=version, alias=alias), before, forced=reason)


def _why_not(client: MlflowClient, name: str, version: str, holder: ModelVersion) -> str | None:
    """Why a version may not take another's place."""
    who = f"version {holder.version}"
    try:
        new, old = (_claim_of(client, name, one) for one in (version, str(holder.version)))
    except Exception as error:  # of artifact stores, which raise many kinds
        return f"what they were judged by can't be read ({first_line(error)})"
    return why_not_better(new, old, who)


def _claim_of(client: MlflowClient, name: str, version: str) -> Claim | None:
    entry = entry_at(client.tracking_uri, client.get_model_version_download_uri(name, version))
    return entry.claim if entry else None


@contextmanager
def registry(uri: str) -> Iterator[MlflowClient]:
    """A client of the registry at one address, within time limits."""
    quieten()
    client = MlflowClient(uri, uri)
    with uploading(client):
        yield client
