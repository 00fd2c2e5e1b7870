"""One contract for each table of parts, kept by every entry."""

from __future__ import annotations

from typing import Any, get_args

import optuna
import pytest
import torch
from diffusers.optimization import SchedulerType
from torch import Tensor
from torch.optim import Optimizer

from raylora.config import Experiment, LrSchedulerConfig, OptimizerConfig, SearchConfig
from raylora.config_optimization import OPTIMIZER_NAMES
from raylora.search.space import load_space
from raylora.search.study import OPTUNA_SAMPLERS
from raylora.training.optimizers import OPTIMIZERS, build_lr_scheduler, build_optimizer, check_optimizer

RATES = {
    "adamw": 0.02, "adamw8bit": 0.02, "lion": 0.005, "lion8bit": 0.005, "prodigy": 1.0, "adafactor": 0.02,
    "adamw_schedule_free": 0.02,
}  # fmt: skip
"""By optimizer, what the guide says of them moved to a tiny problem."""
PATIENCE = 250
"""Steps; Prodigy takes more than half of them to find its rate."""
WIDTH = 64
"""64 x 64 weights are just enough for bitsandbytes to keep their states in 8 bits."""

LR_NAMES = get_args(LrSchedulerConfig.model_fields["name"].annotation)
RULES = {"piecewise_constant": {"step_rules": "1:20,0.1:40,0.0001"}}
"""Settings that a schedule can't do without."""
STEPS = 60
HIGH, LOW = 1e-3, 5e-4


class Regression:
    """Find the matrix and the offset of a linear map; each of them is a parameter group of its own."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._inputs = torch.randn(256, WIDTH, generator=generator)
        self._outputs = self._inputs @ (0.3 * torch.randn(WIDTH, WIDTH, generator=generator)) + 0.5
        self.matrix = torch.nn.Parameter(torch.zeros(WIDTH, WIDTH))
        self.offset = torch.nn.Parameter(torch.zeros(WIDTH))

    def optimizer(self, name: str, rates: tuple[float, float] | None = None) -> Optimizer:
        own = rates or (RATES[name], RATES[name])
        groups = [{"params": [self.matrix], "lr": own[0]}, {"params": [self.offset], "lr": own[1]}]
        return build_optimizer(groups, OptimizerConfig.model_validate({"name": name}))

    def loss(self) -> Tensor:
        return torch.nn.functional.mse_loss(self._inputs @ self.matrix + self.offset, self._outputs)

    def train(self, optimizer: Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def test_the_configuration_names_every_entry() -> None:
    def names(section: Any, field: str) -> set[str]:
        return set(get_args(section.model_fields[field].annotation))

    assert tuple(OPTIMIZERS) == OPTIMIZER_NAMES
    assert names(SearchConfig, "optuna_sampler") == set(OPTUNA_SAMPLERS)
    assert set(RATES) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name: str) -> None:
    problem = Regression()
    before = problem.loss().item()
    problem.train(problem.optimizer(name), steps=PATIENCE)
    assert problem.loss().item() < 0.2 * before
    assert bool(problem.matrix.any())
    assert bool(problem.offset.any())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_passes_the_check(name: str) -> None:
    check_optimizer(OptimizerConfig(name=name, learning_rate=RATES[name]), ("unet", "text_encoder"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_keeps_the_rate_of_each_group(name: str) -> None:
    rates = (1.0, 1.0) if name == "prodigy" else (HIGH, LOW)
    optimizer = Regression().optimizer(name, rates)
    assert tuple(group["lr"] for group in optimizer.param_groups) == rates


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"prodigy", "adafactor"}))
def test_a_group_moves_by_its_own_rate(name: str) -> None:
    problem = Regression()
    problem.train(problem.optimizer(name, (HIGH, 10 * HIGH)), steps=1)
    assert problem.matrix.abs().max().item() == pytest.approx(HIGH, rel=0.05)
    assert problem.offset.abs().max().item() == pytest.approx(10 * HIGH, rel=0.05)


def test_adafactor_moves_by_the_rate_in_the_mean_square_even_from_zero() -> None:
    """With the weights' own size as a factor it would be a thousandth of the rate."""
    problem = Regression()
    problem.train(problem.optimizer("adafactor", (HIGH, 10 * HIGH)), steps=1)
    assert problem.matrix.pow(2).mean().sqrt().item() == pytest.approx(HIGH, rel=0.05)
    assert problem.offset.pow(2).mean().sqrt().item() == pytest.approx(10 * HIGH, rel=0.05)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_decays_weights(name: str) -> None:
    config = OptimizerConfig.model_validate({"name": name, "weight_decay": 0.125})
    optimizer = build_optimizer([{"params": [torch.nn.Parameter(torch.ones(4))], "lr": 1.0}], config)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.125]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_from_its_state(name: str) -> None:
    straight, stopped = Regression(), Regression()
    straight.train(straight.optimizer(name), steps=10)
    first = stopped.optimizer(name)
    stopped.train(first, steps=5)
    second = stopped.optimizer(name)
    second.load_state_dict(first.state_dict())
    stopped.train(second, steps=5)
    assert torch.equal(straight.matrix, stopped.matrix)
    assert torch.equal(straight.offset, stopped.offset)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is for results."""
    Regression().optimizer(name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["adamw8bit", "lion8bit"])
def test_8_bit_optimizers_keep_8_bit_states(name: str) -> None:
    problem = Regression()
    optimizer = problem.optimizer(name)
    problem.train(optimizer, steps=1)
    kept = {value.dtype for value in optimizer.state[problem.matrix].values() if isinstance(value, Tensor)}
    assert torch.uint8 in kept


def learning_rates(name: str, **options: Any) -> list[tuple[float, float]]:
    """The rates of two groups, at the start and after each step."""
    problem = Regression()
    optimizer = problem.optimizer("adamw", (HIGH, LOW))
    settings = {"name": name, **RULES.get(name, {}), **options}
    schedule = build_lr_scheduler(optimizer, LrSchedulerConfig.model_validate(settings), STEPS)
    rates = []
    for _ in range(STEPS + 1):
        rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("name", LR_NAMES)
def test_every_schedule_starts_at_the_groups_own_rates_and_keeps_their_ratio(name: str) -> None:
    rates = learning_rates(name)
    assert rates[0] == pytest.approx((HIGH, LOW))
    assert all(low == pytest.approx(high * LOW / HIGH) for high, low in rates)


@pytest.mark.parametrize("name", LR_NAMES)
def test_every_schedule_stays_or_falls_to_nothing(name: str) -> None:
    rates = [high for high, _ in learning_rates(name)]
    if name.startswith("constant"):
        assert rates == pytest.approx([HIGH] * len(rates))
    else:
        assert rates[-1] < 1e-3 * HIGH
        assert sum(rates) < 0.7 * HIGH * len(rates)


@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial"])
def test_schedules_without_restarts_only_fall_and_are_half_way_at_half_time(name: str) -> None:
    rates = [high for high, _ in learning_rates(name)]
    assert rates == sorted(rates, reverse=True)
    assert rates[STEPS // 2] == pytest.approx(HIGH / 2, rel=0.01)


@pytest.mark.parametrize("num_restarts", [1, 3, 4, 5])
def test_cosine_with_restarts_starts_anew_as_often_as_asked(num_restarts: int) -> None:
    rates = [high for high, _ in learning_rates("cosine_with_restarts", num_restarts=num_restarts)]
    starts = [step for step, rate in enumerate(rates) if rate == pytest.approx(HIGH)]
    assert starts == [cycle * STEPS // num_restarts for cycle in range(num_restarts)]


def test_restarts_that_are_not_set_are_the_guides_3() -> None:
    assert learning_rates("cosine_with_restarts") == learning_rates("cosine_with_restarts", num_restarts=3)


def test_the_schedules_are_all_of_diffusers() -> None:
    assert set(LR_NAMES) == {kind.value for kind in SchedulerType}


def test_piecewise_constant_follows_its_rules() -> None:
    rates = [high / HIGH for high, _ in learning_rates("piecewise_constant", step_rules="1:10,0.5:25,0.2")]
    assert rates == pytest.approx([1] * 10 + [0.5] * 15 + [0.2] * (STEPS + 1 - 25))


def test_the_power_of_polynomial() -> None:
    rates = [high for high, _ in learning_rates("polynomial", power=2)]
    assert rates == pytest.approx([1e-7 + (HIGH - 1e-7) * (1 - step / STEPS) ** 2 for step in range(STEPS + 1)])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_every_schedule(name: str) -> None:
    """Some classes have no rate of their own, which diffusers' polynomial asks for."""
    for schedule in LR_NAMES:
        config = LrSchedulerConfig.model_validate({"name": schedule, **RULES.get(schedule, {})})
        assert build_lr_scheduler(Regression().optimizer(name), config, STEPS).get_last_lr() == [RATES[name]] * 2


