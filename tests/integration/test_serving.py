"""A LoRA promoted to MLflow's server, and served by `mlflow models serve`: real servers, asked over HTTP."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from mlflow import MlflowClient
from PIL import Image

from raylora.bundled import DEMO_BASE
from raylora.diffusion.families import load_base
from raylora.diffusion.places import DIFFUSERS_NAME
from raylora.execution.outputs import OutFolder
from raylora.execution.promoting import Promotion, promote
from raylora.tracking.registry import Placed
from tests.ports import free_port
from tests.registries import finished
from tests.servers import mlflow_server, serving

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
"""MLflow starts the server by its name."""


@dataclass(frozen=True)
class Team:
    """MLflow's server, and two searches whose own stores are elsewhere; the second found something better."""

    address: str
    good: OutFolder
    better: OutFolder


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    own, shared = (f"sqlite:///{shutil.copy(empty_store, folder / name)}" for name in ("own.db", "team.db"))
    base = load_base(str(DEMO_BASE))
    good, better = (finished(folder / name, base, own, score) for name, score in (("good", 1.0), ("better", 1.2)))
    with mlflow_server(folder, shared, free_port()) as address:
        yield Team(address, good, better)


def promoted(team: Team, target: str, alias: str = "champion") -> Placed:
    name = None if target.startswith("models:/") else "faces"
    return promote(Promotion(target, name, alias, team.address), print)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, team: Team) -> Iterator[str]:
    """A server of a LoRA that was promoted from the demo's model, over HTTP."""
    promoted(team, str(team.good.root), "served")
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/faces@served",
        "--env-manager",
        "local",
    ]
    environment = {"MLFLOW_TRACKING_URI": team.address, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": PATH}
    words = [*command, "--host", "127.0.0.1", "--port", str(port), "--timeout", "600"]
    with serving(words, tmp_path_factory.mktemp("serving"), f"http://127.0.0.1:{port}/ping", environment):
        yield f"http://127.0.0.1:{port}/invocations"


def test_a_team_promotes_over_http(team: Team) -> None:
    first, second, again = (promoted(team, str(out.root)) for out in (team.good, team.better, team.good))
    assert (first.registered["alias"], second.registered["alias"], second.holder) == ("champion", "champion", "1")
    assert again.registered == {"name": "faces", "version": "1", "alias": None}
    assert again.why_not == "its score 1.000 is not above the 1.200 of version 2, by the same measures and images"
    assert promoted(team, "models:/faces@champion", "staging").registered["version"] == "2"
    client = MlflowClient(team.address, team.address)
    run = client.get_run(client.get_model_version("faces", "2").run_id)
    assert run.info.status == "FINISHED" and run.data.metrics["best.score"] == 1.2
    sent = {file.path for file in client.list_artifacts(run.info.run_id, "best")}
    assert "best/lora.safetensors" in sent and "best/experiment.yaml" not in sent


def ask(address: str, prompts: list[str], **params: Any) -> list[Image.Image]:
    """The pictures that the server gives, out of base64."""
    body = json.dumps({"inputs": {"prompt": prompts}, "params": params}).encode()
    asked = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=600) as answer:
        told = json.loads(answer.read())
    return [Image.open(io.BytesIO(base64.b64decode(picture))) for picture in told["predictions"]]


def test_prompts_are_answered_with_pictures_of_the_trained_size(address: str) -> None:
    face, house = ask(address, ["micah portrait, red hair, blue background", "ink portrait, yellow background"])
    assert {(face.format, face.size), (house.format, house.size)} == {("PNG", (64, 64))}
    assert face.tobytes() != house.tobytes()
    (wide,) = ask(address, ["micah portrait"], width=128, num_inference_steps=1)
    assert wide.size == (128, 64)


def test_the_lora_is_served_and_not_the_base_model_alone(address: str, team: Team) -> None:
    """There is no seed over HTTP, but this LoRA's pictures are far paler than the base model's."""
    prompts = ["micah portrait, red hair, blue background"] * 16
    pipe = DiffusionPipeline.from_pretrained(str(DEMO_BASE), dtype=torch.float32)
    of_base = contrast(drawn(pipe, prompts))
    pipe.load_lora_weights(str(team.good.best), weight_name=DIFFUSERS_NAME)
    of_lora = contrast(drawn(pipe, prompts))
    assert of_base - of_lora > 10
    assert contrast(ask(address, prompts)) < (of_base + of_lora) / 2


def drawn(pipe: Any, prompts: list[str]) -> list[Image.Image]:
    """As the search of `registries.finished` samples."""
    generator = torch.Generator().manual_seed(0)
    pipe.set_progress_bar_config(disable=True)
    made = pipe(prompts, width=64, height=64, num_inference_steps=2, guidance_scale=7.5, generator=generator)
    return list(made.images)


def contrast(pictures: list[Image.Image]) -> float:
    """The mean standard deviation of their pixels."""
    return float(np.mean([np.asarray(picture, float).std() for picture in pictures]))
