"""A program that serves over HTTP, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

START_S = 300
"""On a machine that is busy otherwise; alone it takes twenty seconds."""


@contextmanager
def serving(command: Sequence[str], folder: Path, health: str, environment: Mapping[str, str]) -> Iterator[None]:
    """From its first answer at `health` until the block ends; what it says is in the folder's `told.txt`."""
    with (folder / "told.txt").open("w") as told:
        server = subprocess.Popen(
            command, cwd=folder, stdout=told, stderr=told, env=os.environ | environment, start_new_session=True
        )
    try:
        _wait_for(health, server, folder / "told.txt")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def mlflow_server(folder: Path, uri: str, port: int) -> Iterator[str]:
    """MLflow's server on a store, with its files in the folder; its address while the block lasts."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    words = [*command, "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    address = f"http://127.0.0.1:{port}"
    with serving(words, folder, f"{address}/health", environment):
        yield address


def _wait_for(url: str, server: subprocess.Popen[bytes], told: Path) -> None:
    for _ in range(START_S * 5):
        assert server.poll() is None, told.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(told.read_text())