@pytest.mark.parametrize("name", sorted(set(LR_NAMES) - {"constant", "piecewise_constant"}))
def test_warm_up_rises_from_0(name: str) -> None:
    rates = [high for high, _ in learning_rates(name, warmup_ratio=0.2)]
    warm_up = STEPS // 5
    assert rates[0] == 0
    assert rates[: warm_up + 1] == pytest.approx([HIGH * step / warm_up for step in range(warm_up + 1)])
    assert max(rates) == pytest.approx(HIGH)


def asked(name: str, seed: int) -> list[dict[str, Any]]:
    """What a sampler asks for, with scores that follow the learning rate."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = load_space("demo")
    study = optuna.create_study(direction="maximize", sampler=OPTUNA_SAMPLERS[name](SearchConfig(), seed))
    points = []
    for _ in range(15):
        trial = study.ask()
        points.append(space.suggest(trial, Experiment()))
        study.tell(trial, points[-1]["optimizer.unet_lr"])
    return points


@pytest.mark.parametrize("name", OPTUNA_SAMPLERS)
def test_every_sampler_asks_for_valid_settings(name: str) -> None:
    space = load_space("demo")
    for point in asked(name, seed=0):
        assert Experiment().with_params(point).warnings() == []
        space.to_optuna(point, Experiment())


@pytest.mark.parametrize("name", OPTUNA_SAMPLERS)
def test_every_sampler_follows_its_seed(name: str) -> None:
    assert asked(name, seed=1) == asked(name, seed=1)
    assert asked(name, seed=1) != asked(name, seed=2)


@pytest.mark.parametrize("name", OPTUNA_SAMPLERS)
def test_no_sampler_asks_for_the_same_twice(name: str) -> None:
    rates = [point["optimizer.unet_lr"] for point in asked(name, seed=0)]
    assert len(set(rates)) == len(rates)
