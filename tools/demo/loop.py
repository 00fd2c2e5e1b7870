"""A training loop that can be stopped at any moment and goes on where it was."""

# mypy: disable-error-code="no-untyped-call"
# (diffusers, transformers and parts of torch come without types.)

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from demo.settings import Round

LossOfStep = Callable[[nn.Module, int], Tensor]
"""Computes the scalar loss of one step from the model and the step's number; draws its own batch."""

MAX_GRAD_NORM = 1.0
REPORT_EVERY = 100


def learning_rate(plan: Round, step: int) -> float:
    """Linear warm-up times a cosine that ends at `plan.floor` of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / plan.steps))
    return plan.peak_rate * min(1.0, (step + 1) / plan.warmup) * max(plan.floor, cosine)


class Training:
    """A round in progress: model, averaged weights, optimizer, random state and step count."""

    def __init__(self, model: nn.Module, plan: Round) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.model = model.train().requires_grad_(True)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=plan.peak_rate, betas=plan.betas, weight_decay=plan.weight_decay
        )
        self.step = 0

    def advance(self, loss_of: LossOfStep) -> float:
        """Takes one optimizer step and returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.plan, self.step)
        loss = loss_of(self.model, self.step)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.step += 1
        self._follow()
        return loss.item()

    def _follow(self) -> None:
        """Moves the average towards the model; early steps weigh more, so that it forgets the start."""
        decay = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for averaged, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                averaged.lerp_(new, 1 - decay)

    def save(self, checkpoint: Path) -> None:
        """Writes the whole state beside `checkpoint`, then renames: a kill leaves the older file."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
        }
        unfinished = checkpoint.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(checkpoint)

    def resume(self, checkpoint: Path) -> None:
        """Takes up the saved state, if there is one."""
        if not checkpoint.exists():
            return
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step = state["step"]
        print(f"  {checkpoint.stem}: resumed at step {self.step}", flush=True)


def train(model: nn.Module, plan: Round, loss_of: LossOfStep, checkpoint: Path, save_every: int) -> nn.Module:
    """Runs a round from its checkpoint, or from the start, to its end; returns the averaged model."""
    training = Training(model, plan)
    training.resume(checkpoint)
    smooth, begun, first = 0.0, time.monotonic(), training.step
    while training.step < plan.steps:
        loss = training.advance(loss_of)
        smooth = loss if training.step == first + 1 else 0.98 * smooth + 0.02 * loss
        if training.step % REPORT_EVERY == 0 or training.step == plan.steps:
            pace = (time.monotonic() - begun) / (training.step - first)
            print(
                f"  {checkpoint.stem} {training.step}/{plan.steps} loss {smooth:.4f} {pace:.2f} s/step",
                flush=True,
            )
        if training.step % save_every == 0 or training.step == plan.steps:
            training.save(checkpoint)
    return training.average
