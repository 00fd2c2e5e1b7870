"""The regression that forecasts are made with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import check_grad

from raylora.search.gaussian_process import JITTER, GaussianProcess, Noise, Scales, _negative_log_likelihood

PRIOR = Scales(np.zeros(3), 0.0, math.log(0.05))


def made_up(count: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A wave in the first column, a slope in the second; the third moves nothing."""
    generator = np.random.default_rng(seed)
    rows = generator.random((count, 3))
    return rows, np.sin(5 * rows[:, 0]) + rows[:, 1] + noise * generator.standard_normal(count)


def in_pairs(count: int, correlation: float) -> np.ndarray:
    """Of noise that each two neighbours share."""
    return np.kron(np.eye(count // 2), [[1.0, correlation], [correlation, 1.0]])


def test_the_gradient_is_that_of_the_likelihood() -> None:
    rows, values = made_up(20, 0.1)
    squares = (rows[:, None] - rows[None]) ** 2
    at = np.log([0.5, 0.8, 1.5, 1.2, 0.1])
    shared = in_pairs(20, 0.7)
    error = check_grad(
        lambda array: _negative_log_likelihood(Scales.of(array), values, squares, shared)[0],
        lambda array: _negative_log_likelihood(Scales.of(array), values, squares, shared)[1],
        at,
    )
    assert error < 1e-4


def test_a_function_is_learned_from_noisy_values_and_what_is_idle_is_seen_to_be() -> None:
    model = GaussianProcess(*made_up(60, 0.2), PRIOR)
    rows, truth = made_up(200, 0.0, seed=1)
    mean, sd = model.predict(rows)
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.1  # half of the noise of one value
    assert np.mean(np.abs(mean - truth) < 2 * sd) > 0.85
    assert np.argmax(model.scales.lengths) == 2


def test_values_that_share_their_noise_count_for_one() -> None:
    """Two equal values at a place say more of the function than one, unless the second is the first's echo."""
    rows, values = made_up(10, 0.0)
    rows, values = np.repeat(rows, 2, axis=0), np.repeat(values, 2)
    scales = Scales(np.zeros(3), 0.0, math.log(0.5))
    sds = [GaussianProcess(rows, values, PRIOR, scales, Noise(in_pairs(20, shared))).predict(rows)[1].mean()
           for shared in (0.0, 0.999)]  # fmt: skip
    once = GaussianProcess(rows[::2], values[::2], PRIOR, scales).predict(rows)[1].mean()
    assert sds[0] < 0.9 * once
    assert sds[1] == pytest.approx(once, rel=1e-3)


def test_values_that_are_added_count_as_if_they_had_been_there() -> None:
    rows, values = made_up(20, 0.1)
    shared, scales = in_pairs(20, 0.7), Scales(np.zeros(3), 0.0, math.log(0.3))
    values -= values[:13].mean()  # both are centred by the values that they began with
    values *= values[:13].std() ** -1
    grown = GaussianProcess(rows[:13], values[:13], PRIOR, scales, Noise(shared[:13, :13]))
    grown.add(rows[13:15], values[13:15], shared[:15, 13:15])
    grown.add(rows[15:], values[15:], shared[:, 15:])
    expected = posterior(rows, values, scales, shared)
    asked, _ = made_up(30, 0.0, seed=1)
    np.testing.assert_allclose(grown.mean(asked), expected(asked), atol=1e-8)
    np.testing.assert_allclose(grown.predict(asked)[0], expected(asked), atol=1e-8)


def posterior(rows: np.ndarray, values: np.ndarray, scales: Scales, shared: np.ndarray) -> Callable:
    """The mean by the textbook, all values at once (Rasmussen & Williams 2006, equation 2.25; Matern by 4.17)."""

    def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        far = math.sqrt(5) * np.linalg.norm((first[:, None] - second) / np.exp(scales.lengths), axis=-1)
        return np.exp(scales.variance) * (1 + far + far**2 / 3) * np.exp(-far)

    weights = np.linalg.solve(kernel(rows, rows) + np.exp(scales.noise) * shared + JITTER * np.eye(len(rows)), values)
    return lambda asked: kernel(asked, rows) @ weights


def test_how_sure_the_noise_is_beforehand_counts() -> None:
    """Few values, hardly noisy, said to be half noise: a narrow prior believes it, a wide one doesn't."""
    rows, values = made_up(15, 0.02)
    prior = Scales(np.zeros(3), 0.0, math.log(0.5))
    narrow, wide = (GaussianProcess(rows, values, prior, noise=Noise(np.eye(15), sd)).scales.noise for sd in (0.1, 2.0))
    assert narrow > prior.noise - 0.5 > wide


def test_what_is_far_from_all_points_is_uncertain() -> None:
    rows, values = made_up(30, 0.01)
    model = GaussianProcess(rows, values, PRIOR)
    _, sd = model.predict(np.array([[0.5, 0.5, 0.5], [4.0, 4.0, 0.5]]))
    assert sd[1] > 5 * sd[0]


def test_scales_that_were_fitted_before_are_taken_as_they_are() -> None:
    rows, values = made_up(30, 0.1)
    fitted = GaussianProcess(rows, values, PRIOR).scales
    again = GaussianProcess(rows[:25], values[:25], PRIOR, fitted)
    assert again.scales is fitted


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_equal_values_give_that_value(value: float) -> None:
    model = GaussianProcess(np.random.default_rng(0).random((5, 3)), np.full(5, value), PRIOR)
    assert model.predict(np.ones((1, 3)))[0] == pytest.approx(value, abs=1e-6)
