"""Fixtures that several tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two files of tests run side by side

import hypothesis
import pytest
import torch

from raylora.config import Experiment, ModelConfig
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import load_base
from tests.tiny import make_base, make_pictures, make_sdxl

# A shell's background jobs are deaf to Ctrl-C, and so would be every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("steady")  # the same examples everywhere: only a change turns a green suite red

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Golden numbers need a fixed order of additions."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sdxl(tmp_path_factory.mktemp("tiny") / "sdxl")


@pytest.fixture
def tiny_sdxl(tiny_sdxl_folder: Path) -> BaseModel:
    return load_base(str(tiny_sdxl_folder), model=ModelConfig(family="sdxl"))


@pytest.fixture
def tiny_base(tiny_base_folder: Path) -> BaseModel:
    return load_base(str(tiny_base_folder))


@pytest.fixture(scope="session")
def pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures") / "10_sks", 12).parent


@pytest.fixture(scope="session")
def tiny_experiment(tiny_base_folder: Path, pictures_folder: Path) -> Experiment:
    """Seconds of training on the tiny model."""
    return Experiment().with_params(
        {
            "dataset.path": str(pictures_folder),
            "dataset.resolution": 64,
            "model.base_model": str(tiny_base_folder),
            "lora.rank": 4,
            "lora.alpha": 4,
            "optimizer.learning_rate": 1e-3,
            "training.repeats": 1,
            "training.epochs": 4,
            "training.batch_size": 2,
            "evaluation.encoder": "demo",
            "evaluation.timesteps": (200, 800),
            "sampling.seeds": (0,),
            "sampling.steps": 2,
            "search.grace_period": 8,
        }
    )


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run the real command line in a process of its own, in an empty folder."""

    def run(*arguments: object, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "raylora", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=timeout_s, check=False)

    return run
