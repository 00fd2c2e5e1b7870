"""A real Ray head with dashboard, Ray Client server and token authentication, and raylora from outside of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ports import free_port
from tests.tiny import make_base, make_pictures

PATIENCE_S = 300
"""Most that anything may take; nothing is judged by it."""
GRACE_S = 2
CHANNEL_S = 60
"""Ray's for a client's own server, twice the usual; where that has died, a second try comes a little after it."""
SPACE = {
    "first_points": [{"optimizer.unet_lr": 1e-3}],
    "parameters": {"optimizer.unet_lr": {"low": 1e-6, "high": 1e-2, "log": True}},
}
EXPERIMENT: dict[str, Any] = {
    "dataset": {"path": "pictures", "resolution": 64},
    "model": {"base_model": "base"},
    "training": {"epochs": 4, "batch_size": 2},
    "evaluation": {"encoder": "demo", "timesteps": [200, 800]},
    "sampling": {"seeds": [0], "steps": 2},
    "search": {"trials": 100, "grace_period": 8, "confirm_trials": 0, "refit": False, "max_concurrent": 1},
}


def until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)


@dataclass
class Head:
    """A cluster's head, and a folder here with what a search needs."""

    folder: Path
    environment: dict[str, str]
    dashboard: str
    client: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        """`raylora`, from here."""
        process = subprocess.Popen(
            [sys.executable, "-m", "raylora", *map(str, words)],
            cwd=self.folder, env=self.environment | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, *words: object, **environment: str) -> tuple[int, str, str]:
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("here")
    make_base(folder / "base")
    make_pictures(folder / "pictures" / "3_sks", 12)
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
    (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    (folder / "notes.txt").write_text("not for the cluster")
    gcs, dashboard, client, agent = (free_port() for _ in range(4))
    programs, modules = Path(sys.executable).parent, os.pathsep.join(map(os.path.abspath, sys.path))
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": modules,
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 3, "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CLIENT_RECONNECT_GRACE_PERIOD": str(GRACE_S),
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": str(CHANNEL_S),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as ray_folder:
        started = subprocess.Popen(
            [programs / "ray", "start", "--head", "--block", "--num-cpus=1", f"--temp-dir={ray_folder}",
             f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
             f"--dashboard-agent-listen-port={agent}", "--node-ip-address=127.0.0.1"],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        here = Head(folder, environment, f"http://127.0.0.1:{dashboard}", f"ray://127.0.0.1:{client}")
        try:
            until(lambda: here.run("jobs", "list", "--address", here.dashboard)[0] == 0)
            yield here
        finally:
            for process in here.started:
                process.kill()
            started.terminate()
            started.wait(timeout=PATIENCE_S)


def state_of(out: Path) -> str:
    file = out / "state.json"
    return str(json.loads(file.read_text())["state"]) if file.is_file() else "none"


def reports_of(out: Path) -> int:
    return sum(len(json.loads(file.read_text())["history"]) for file in out.glob("trials/*/trial.json"))


@pytest.fixture(scope="module")
def stopped(head: Head, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A search that was sent with all its files, and stopped after its first report; its output and its job."""
    out = tmp_path_factory.mktemp("shared") / "out"
    status, job_id, told = head.run(
        "submit", "--address", head.dashboard, "--no-wait", "--",
        "tune", "experiment.yaml", "--space", "space.yaml", "--out", out,
    )  # fmt: skip
    assert status == 0, told
    until(lambda: reports_of(out))
    status, told, err = head.run("jobs", "stop", job_id.strip(), "--address", head.dashboard)
    assert status == 0, err
    assert told.splitlines()[0].startswith(f"{job_id.strip()}  stopped")
    assert told.splitlines()[-1] == f"go on with: raylora submit -- resume {out}"
    return out, job_id.strip()


def test_a_job_that_is_stopped_can_be_gone_on_with(head: Head, stopped: tuple[Path, str]) -> None:
    out, job_id = stopped
    assert state_of(out) == "interrupted"
    assert not (out / "summary.json").exists()
    _, told, _ = head.run("jobs", "logs", job_id, "--address", head.dashboard)
    assert f"interrupted; go on with: raylora resume {out}" in told
    _, listed, _ = head.run("jobs", "list", "--address", head.dashboard)
    assert f"raylora tune experiment.yaml --space space.yaml --out {out} --address auto" in listed
    kept = {file.relative_to(f"{out}.inputs").parts[0] for file in Path(f"{out}.inputs").rglob("*")}
    assert kept == {".raylora-package", "base", "pictures", "experiment.yaml", "space.yaml"}


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_through_ray_client_neither_ctrl_c_nor_a_lost_connection_leaves_it_half_dead(
    ending: signal.Signals, head: Head, stopped: tuple[Path, str]
) -> None:
    out, _ = stopped
    process = head.start("resume", out, "--address", head.client)
    until(lambda: state_of(out) == "running" or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]
    process.send_signal(ending)
    _, err = process.communicate(timeout=PATIENCE_S)
    if ending == signal.SIGINT:
        assert process.returncode == 130, err
        assert err.splitlines()[-1] == f"interrupted; go on with: raylora resume {out}"
    until(lambda: state_of(out) != "running")  # nobody waits for it: it ends by itself
    assert state_of(out) == "interrupted"


def test_a_job_is_followed_and_its_exit_status_is_the_commands(head: Head, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"state": "finished"}')
    status, told, _ = head.run("submit", "--address", head.dashboard, "--", "resume", tmp_path)
    assert status == 2
    assert told.splitlines()[-1].startswith(f"raylora: error: {tmp_path}: this work is finished")


def test_a_wrong_token_is_told_as_such(head: Head) -> None:
    status, _, err = head.run("jobs", "list", "--address", head.dashboard, RAY_AUTH_TOKEN="0" * 48)
    assert status == 2
    assert err.count("\n") == 1 and "the cluster wants a token" in err
