"""A trial's part of a GPU, from which it is kept to take its neighbour's; without Ray."""

from __future__ import annotations

import torch

CONTEXT_BYTES = 3 * 2**28
"""What CUDA takes for each process beside torch's own memory: its context, kernels, workspaces. Seen on an H200 with
torch 2.11: 0.69 GiB."""


def keep_to_part(gpus_per_trial: float) -> None:
    """Have this process run out of memory where it takes more than its part of the GPU, and not a neighbour."""
    if gpus_per_trial < 1 and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(max(0.0, gpus_per_trial - CONTEXT_BYTES / total), 0)
