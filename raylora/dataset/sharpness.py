"""How sharp a picture is where it is sharpest: the blur of its strongest edges, in px."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter1d

FINE_PX, COARSE_PX = 1.0, 2.0
"""Deviations of the two smoothings that are compared. The finer one keeps grain and JPEG's noise out: with none, a
picture that was blurred and saved with 8 bits a channel looks sharp again."""
STRONGEST = 0.05
"""Share of the edges: a sharp subject before a soft background is sharp."""
FLAT_LEVELS = 1.0
"""Change from px to px, of 255 levels, under which nothing is an edge."""


Levels = NDArray[np.float32]


def edge_blur_px(grey: Levels) -> float | None:
    """The standard deviation in px of the Gaussian that an ideal edge was blurred with to be like the strongest ones.

    On an edge of blur s, smoothed with deviation a, the gradient is proportional to 1/√(s² + a²). So the ratio R of two
    smoothings' gradients gives s² = (R² b² - a²)/(1 - R²), whatever the edge's contrast (Zhuo and Sim 2011, "Defocus
    map estimation from a single image", https://doi.org/10.1016/j.patcog.2011.03.009, equations 4 to 7, where one
    smoothing is 0). It holds on edges alone, so only the ridges of the gradient count, as there.

    Args:
        grey: (height, width), 0 to 255.

    Returns:
        0 where edges are sharper than any that pixels can show; None where there is no edge.
    """
    fine = gaussian_filter(grey, FINE_PX)
    change, is_edge = _edges(*_gradient(fine))
    if not is_edge.any():
        return None
    is_edge &= change >= np.quantile(change[is_edge], 1 - STRONGEST)
    coarse = np.hypot(*_gradient(gaussian_filter(fine, math.sqrt(COARSE_PX**2 - FINE_PX**2))))
    ratio = float(coarse[is_edge].sum()) / float(change[is_edge].sum())
    squared = min(ratio, 1 - 1e-6) ** 2
    return math.sqrt(max(0.0, squared * COARSE_PX**2 - FINE_PX**2) / (1 - squared))


def _gradient(levels: Levels) -> tuple[Levels, Levels]:
    """Change from px to px, down and across: (height - 1, width - 1) each."""
    return np.diff(levels, axis=0)[:, :-1], np.diff(levels, axis=1)[:-1]


def _edges(down: Levels, across: Levels) -> tuple[Levels, NDArray[np.bool_]]:
    """How much levels change at each px, and whether it is an edge: no neighbour across the edge changes more."""
    change: Levels = np.hypot(down, across)
    is_upright = np.abs(across) >= np.abs(down)
    most = np.where(is_upright, *(maximum_filter1d(change, 3, axis=axis) for axis in (1, 0)))
    return change, (change >= most) & (change > FLAT_LEVELS)
