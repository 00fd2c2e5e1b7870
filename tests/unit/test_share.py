"""How a cluster's CPUs and GPUs are shared out among trials."""

from __future__ import annotations

import pytest

from raylora.config import SearchConfig
from raylora.errors import ConfigError
from raylora.execution.cluster import Share, share_out


@pytest.mark.parametrize(
    ("gpus_per_trial", "resources", "expected"),
    [
        (1, {"CPU": 2}, Share(cpus=1, gpus=0, workers=1, concurrent=2)),
        (2, {"CPU": 2}, Share(cpus=1, gpus=0, workers=2, concurrent=1)),
        (1, {"CPU": 32, "GPU": 4}, Share(cpus=8, gpus=1, workers=1, concurrent=4)),
        (0.5, {"CPU": 32, "GPU": 4}, Share(cpus=4, gpus=0.5, workers=1, concurrent=8)),
        (2, {"CPU": 32, "GPU": 4}, Share(cpus=8, gpus=2, workers=2, concurrent=2)),
    ],
)
def test_share(gpus_per_trial: float, resources: dict[str, float], expected: Share) -> None:
    assert share_out(SearchConfig(gpus_per_trial=gpus_per_trial), resources) == expected


def test_limits() -> None:
    assert share_out(SearchConfig(max_concurrent=3), {"CPU": 16, "GPU": 8}).concurrent == 3
    assert share_out(SearchConfig(trials=2), {"CPU": 16}).concurrent == 2


@pytest.mark.parametrize(
    ("gpus_per_trial", "resources", "reason"),
    [
        (3, {"CPU": 4, "GPU": 2}, "2 GPUs"),
        (3, {"CPU": 2}, "no GPU, and only 2 CPU cores"),
    ],
)
def test_refusals(gpus_per_trial: float, resources: dict[str, float], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        share_out(SearchConfig(gpus_per_trial=gpus_per_trial), resources)
