"""The winner in MLflow: a model that `mlflow` alone loads, registered under a name, with an alias that moves up."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from raylora.errors import ModelError, PromotionError, first_line
from raylora.tracking.claims import Claim, why_not_better
from raylora.tracking.entry import ENTRY_FOLDER, ENTRY_NAME, LONGEST_TEXT, Entry
from raylora.tracking.finding import holder_of
from raylora.tracking.logged_lora import (
    AS_TRAINED,
    DESCRIPTION,
    LoggedLora,
    entry_in,
    files_at,
    files_of,
    logged_model,
    look_at,
)
from raylora.tracking.mlflow_store import MARK_TAG, made_once, quieten, set_current, uploading

CHAMPION = "champion"
MODEL_NAME = "lora"
MOST_TURNS = 5
"""How often an alias is asked for again that somebody else is giving away at the same time."""


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


@dataclass(frozen=True)
class Handed:
    """A LoRA as MLflow's diffusers flavour is to have it."""

    lora: Path
    """A file that diffusers loads."""
    base_model: str
    """Hub id or absolute folder."""
    size: tuple[int, int]
    """Width and height in px that `predict` makes pictures at."""
    steps: int
    guidance_scale: float
    entry: Entry = Entry()
    """Its tags and text go to the run too."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """What lies in the model beside its own files, by where: the model card and its pictures."""
    revision: str | None = None
    """The commit of a base model on the hub; left out, the newest there."""
    is_as_trained: bool = True
    """Whether MLflow loads the base model, and samples with it as the LoRA was trained."""

    def save_model(self, path: str, mlflow_model: Model, **_: Any) -> None:
        """What `Model.log` asks of a flavour. All that belongs to a model is written here, so it is there once MLflow
        calls the model ready."""
        mlflow.diffusers.save_model(
            str(self.lora), path, self.base_model, mlflow_model=mlflow_model, signature=self._signature(),
            metadata={AS_TRAINED: self.is_as_trained},
        )  # fmt: skip
        if self.revision:
            mlflow_model.flavors["diffusers"]["base_model_revision"] = self.revision
            mlflow_model.save(str(Path(path) / DESCRIPTION))
        self.entry.write(Path(path) / ENTRY_FOLDER / ENTRY_NAME)
        for name, file in self.files.items():
            (Path(path) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, Path(path) / name)

    def _signature(self) -> ModelSignature:
        """MLflow's own defaults are 512 x 512 and 30 steps, whatever the LoRA was trained at.

        Its flavour hands the pipeline these parameters and no others (`mlflow/diffusers/wrapper.py`): a seed or a
        strength would be taken and have no effect.
        """
        width, height = self.size
        given = [
            ("num_inference_steps", DataType.integer, self.steps),
            ("guidance_scale", DataType.double, self.guidance_scale),
            ("height", DataType.integer, height),
            ("width", DataType.integer, width),
            ("negative_prompt", DataType.string, ""),
        ]
        return ModelSignature(
            inputs=Schema([ColSpec(type=DataType.string, name="prompt")]),
            outputs=Schema([ColSpec(type=DataType.binary, name="image")]),
            params=ParamSchema([ParamSpec(name=name, dtype=kind, default=value) for name, kind, value in given]),
        )


def log_lora(uri: str, run_id: str, handed: Handed) -> str:
    """Log a LoRA with a reference to its base model, as MLflow's diffusers flavour; returns the model's URI.

    The run stays as it is, running or ended: MLflow's own way would open it again, and end it now.
    """
    set_current(uri)
    with registry(uri) as client:
        run, entry = client.get_run(run_id), handed.entry
        made = _new_model(client, run, entry)
        Model.log(artifact_path=None, name=MODEL_NAME, flavor=handed, run_id=run_id, model_id=made.model_id)
        if entry.tags:
            client.log_batch(run_id, tags=[RunTag(*tag) for tag in _run_tags(entry).items()])
    return _uri_of(made)


def _new_model(client: MlflowClient, run: Run, entry: Entry) -> LoggedModel:
    experiment, mark = run.info.experiment_id, uuid.uuid4().hex
    tags, params = {**entry.tags, MARK_TAG: mark}, dict(run.data.params)

    def find() -> LoggedModel | None:
        return next(iter(client.search_logged_models([experiment], f"tags.`{MARK_TAG}` = '{mark}'")), None)

    return made_once(
        lambda: client.create_logged_model(experiment, MODEL_NAME, run.info.run_id, tags=tags, params=params), find
    )


def _run_tags(entry: Entry) -> dict[str, str]:
    """MLflow's pages show the note as the run's description."""
    return {**entry.tags, MLFLOW_RUN_NOTE: entry.text} if entry.text else dict(entry.tags)


@dataclass(frozen=True)
class Found:
    """A LoRA that was logged to a run."""

    uri: str
    told: LoggedLora


def loras_of(client: MlflowClient, run_id: str) -> Iterator[Found]:
    """The LoRAs that were logged to a run, the newest first."""
    experiment = client.get_run(run_id).info.experiment_id
    newest = [{"field_name": "creation_timestamp", "ascending": False}]
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'", order_by=newest):
        if model.name == MODEL_NAME:
            yield Found(_uri_of(model), look_at(files_at(client, model.artifact_location), model.status))


def _uri_of(model: LoggedModel) -> str:
    return f"models:/{model.model_id}"


def register(uri: str, model_uri: str, name: str, entry: Entry | None = None) -> str:
    """The version of a model under `name`: the one that it has already, else a new one with its tags and text.

    Args:
        entry: what is known of a model that was logged without.
    """
    set_current(uri)
    with registry(uri) as client:
        model = client.get_logged_model(model_uri.removeprefix("models:/"))
        find = partial(_version_of, client, model, name)
        if there := find():
            return str(there.version)
        entry = look_at(files_at(client, model.artifact_location), model.status).entry or entry or Entry()
        made = made_once(lambda: mlflow.register_model(model_uri, name, tags=dict(entry.tags)), find)
        if entry.text:
            client.update_model_version(name, made.version, entry.text[:LONGEST_TEXT])
    return str(made.version)


def _version_of(client: MlflowClient, model: LoggedModel, name: str) -> ModelVersion | None:
    """The newest version under `name` that is this model."""
    there = client.search_model_versions(f"run_id = '{model.source_run_id}'")
    found = [version for version in there if version.name == name and version.source == _uri_of(model)]
    return max(found, key=lambda version: int(version.version), default=None)


def place(uri: str, name: str, version: str, alias: str = CHAMPION, force: bool = False) -> Placed:
    """Give a version an alias, if no other has it or that other is worse; only recorded scores are compared.

    MLflow doesn't set an alias on the condition that a certain version has it. So who has it is asked again before it
    is set, and after: somebody else may give it away at the same time.

    Args:
        force: give it though the other isn't worse.

    Raises:
        ModelError: MLflow alone doesn't serve that version as it was trained.
        PromotionError: others don't cease to give the alias away.
    """
    with registry(uri) as client:
        claim: Claim | None = None
        before: str | None = version
        forced = None
        for turn in range(MOST_TURNS):
            holder = _number(holder_of(client, name, alias))
            if holder == version:
                return Placed(Registered(name=name, version=version, alias=alias), before, forced=forced)
            claim = claim if turn else _claim_of_served(client, name, version)
            reason = _why_not(client, name, claim, holder) if holder else None
            if reason and (turn or not force):
                return Placed(Registered(name=name, version=version, alias=None), holder, reason)
            before, forced = holder, reason
            if _number(holder_of(client, name, alias)) == holder:
                client.set_registered_model_alias(name, alias, version)
    raise PromotionError(f"{alias} of {name}: others give it away at the same time; promote again once they are done")


def _number(version: ModelVersion | None) -> str | None:
    return str(version.version) if version else None


def _claim_of_served(client: MlflowClient, name: str, version: str) -> Claim | None:
    """The claim of a version that MLflow alone serves as it was trained.

    Raises:
        ModelError: it doesn't.
    """
    found = client.get_model_version(name, version)
    model = logged_model(client, found)
    told = look_at(files_of(client, found), model.status if model else None)
    if told.fault:
        raise ModelError(
            f"models:/{name}/{version}: gets no alias, since MLflow alone can't serve it as it was trained: "
            f"{told.fault}; promote its search's output folder, which logs it anew"
        )
    return told.entry.claim if told.entry else None


def _why_not(client: MlflowClient, name: str, new: Claim | None, holder: str) -> str | None:
    """Why a version may not take another's place."""
    who = f"version {holder}"
    try:
        kept = entry_in(files_of(client, client.get_model_version(name, holder)))
    except Exception as error:  # of artifact stores, which raise many kinds
        return f"what {who} was judged by can't be read ({first_line(error)})"
    return why_not_better(new, kept.claim if kept else None, who)


@contextmanager
def registry(uri: str) -> Iterator[MlflowClient]:
    """A client of the registry at one address, within time limits."""
    quieten()
    client = MlflowClient(uri, uri)
    with uploading(client):
        yield client
