"""`mlflow models serve` on a registered LoRA: a real server, asked over HTTP, answers prompts with pictures."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raylora.bundled import DEMO_BASE
from raylora.diffusion.families import load_base
from tests.integration.test_search import free_port
from tests.registries import finished

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
"""MLflow starts the server by its name."""
START_S = 300
"""On a machine that is busy otherwise; alone it takes twenty seconds."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """A server of the champion, which was promoted from the demo's model."""
    from raylora.execution.promoting import Promotion, promote

    folder = tmp_path_factory.mktemp("serving")
    uri = f"sqlite:///{shutil.copy(empty_store, folder)}"
    out = finished(folder / "out", load_base(str(DEMO_BASE)), uri, 1.0)
    promote(Promotion(str(out.root), "faces", "champion", None), print)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/faces@champion",
        "--env-manager",
        "local",
    ]
    with (folder / "told.txt").open("w") as told:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], cwd=folder, stdout=told, stderr=told,
            env=os.environ | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": PATH},
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}/ping", server, folder / "told.txt")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], told: Path) -> None:
    for _ in range(START_S * 5):
        assert server.poll() is None, told.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(told.read_text())


def ask(address: str, prompts: list[str], **params: Any) -> list[Image.Image]:
    """The pictures that the server gives, out of base64."""
    body = json.dumps({"inputs": {"prompt": prompts}, "params": params}).encode()
    asked = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=120) as answer:
        told = json.loads(answer.read())
    return [Image.open(io.BytesIO(base64.b64decode(picture))) for picture in told["predictions"]]


def test_prompts_are_answered_with_pictures_of_the_trained_size(address: str) -> None:
    face, house = ask(address, ["micah portrait, red hair, blue background", "ink portrait, yellow background"])
    assert {(face.format, face.size), (house.format, house.size)} == {("PNG", (64, 64))}
    assert face.tobytes() != house.tobytes()
    (wide,) = ask(address, ["micah portrait"], width=128, num_inference_steps=1)
    assert wide.size == (128, 64)
