"""A search whose workers die, hang and run out of memory, and whose disk fills, through the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from raylora.config_files import read_experiment
from raylora.execution.trial import run_trial
from raylora.execution.trial_job import TrialJob
from raylora.search.study import read_trials
from tests.tiny import make_base, make_pictures

MODULE = """
import errno, os, signal
from pathlib import Path
import torch
from raylora.evaluation.encoders import load_encoder

HERE = Path(__file__).parent


class Encoder:
    '''The demo's, and whatever mishap comes next each time that a trial is measured.'''

    def __init__(self, device):
        self._demo = load_encoder("demo", device)

    def images(self, pixels):
        if len(pixels) > 2 and (HERE / "out/cache/images.json").exists():  # two are a class looked at
            self._suffer()
        return self._demo.images(pixels)

    def texts(self, prompts):
        return self._demo.texts(prompts)

    def _suffer(self):
        for mishap in sorted((HERE / "mishaps").iterdir())[:1]:
            mishap.unlink()
            match mishap.name[2:]:
                case "kill": os.kill(os.getpid(), signal.SIGKILL)
                case "stop": os.kill(os.getpid(), signal.SIGSTOP)
                case "memory": raise torch.OutOfMemoryError("CUDA out of memory")
                case "full": raise OSError(errno.ENOSPC, "full", "samples")
"""
MISHAPS = ("0-kill", "1-memory", "2-full", "3-stop")
SPACE = {
    "first_points": [{"optimizer.unet_lr": 1e-3}],
    "parameters": {"optimizer.unet_lr": {"low": 1e-4, "high": 1e-2, "log": True}},
}
TRIALS = 2


@pytest.fixture
def world(tmp_path: Path) -> Path:
    make_base(tmp_path / "base")
    make_pictures(tmp_path / "pictures", 12)
    (tmp_path / "mishaps").mkdir()
    for mishap in MISHAPS:
        (tmp_path / "mishaps" / mishap).touch()
    (tmp_path / "mishap_module.py").write_text(MODULE)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    experiment: dict[str, Any] = {
        "dataset": {"path": "pictures", "resolution": 64},
        "model": {"base_model": "base"},
        "training": {"epochs": 4, "batch_size": 3, "checkpoint_images": 5},
        "evaluation": {"encoder": "mishap_module:Encoder", "timesteps": [200, 800]},
        "sampling": {"seeds": [0], "steps": 2},
        "search": {"trials": TRIALS, "grace_period": 16, "trial_scheduler": "none", "hang_s": 20, "max_concurrent": 1,
                   "confirm_trials": 0, "refit": False},
    }  # fmt: skip
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    return tmp_path


def raylora(world: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(world), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "raylora", *map(str, arguments)]
    return subprocess.run(command, cwd=world, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
                          timeout=600, check=False)  # fmt: skip


def test_a_search_goes_on_whatever_becomes_of_its_workers(
    world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = world / "out"
    broken = raylora(world, "tune", "experiment.yaml", "--space", "space.yaml", "--out", "out")
    assert broken.returncode == 1
    assert "failed: No space left on device: samples; free some space (on " in broken.stderr
    assert f"go on by `raylora resume {out}`" in broken.stderr
    assert "Traceback" not in broken.stderr

    done = raylora(world, "resume", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Best: ")  # none of Ray's own news
    lost = re.search(r"Lost workers: (\d+) by itself \(t000\b[^)]*\); their trials went on", done.stdout)
    assert lost and int(lost[1]) >= 2, done.stdout  # on a machine that stands still, healthy ones may be killed too
    assert not list((world / "mishaps").iterdir())
    summary = json.loads((out / "summary.json").read_text())
    assert summary["trials"] == {"finished": TRIALS, "stopped_early": 0, "failed": 0, "total": TRIALS}
    assert [trial.state.name for trial in read_trials(out / "study.journal")] == ["COMPLETE"] * TRIALS
    runs = MlflowClient(summary["tracking_uri"]).search_runs(["1"])
    assert sorted(run.info.run_name for run in runs) == ["out", "t000", "t001"]

    monkeypatch.syspath_prepend(str(world))
    job = TrialJob(out, read_experiment(out / "experiment.yaml"), threads=1)
    for number in range(TRIALS):
        record = json.loads((out / f"trials/t{number:03d}/trial.json").read_text())
        undisturbed: list[dict[str, Any]] = []
        run_trial({"number": 100 + number, "params": record["params"], "is_baseline": True}, job, undisturbed.append)
        for ours, theirs in zip(record["history"], undisturbed, strict=True):
            losses, others = ([loss for _, loss in report["train_losses"]] for report in (ours, theirs))
            assert losses == pytest.approx(others, rel=1e-4)  # halves of a batch round otherwise
            assert ours["score"] == pytest.approx(theirs["score"], rel=0.02)
