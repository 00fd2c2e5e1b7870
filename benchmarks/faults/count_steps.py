"""The demo's image encoder, which writes down every step of training in the process that loads it.

A trial's own state goes back with it after a fault, and so can't say what was trained twice. A search is told to judge
by `benchmarks.faults.count_steps:Encoder`; whatever process trains loads it first, and with it the note-taking.
"""

from __future__ import annotations

import functools
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from torch import Tensor

from raylora.evaluation.encoders import load_encoder
from raylora.training.trainer import Trainer

LOG_VARIABLE = "RAYLORA_STEPS_LOG"
ENCODER = f"{__name__}:Encoder"


class Encoder:
    """As `evaluation.encoder: demo`."""

    def __init__(self, device: str):
        self._demo = load_encoder("demo", device)

    def images(self, pixels: Any) -> Tensor:
        return self._demo.images(pixels)

    def texts(self, prompts: Any) -> Tensor | None:
        return self._demo.texts(prompts)


def _noted(step: Callable[[Trainer], Tensor]) -> Callable[[Trainer], Tensor]:
    """A step of training that leaves a line: which trial, by its rate, in which process, from and to which image."""
    log = os.open(os.environ[LOG_VARIABLE], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    process = f"{socket.gethostname()}:{os.getpid()}"

    @functools.wraps(step)
    def noted(trainer: Trainer) -> Tensor:
        since, loss = trainer.images_seen, step(trainer)
        line = [trainer.config.optimizer.unet_lr, process, since, trainer.images_seen]
        os.write(log, (json.dumps(line) + "\n").encode())
        return loss

    return noted


if LOG_VARIABLE in os.environ:
    Trainer._optimizer_step = _noted(Trainer._optimizer_step)
