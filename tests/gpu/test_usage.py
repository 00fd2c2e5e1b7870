"""How busy a real GPU is, as shown while a search runs."""

from __future__ import annotations

import re

import pytest
import torch

from raylora.execution.usage import _gpus_here

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


def test_a_gpu_tells_how_busy_it_is() -> None:
    assert re.fullmatch(r"\d+% busy, \d+\.\d of \d+\.\d GiB", _gpus_here())
