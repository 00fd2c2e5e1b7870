"""Ports that tests give to servers: several are asked for before the first is listened at."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port

DRAWN = "import random; from tests.ports import free_port; random.seed(0); print(free_port())"


@pytest.fixture(autouse=True)
def same_draws() -> Iterator[None]:
    state = random.getstate()
    random.seed(0)
    yield
    random.setstate(state)


def test_none_is_given_twice() -> None:
    first = free_port()
    random.seed(0)
    assert free_port() != first


def test_nor_by_two_processes() -> None:
    first = free_port()
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", DRAWN], cwd=root, capture_output=True, text=True, check=True)
    assert int(other.stdout) != first
