"""How a cluster's CPUs and GPUs are shared out among trials."""

from __future__ import annotations

import pytest

from raylora.config import SearchConfig
from raylora.errors import ConfigError
from raylora.execution.share import Share, share_out

CPU_HEAD = {"CPU": 16.0}


@pytest.mark.parametrize(
    ("gpus_per_trial", "nodes", "expected"),
    [
        (1, [{"CPU": 2}], Share(cpus=1, gpus=0, workers=1, concurrent=2)),
        (2, [{"CPU": 2}], Share(cpus=1, gpus=0, workers=2, concurrent=1)),
        (1, [{"CPU": 32, "GPU": 4}], Share(cpus=8, gpus=1, workers=1, concurrent=4)),
        (0.5, [{"CPU": 32, "GPU": 4}], Share(cpus=4, gpus=0.5, workers=1, concurrent=8)),
        (0.6, [{"CPU": 32, "GPU": 4}], Share(cpus=8, gpus=0.6, workers=1, concurrent=4)),
        (2, [{"CPU": 32, "GPU": 4}], Share(cpus=8, gpus=2, workers=2, concurrent=2)),
        (1, [CPU_HEAD, {"CPU": 8, "GPU": 1}], Share(cpus=8, gpus=1, workers=1, concurrent=1)),
        (16, [{"CPU": 64, "GPU": 8}] * 2, Share(cpus=8, gpus=16, workers=16, concurrent=1, spans_nodes=True)),
        (1, [{"CPU": 16, "GPU": 2}, {"CPU": 4, "GPU": 4}], Share(cpus=1, gpus=1, workers=1, concurrent=6)),
        # a head that offers nothing, or cores alone, has no room for trials
        (1, [{}, {"CPU": 8, "GPU": 1}], Share(cpus=8, gpus=1, workers=1, concurrent=1)),
        (1, [{"CPU": 0}, {"CPU": 3}, {"CPU": 3}], Share(cpus=1, gpus=0, workers=1, concurrent=5)),
        # fewer cores than room for trials: each gets a part of one, and all still run at once
        (1, [{"CPU": 2, "GPU": 4}], Share(cpus=0.5, gpus=1, workers=1, concurrent=4)),
        (0.3, [{"CPU": 2, "GPU": 1}], Share(cpus=0.6666, gpus=0.3, workers=1, concurrent=3)),
        (0.3, [{"CPU": 12, "GPU": 2}], Share(cpus=2, gpus=0.3, workers=1, concurrent=6)),
        (1, [CPU_HEAD, {"CPU": 0, "GPU": 2}], Share(cpus=0, gpus=1, workers=1, concurrent=2)),
        (1, [{"GPU": 2}], Share(cpus=0, gpus=1, workers=1, concurrent=2)),
        # a trial stays on one node wherever one has room for it; else it spans several
        (2, [{"CPU": 9, "GPU": 3}] * 2, Share(cpus=4, gpus=2, workers=2, concurrent=2)),
        (2, [{"CPU": 8, "GPU": 4}, {"CPU": 1, "GPU": 1}], Share(cpus=2, gpus=2, workers=2, concurrent=2)),
        (2, [{"CPU": 4, "GPU": 1}] * 3, Share(cpus=4, gpus=2, workers=2, concurrent=1, spans_nodes=True)),
        (2, [{"CPU": 1}] * 4, Share(cpus=1, gpus=0, workers=2, concurrent=2, spans_nodes=True)),
        # nobody has a whole GPU to give: it is none
        (1, [{"CPU": 4, "GPU": 0.5}], Share(cpus=1, gpus=0, workers=1, concurrent=4)),
    ],
)
def test_share(gpus_per_trial: float, nodes: list[dict[str, float]], expected: Share) -> None:
    assert share_out(SearchConfig(gpus_per_trial=gpus_per_trial), nodes) == expected


def test_no_trial_asks_for_more_than_a_node_has() -> None:
    assert share_out(SearchConfig(max_concurrent=1), [{"CPU": 4}, {"CPU": 4}]).cpus == 4
    assert share_out(SearchConfig(max_concurrent=3), [{"CPU": 4}, {"CPU": 6}]).cpus == 3


def test_limits() -> None:
    assert share_out(SearchConfig(max_concurrent=3), [{"CPU": 16, "GPU": 8}]).concurrent == 3
    assert share_out(SearchConfig(trials=2, max_concurrent=9), [{"CPU": 16}]).concurrent == 2


def test_on_many_cores_most_trials_wait_for_others_to_learn_from() -> None:
    assert share_out(SearchConfig(trials=14), [CPU_HEAD]) == Share(cpus=5, gpus=0, workers=1, concurrent=3)
    assert share_out(SearchConfig(trials=14, max_concurrent=14), [CPU_HEAD]).concurrent == 14


@pytest.mark.parametrize(
    ("gpus_per_trial", "nodes", "reason"),
    [
        (3, [{"CPU": 4, "GPU": 2}], "2 GPUs"),
        (3, [{"CPU": 2}], "no GPU, and only 2 CPU cores"),
        (1, [{"CPU": 0}], "no GPU, and only 0 CPU cores"),
        (0.5, [{}], "no GPU, and only 0 CPU cores"),
        (2, [{"CPU": 0, "GPU": 4}], "no node offers a CPU core.*--num-cpus=1"),
    ],
)
def test_refusals(gpus_per_trial: float, nodes: list[dict[str, float]], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        share_out(SearchConfig(gpus_per_trial=gpus_per_trial), nodes)


@pytest.mark.parametrize(
    ("told", "threads"), [(None, 4), ("2", 2), ("8", 4), ("3,2", 3), ("0", 4), ("", 4), ("many", 4)]
)
def test_a_worker_has_no_more_threads_than_the_driver_is_told(
    told: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert Share(4, gpus=1, workers=1, concurrent=1).threads == threads


@pytest.mark.parametrize("cpus", [0, 0.5, 1, 3])
def test_a_worker_has_a_thread_at_least(cpus: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Share(cpus, gpus=1, workers=1, concurrent=1).threads == max(1, cpus // 1)
