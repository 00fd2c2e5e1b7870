"""A process that is kept to its part of a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

PROGRAM = """
import torch
from raylora.execution.gpu_part import CONTEXT_BYTES, keep_to_part

keep_to_part(0.25)
total, held = torch.cuda.get_device_properties(0).total_memory, []
try:
    while len(held) < total // 2**28:
        held.append(torch.zeros(2**26, device="cuda"))
except torch.OutOfMemoryError:
    part = 0.25 * total - CONTEXT_BYTES
    print(0.9 * part < torch.cuda.memory_reserved() <= part)
"""


def test_a_trial_over_its_part_runs_out_of_memory_by_itself() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
