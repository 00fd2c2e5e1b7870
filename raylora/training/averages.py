"""Weights to evaluate that are not the weights in training: moving averages, and schedule-free optimizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer


class EvaluationWeights:
    """Swaps averaged weights into the parameters for an evaluation, and the raw ones back for training.

    Averages come from an exponential moving average (Polyak & Juditsky 1992; diffusers' `EMAModel`, whose decay grows
    as (1 + step) / (10 + step) up to `ema_decay`), else from the optimizer itself where it is schedule-free (Defazio
    et al. 2024, https://arxiv.org/abs/2405.15682: x in place of y). A schedule-free optimizer's own way there and back
    rounds. Here the raw weights are kept, so a run with evaluations has the same bits as one without.

    With neither, every method returns at once and the weights are left alone.

    Args:
        parameters: the weights in training, always in the same order.
        optimizer: the one that moves them.
        ema_decay: most of the average that a step keeps, in [0, 1); None for no moving average.
    """

    def __init__(self, parameters: Sequence[Parameter], optimizer: Optimizer, ema_decay: float | None = None):
        self._parameters, self._optimizer = list(parameters), optimizer
        self._ema = None if ema_decay is None else EMAModel(self._parameters, decay=ema_decay, foreach=True)
        self._is_schedule_free = self._ema is None and hasattr(optimizer, "train") and hasattr(optimizer, "eval")
        self._raw: list[Tensor] | None = None

    @property
    def is_active(self) -> bool:
        """Whether evaluations see other weights than training does."""
        return self._ema is not None or self._is_schedule_free

    def after_step(self) -> None:
        """Take an optimizer step into the average."""
        if self._ema is not None:
            self._ema.step(self._parameters)

    def leave_training(self) -> None:
        """Keep the raw weights and write the averaged ones into the parameters."""
        if not self.is_active or self._raw is not None:
            return
        self._raw = [weight.detach().clone() for weight in self._parameters]
        if self._ema is not None:
            self._ema.copy_to(self._parameters)
        else:
            self._optimizer.eval()  # type: ignore[attr-defined]

    @torch.no_grad()
    def enter_training(self) -> None:
        """Put the raw weights back, bit by bit."""
        if self._is_schedule_free:
            self._optimizer.train()  # type: ignore[attr-defined]
        if self._raw is None:
            return
        for weight, raw in zip(self._parameters, self._raw, strict=True):
            weight.copy_(raw)
        self._raw = None

    def state_dict(self) -> dict[str, Any]:
        """Averages and raw weights, as far as there are any. The parameters and the optimizer keep their own."""
        if not self.is_active:
            return {}
        ema = None
        if self._ema is not None:
            ema = self._ema.state_dict()
            ema["shadow_params"] = [average.clone() for average in ema["shadow_params"]]
        return {"raw": self._raw, "ema": ema}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, once parameters and optimizer have loaded theirs."""
        if not self.is_active:
            return
        self._raw = state["raw"]
        if self._ema is not None:
            self._ema.load_state_dict(state["ema"])
            self._ema.to(device=self._parameters[0].device)
