"""How sharp a picture is where it is sharpest: the blur of its strongest edges, in px."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from raylora.dataset.pixels import load_pixels

FINE_PX, COARSE_PX = 1.0, 2.0
"""Deviations of the two smoothings that are compared. The finer one keeps grain and JPEG's noise out: with none, a
picture that was blurred and saved with 8 bits a channel looks sharp again."""
STRONGEST = 0.02
"""Share of the pixels: a sharp subject before a soft background is sharp."""
MOST_SIDE_PX = 640
"""Of the middle that is looked at; more would cost time and tell no more."""
FLAT_LEVELS = 1.0
"""Change from px to px, of 255 levels, under which nothing is an edge."""


def edge_blur_px(grey: NDArray[np.float32]) -> float | None:
    """The standard deviation in px of the Gaussian that an ideal edge was blurred with to be like the strongest ones.

    At an edge of blur s, smoothed with deviation a, the gradient is proportional to 1/√(s² + a²). So two smoothings'
    ratio R gives s² = (R² b² - a²)/(1 - R²), which doesn't depend on the edges' contrast (Zhuo and Sim 2011, "Defocus
    map estimation from a single image", https://doi.org/10.1016/j.patcog.2011.03.009, equations 4 to 7, with one of the
    two smoothings at 0 there).

    Args:
        grey: (height, width), 0 to 255.

    Returns:
        0 where edges are sharper than any that pixels can show; None where there is no edge.
    """
    fine = gaussian_filter(grey, FINE_PX)
    fine_change = _gradient(fine)
    coarse_change = _gradient(gaussian_filter(fine, math.sqrt(COARSE_PX**2 - FINE_PX**2)))
    strong = fine_change >= np.quantile(fine_change, 1 - STRONGEST)
    total = float(fine_change[strong].sum())
    if total < FLAT_LEVELS * np.count_nonzero(strong):
        return None
    squared = min(float(coarse_change[strong].sum()) / total, 1 - 1e-6) ** 2
    return math.sqrt(max(0.0, squared * COARSE_PX**2 - FINE_PX**2) / (1 - squared))


def picture_blur_px(path: Path, size: tuple[int, int]) -> float | None:
    """The same of a picture as it is learned, scaled and cut to `size` = (width, height) px; of its middle."""
    grey = Image.fromarray(load_pixels(path, size)).convert("L")
    left, top = (max(0, side - MOST_SIDE_PX) // 2 for side in size)
    middle = grey.crop((left, top, size[0] - left, size[1] - top))
    return edge_blur_px(np.asarray(middle, dtype=np.float32))


def _gradient(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Change from px to px, down and across together: (height - 1, width - 1)."""
    return np.hypot(np.diff(levels, axis=0)[:, :-1], np.diff(levels, axis=1)[:-1])
