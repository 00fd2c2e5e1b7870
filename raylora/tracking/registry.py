"""The winner in MLflow: a model that `mlflow` alone loads, registered under a name with an alias."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import mlflow
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from raylora.tracking.mlflow_store import set_current, uploading

CHAMPION = "champion"
MODEL_NAME = "lora"


class Registered(TypedDict):
    """Where a LoRA stands in the registry."""

    name: str
    version: str
    alias: str


def log_lora(
    uri: str, run_id: str, lora: Path, base_model: str, size: tuple[int, int], steps: int, guidance_scale: float
) -> str:
    """Log a LoRA with a reference to its base model, as MLflow's diffusers flavour; returns the model's URI.

    Args:
        lora: a file that diffusers loads.
        base_model: hub id or absolute folder of the base model.
        size: width and height in px that `predict` makes pictures at.
    """
    set_current(uri)
    with uploading(MlflowClient(uri)), mlflow.start_run(run_id=run_id):
        info = mlflow.diffusers.log_model(
            str(lora), base_model=base_model, name=MODEL_NAME, signature=_signature(size, steps, guidance_scale)
        )
    return str(info.model_uri)


def _signature(size: tuple[int, int], steps: int, guidance_scale: float) -> ModelSignature:
    """MLflow's own defaults are 512 x 512 and 30 steps, whatever the LoRA was trained at."""
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


def register(uri: str, model_uri: str, name: str, alias: str = CHAMPION) -> Registered:
    """A new version under `name`, with the alias on it."""
    set_current(uri)
    client = MlflowClient(uri)
    with uploading(client):
        version = mlflow.register_model(model_uri, name).version
        client.set_registered_model_alias(name, alias, version)
    return Registered(name=name, version=str(version), alias=alias)
