"""Data sets that several files of tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drawn import draw_set


@pytest.fixture
def drawn_set(tmp_path: Path) -> Path:
    """A data set in which nothing is wrong at 128 px."""
    return draw_set(tmp_path / "set")
