"""Averaged weights for evaluation, raw ones for training; and no evaluation leaves a trace in training."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from raylora.config import OptimizerConfig
from raylora.training.averages import EvaluationWeights
from raylora.training.optimizers import build_optimizer

STEPS = 12
WAYS: dict[str, dict[str, Any]] = {
    "neither": {"name": "adamw", "ema_decay": None},
    "ema": {"name": "adamw", "ema_decay": 0.9},
    "schedule-free": {"name": "adamw_schedule_free", "ema_decay": None},
    "both": {"name": "adamw_schedule_free", "ema_decay": 0.9},
}
ACTIVE = [way for way in WAYS if way != "neither"]


class Run:
    """A regression whose noisy targets depend on the step alone."""

    def __init__(self, way: str):
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(16, 8, generator=generator)
        self.weights = [Parameter(torch.zeros(8, 8)), Parameter(torch.zeros(8))]
        config = OptimizerConfig(name=WAYS[way]["name"])
        self.optimizer = build_optimizer([{"params": self.weights, "lr": 0.03}], config)
        self.averages = EvaluationWeights(self.weights, self.optimizer, WAYS[way]["ema_decay"])
        self.step = 0
        self.raw: list[list[Tensor]] = []
        """The weights in training after each step."""

    def advance(self, steps: int) -> None:
        self.averages.enter_training()
        for _ in range(steps):
            target = torch.randn(16, 8, generator=torch.Generator().manual_seed(self.step))
            (self.inputs @ self.weights[0] + self.weights[1] - target).pow(2).mean().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.averages.after_step()
            self.raw.append(self.values())
            self.step += 1
        self.averages.leave_training()

    def values(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.weights]

    def state(self) -> dict[str, Any]:
        """The averages' own state must be a copy; torch's optimizers hand out references."""
        state = {"weights": self.values(), "optimizer": copy.deepcopy(self.optimizer.state_dict()), "step": self.step}
        return state | {"averages": self.averages.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        for weight, value in zip(self.weights, state["weights"], strict=True):
            weight.data.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.averages.load_state_dict(state["averages"])
        self.step = state["step"]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def run(way: str, *stretches: int) -> Run:
    one = Run(way)
    for steps in stretches:
        one.advance(steps)
    return one


@pytest.mark.parametrize("way", WAYS)
def test_stops_in_between_change_no_bit(way: str) -> None:
    straight, stopped = run(way, STEPS), run(way, 1, 4, 2, 0, 5)
    for one, other in zip(straight.raw, stopped.raw, strict=True):
        assert equal(one, other)
    assert equal(straight.values(), stopped.values())


@pytest.mark.parametrize("in_training", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_fresh_run_goes_on_from_the_state_with_the_same_bits(way: str, in_training: bool) -> None:
    straight, first, second = run(way, STEPS), run(way, 3, 4), Run(way)
    if in_training:
        first.averages.enter_training()
    state = first.state()
    first.advance(2)  # the state is not moved by those who go on
    second.load(state)
    second.advance(STEPS - 7)
    assert equal(second.values(), straight.values())
    assert equal(second.raw[-1], straight.raw[-1])


@pytest.mark.parametrize("way", ACTIVE)
def test_evaluations_see_other_weights_than_training(way: str) -> None:
    one = run(way, STEPS)
    assert not equal(one.values(), one.raw[-1])
    one.averages.enter_training()
    assert equal(one.values(), one.raw[-1])


def test_with_neither_the_weights_are_left_alone_and_nothing_is_kept() -> None:
    one = run("neither", STEPS)
    assert equal(one.values(), one.raw[-1])
    assert not one.averages.is_active
    assert one.averages.state_dict() == {}


@pytest.mark.parametrize("way", ["ema", "both"])
def test_the_moving_average_is_the_formula(way: str) -> None:
    """s ← s + (1 - d)(w - s), d = min(0.9, (1 + n) / (10 + n)) with n steps before, and 0 at the first."""
    one = run(way, STEPS)
    average = [torch.zeros(8, 8).double(), torch.zeros(8).double()]
    for before, raw in enumerate(one.raw):
        decay = min(0.9, (1 + before) / (10 + before)) if before else 0.0
        average = [decay * old + (1 - decay) * new.double() for old, new in zip(average, raw, strict=True)]
    for found, expected in zip(one.values(), average, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_schedule_free_is_evaluated_at_x() -> None:
    """y = (1 - beta1) z + beta1 x (Defazio et al. 2024, eq. 1), and x is the mean of all z at a constant rate."""
    one = run("schedule-free", STEPS)
    for x, y, weight in zip(one.values(), one.raw[-1], one.weights, strict=True):
        z = one.optimizer.state[weight]["z"]
        torch.testing.assert_close(y, 0.1 * z + 0.9 * x, rtol=1e-4, atol=1e-6)
        assert not torch.equal(x, z)


@pytest.mark.parametrize("way", WAYS)
def test_entering_and_leaving_twice_is_as_once(way: str) -> None:
    one = run(way, STEPS)
    evaluated = one.values()
    one.averages.leave_training()
    assert equal(one.values(), evaluated)
    one.averages.enter_training()
    one.averages.enter_training()
    assert equal(one.values(), one.raw[-1])


@pytest.mark.parametrize("way", WAYS)
def test_gradients_and_the_weights_own_places_stay(way: str) -> None:
    """Optimizer and model know the parameters by identity."""
    one = Run(way)
    places = [weight.data_ptr() for weight in one.weights]
    one.advance(2)
    one.advance(2)
    assert [weight.data_ptr() for weight in one.weights] == places
    assert all(weight.requires_grad and weight.is_leaf for weight in one.weights)
