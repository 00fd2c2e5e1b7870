"""A Ray cluster of two nodes, and the way back to it."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray

from raylora.errors import ConfigError
from raylora.execution import gpu_share
from raylora.execution.cluster import connected, node_resources
from raylora.execution.nodes import check_shared, on_every_node
from raylora.execution.outputs import OutFolder
from raylora.execution.tuner import resume_job
from raylora.tracking.recorder import Listeners
from tests.clusters import cluster_of

NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    cluster = cluster_of({"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 1})  # so it says
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def test_every_node_must_see_what_trials_read(two_nodes: str, tmp_path: Path) -> None:
    with connected(two_nodes, with_state_api=False):
        assert len(node_resources()) == 2
        check_shared([tmp_path])
        with pytest.raises(ConfigError, match=r"missing: the cluster's node \S+, \w+ doesn't have it.*all share"):
            check_shared([tmp_path, tmp_path / "missing"])


def test_a_node_that_gives_no_answer_is_named(two_nodes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lacks what it is asked to run, as nodes without raylora do, has died, or hangs."""
    node = r"the cluster's node \S+, \w+"
    with connected(two_nodes, with_state_api=False):
        (tmp_path / "not_there.py").write_text("def ask(): pass")
        monkeypatch.syspath_prepend(str(tmp_path))  # of this process alone
        lacks = importlib.import_module("not_there").ask
        with pytest.raises(ConfigError, match=rf"{node} can't do raylora's work \(.*not_there.*\); `raylora doctor "):
            on_every_node(lacks)
        monkeypatch.setattr(gpu_share, "_memory_here", lacks)
        assert gpu_share._memories(0.5) == {}
        with pytest.raises(ConfigError, match=rf"{node} gives no answer \(.*worker.*\); `raylora doctor "):
            on_every_node(partial(os._exit, 1))
        with pytest.raises(ConfigError, match=rf"{node} gives no answer; `raylora doctor --address auto`"):
            on_every_node(partial(time.sleep, 600), limit_s=1.0)


def test_a_search_goes_on_where_it_began(tmp_path: Path) -> None:
    out = OutFolder(tmp_path)
    out.space.touch()
    out.write_state("interrupted", tracking_uri="sqlite:///nothing.db", parent_run_id="1", address=NOWHERE)
    with pytest.raises(ConfigError, match=rf"--address {NOWHERE}: no Ray cluster answers.*--address local"):
        resume_job(tmp_path, Listeners([]), print)
    with pytest.raises(ConfigError, match="--address auto-mobile"):
        resume_job(tmp_path, Listeners([]), print, "auto-mobile:1")


def test_what_listens_and_is_no_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise RuntimeError("Failed to connect to GCS.\nCheck that it runs.")

    monkeypatch.setattr(ray, "init", init)
    told = r"--address host:1: no Ray cluster answers there \(Failed to connect to GCS\.?\)"
    with pytest.raises(ConfigError, match=told), connected("host:1", with_state_api=False):
        raise AssertionError("it began")
