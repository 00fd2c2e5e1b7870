"""Which losses are put down to nodes: what Ray says comes from a table here, and from real machines in
`tests/integration/test_three_hosts.py`."""

from __future__ import annotations

import itertools

import pytest

from raylora.execution.dead_nodes import HEARD_WITHIN_S, LOOK_S, DeadNodes, Node

HEAD = Node("id-of-the-head", "10.0.0.1", is_alive=True)
DIES = {"id-of-a-node": "10.0.0.2"}


class Ray:
    """What the head knows by now, and the time by now."""

    def __init__(self) -> None:
        self.dead: dict[str, str] = {}
        self.alive = [HEAD, Node("id-of-another", "10.0.0.3", is_alive=True)]
        self.now_s = 0.0
        self.nodes = DeadNodes(self.known, lambda: self.now_s)

    def known(self) -> list[Node]:
        return [*self.alive, *(Node(node, address, is_alive=False) for node, address in self.dead.items())]

    def told_after(self, seconds: float) -> list[tuple[int, int]]:
        self.now_s += seconds
        return list(self.nodes.told())


@pytest.fixture
def ray() -> Ray:
    ray = Ray()
    list(ray.nodes.told())
    return ray


def test_a_process_lost_while_it_was_created_went_with_a_node_that_is_found_dead_later(ray: Ray) -> None:
    ray.nodes.lose(3, 0)
    assert ray.told_after(LOOK_S) == []
    ray.dead.update(DIES)
    assert ray.told_after(LOOK_S) == [(3, 0)]
    assert ray.told_after(LOOK_S) == []


def test_a_node_that_was_dead_before_explains_nothing(ray: Ray) -> None:
    ray.dead.update(DIES)
    assert ray.told_after(LOOK_S) == []
    ray.nodes.lose(3, 0)
    assert ray.told_after(LOOK_S) == []


def test_a_death_long_after_a_loss_explains_nothing(ray: Ray) -> None:
    ray.nodes.lose(3, 0)
    assert ray.told_after(HEARD_WITHIN_S + 1) == []
    ray.dead.update(DIES)
    assert ray.told_after(LOOK_S) == []


def test_each_loss_of_a_trial_is_its_own(ray: Ray) -> None:
    for place in range(2):
        ray.nodes.lose(3, place)
    ray.dead.update(DIES)
    assert ray.told_after(LOOK_S) == [(3, 0), (3, 1)]


def test_at_last_a_death_is_waited_for(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = itertools.count()

    def pass_time(seconds: float) -> None:
        ray.now_s += seconds
        if next(pauses) == 3:
            ray.dead.update(DIES)

    monkeypatch.setattr("raylora.execution.dead_nodes.time.sleep", pass_time)
    ray.nodes.lose(3, 0)
    ray.nodes.lose(4, 1)
    assert list(ray.nodes.told_at_last()) == [(3, 0), (4, 1)]
    ray.nodes.lose(5, 0)
    assert list(ray.nodes.told_at_last()) == []
    assert ray.now_s > HEARD_WITHIN_S


def test_a_trial_with_workers_elsewhere_goes_with_any_node_that_dies_after_its_beginning(ray: Ray) -> None:
    """Ray's head may know of the death before the trial's own process sees that a worker is gone."""
    ray.nodes.begin(3, object(), is_spread=True)
    assert ray.nodes.where(3) is None
    ray.dead.update(DIES)
    assert ray.told_after(LOOK_S) == []
    ray.nodes.lose(3, 0)
    assert ray.told_after(LOOK_S) == [(3, 0)]


def test_where_there_is_one_node_there_is_no_doubt_and_nothing_to_wait_for(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raylora.execution.dead_nodes.time.sleep", pytest.fail)
    ray.alive = [HEAD]
    ray.nodes.lose(3, 0)
    assert not ray.nodes.is_in_doubt
    assert list(ray.nodes.told_at_last()) == []
