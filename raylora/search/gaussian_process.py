"""Regression by a Gaussian process whose scales are fitted with priors, so that a handful of points suffices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
JITTER = 1e-6
"""Added to the noise's variance, in shares of the values' own: keeps the matrix positive definite."""
LENGTH_SD, VARIANCE_SD = 0.7, 1.0
"""Widths of the priors, in natural logarithms."""
MOST_STEPS = 30
"""Of the fit; further ones change predictions by less than their own uncertainty."""


@dataclass(frozen=True)
class Scales:
    """What is fitted: natural logarithms, of values that are centred and brought to a standard deviation of 1."""

    lengths: Array
    """(columns,): over which distance in a column values hang together."""
    variance: float
    noise: float
    """Variance of a value around the function."""

    def as_array(self) -> Array:
        return np.concatenate([self.lengths, [self.variance, self.noise]])

    @classmethod
    def of(cls, array: Array) -> Scales:
        return cls(array[:-2], float(array[-2]), float(array[-1]))


@dataclass(frozen=True)
class Noise:
    """What is known of the values' noise beforehand, beside its likeliest variance."""

    correlation: Array
    """(points, points): what values share of it."""
    sd: float = 1.0
    """Width of its variance's prior, in natural logarithms."""


class GaussianProcess:
    """Matérn 5/2 with a length for each column (Rasmussen & Williams 2006, equation 4.17 and algorithm 2.1).

    Scales are those of the highest posterior density, with log-normal priors around `prior`.

    Args:
        rows: (points, columns), each column about 0 to 1.
        values: (points,).
        prior: the scales that are likeliest before any point is seen.
        fitted: scales fitted earlier to nearly the same points, which are then taken as they are.
        noise: independent from value to value unless given.
    """

    def __init__(
        self, rows: Array, values: Array, prior: Scales, fitted: Scales | None = None, noise: Noise | None = None
    ):
        noise = noise or Noise(np.eye(len(rows)))
        self._rows, self._centre = rows, float(values.mean())
        self._spread = max(float(values.std()), 1e-9)
        self._values = (values - self._centre) / self._spread
        self.scales = fitted or _fit(rows, self._values, prior, noise)
        kernel = _kernel(_distances(rows, rows, self.scales), self.scales)
        self._root = cholesky(kernel + _scatter(self.scales, noise.correlation), lower=True)
        self._weights = cho_solve((self._root, True), self._values)

    def add(self, rows: Array, values: Array, correlation: Array) -> None:
        """More values, for the scales that there are: a border around the Cholesky factor, in quadratic time.

        Args:
            correlation: of the noise of all values with the new ones', (points and new points, new points).
        """
        old, joined = len(self._rows), np.concatenate([self._rows, rows])
        border = _kernel(_distances(joined, rows, self.scales), self.scales) + np.exp(self.scales.noise) * correlation
        side = solve_triangular(self._root, border[:old], lower=True)
        corner = cholesky(border[old:] + JITTER * np.eye(len(rows)) - side.T @ side, lower=True)
        self._root = np.block([[self._root, np.zeros_like(side)], [side.T, corner]])
        self._rows, self._values = joined, np.concatenate([self._values, (values - self._centre) / self._spread])
        self._weights = cho_solve((self._root, True), self._values)

    def covariance(self, rows: Array, others: Array) -> Array:
        """Of the function at points with others, (points, others)."""
        before = _kernel(_distances(rows, others, self.scales), self.scales)
        first, second = (
            solve_triangular(self._root, _kernel(_distances(self._rows, some, self.scales), self.scales), lower=True)
            for some in (rows, others)
        )
        found: Array = (before - first.T @ second) * self._spread**2
        return found

    @property
    def noise_sd(self) -> float:
        """Standard deviation of a value around the function."""
        return float(np.exp(self.scales.noise / 2) * self._spread)

    def mean(self, rows: Array) -> Array:
        """Of the function, (points,): quicker than `predict`."""
        return self._mean(self._with_values(rows))

    def _with_values(self, rows: Array) -> Array:
        """Covariance of the standardized function at points with that at the values, (points, values)."""
        return _kernel(_distances(rows, self._rows, self.scales), self.scales)

    def _mean(self, with_values: Array) -> Array:
        mean: Array = with_values @ self._weights * self._spread + self._centre
        return mean

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the function, without a value's noise, each (points,)."""
        between = self._with_values(rows)
        explained = solve_triangular(self._root, between.T, lower=True)
        variance = np.exp(self.scales.variance) - (explained**2).sum(axis=0)
        sd = np.sqrt(np.maximum(variance, JITTER))
        return self._mean(between), sd * self._spread


def _distances(first: Array, second: Array, scales: Scales) -> Array:
    """Euclidean, (points, other points), each column in units of its length."""
    lengths = np.exp(scales.lengths)
    one, other = first / lengths, second / lengths
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    distances: Array = np.sqrt(np.maximum(squares, 0.0))
    return distances


def _kernel(distances: Array, scales: Scales) -> Array:
    scaled = np.sqrt(5.0) * distances
    kernel: Array = np.exp(scales.variance) * (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
    return kernel


def _scatter(scales: Scales, correlation: Array) -> Array:
    """Covariance of the values' noise."""
    scatter: Array = np.exp(scales.noise) * correlation + JITTER * np.eye(len(correlation))
    return scatter


def _fit(rows: Array, values: Array, prior: Scales, noise: Noise) -> Scales:
    squares = (rows[:, None] - rows[None]) ** 2
    centre = prior.as_array()
    widths = np.concatenate([np.full(rows.shape[1], LENGTH_SD), [VARIANCE_SD, noise.sd]])

    def loss(array: Array) -> tuple[float, Array]:
        value, gradient = _negative_log_likelihood(Scales.of(array), values, squares, noise.correlation)
        away = (array - centre) / widths
        return value + float(away @ away) / 2, gradient + away / widths

    bounds = [(middle - 3 * width, middle + 3 * width) for middle, width in zip(centre, widths, strict=True)]
    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MOST_STEPS})
    return Scales.of(found.x)


def _negative_log_likelihood(scales: Scales, values: Array, squares: Array, correlation: Array) -> tuple[float, Array]:
    """And its gradient by the logarithms (Rasmussen & Williams 2006, equations 5.8 and 5.9).

    Args:
        squares: of the points' differences, (points, points, columns).
        correlation: of the values' noise.
    """
    distances = np.sqrt(squares @ np.exp(-2 * scales.lengths))
    kernel = _kernel(distances, scales)
    root = cholesky(kernel + _scatter(scales, correlation), lower=True)
    weights = cho_solve((root, True), values)
    value = float(values @ weights) / 2 + float(np.log(np.diag(root)).sum())
    pull = cho_solve((root, True), np.eye(len(values))) - np.outer(weights, weights)
    scaled = np.sqrt(5.0) * distances
    slope = pull * np.exp(scales.variance) * 5 / 3 * (1 + scaled) * np.exp(-scaled)
    by_length = np.einsum("ij,ijc->c", slope, squares) / np.exp(2 * scales.lengths) / 2
    by_variance = float((pull * kernel).sum()) / 2
    by_noise = float(np.exp(scales.noise) * (pull * correlation).sum()) / 2
    return value, np.concatenate([by_length, [by_variance, by_noise]])
