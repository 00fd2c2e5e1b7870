"""Which lost workers went with their nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray

LOOK_S, PAUSE_S = 5.0, 1.0
HEARD_WITHIN_S = 75.0
"""Ray's head takes a node for dead once it has left five questions unanswered: one every 3 s, each for 10 s at most."""


@dataclass(frozen=True)
class _Doubt:
    """A loss that may have been a node's."""

    number: int
    place: int
    address: str | None
    """Where the trial was; None of one that never came to say so, or has workers elsewhere, which any node's death
    then explains: its process may have been lost while it was being created."""
    dead_before: frozenset[str]
    until_s: float


class Node(NamedTuple):
    """A node that Ray knows or has known; a machine that comes back is another one."""

    id: str
    address: str
    is_alive: bool


def nodes_of_ray() -> list[Node]:
    """All that the connected cluster has had."""
    return [Node(node["NodeID"], node["NodeManagerAddress"], node["Alive"]) for node in ray.nodes()]


def _dead(nodes: Sequence[Node]) -> dict[str, str]:
    """Their addresses by their ids."""
    return {node.id: node.address for node in nodes if not node.is_alive}


class DeadNodes:
    """Tells losses that were a node's death, seconds after they came.

    Where a machine's power is cut, all that Ray can say of its workers at first is that connections broke; the same is
    said of a worker that was killed by itself. Only later does it know that the node is gone, and tells nobody. Where
    the cluster has had one node alone, it is the driver's own, which can't die without it: there is no doubt.

    Args:
        nodes: those that Ray's head knows by now.
        clock: seconds, of any beginning.
    """

    def __init__(self, nodes: Callable[[], Sequence[Node]], clock: Callable[[], float] = time.monotonic):
        self._nodes, self._clock = nodes, clock
        self._began: dict[int, tuple[Any, frozenset[str]]] = {}
        self._doubts: list[_Doubt] = []
        self._look, self._seen = clock(), frozenset[str]()

    def begin(self, number: int, actor: Any, is_spread: bool = False) -> None:
        """A trial begins in this process of Tune's, if Tune knows it. It is asked where it is, and not waited for.

        Args:
            is_spread: whether it has workers elsewhere: then that process's place says nothing.
        """
        if actor is not None:
            answer = None if is_spread else actor.get_current_ip_pid.remote()
            self._began[number] = (answer, frozenset(_dead(self._nodes())))

    def where(self, number: int) -> str | None:
        """Address of the node that a trial is on; None where that isn't known, or the cluster has no other."""
        answer, _ = self._began.get(number, (None, None))
        return _address(answer) if len(self._nodes()) > 1 else None

    def lose(self, number: int, place: int) -> None:
        """A trial's process was lost.

        Args:
            place: of the loss among the trial's.
        """
        answer, dead_before = self._began.pop(number, (None, self._seen))
        if len(self._nodes()) < 2:
            return
        until_s = self._clock() + HEARD_WITHIN_S
        self._doubts.append(_Doubt(number, place, _address(answer), dead_before, until_s))

    def end(self, number: int) -> None:
        """A trial has ended."""
        self._began.pop(number, None)

    def told(self) -> Iterator[tuple[int, int]]:
        """Numbers of trials, and the places of losses, that by now are known to have been a node's.

        To be called all along: of a trial that is lost before it began, deaths since the last call count.
        """
        if self._clock() >= self._look:
            self._look = self._clock() + LOOK_S
            yield from self._known()

    @property
    def is_in_doubt(self) -> bool:
        """Whether there are losses of which more may become known."""
        return bool(self._doubts)

    def told_at_last(self) -> Iterator[tuple[int, int]]:
        """The same of all that is left. Of losses of the last minute, Ray's head is waited for."""
        while self._doubts:
            yield from self._known()
            if self._doubts:
                time.sleep(PAUSE_S)

    def _known(self) -> Iterator[tuple[int, int]]:
        dead, doubts = _dead(self._nodes()), self._doubts
        self._doubts, self._seen = [], frozenset(dead)
        for doubt in doubts:
            since = {at for node, at in dead.items() if node not in doubt.dead_before}
            if doubt.address in since or (doubt.address is None and since):
                yield doubt.number, doubt.place
            elif self._clock() < doubt.until_s:
                self._doubts.append(doubt)


def _address(answer: Any) -> str | None:
    """Where a process was, if it ever came to say so."""
    if answer is None:
        return None
    with suppress(ray.exceptions.RayError):
        if ray.wait([answer], timeout=0)[0]:
            address, _ = ray.get(answer)
            return str(address)
    return None
