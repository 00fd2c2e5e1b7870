"""Which lost workers went with their nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

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
    """Where the trial was; None of one that never came to say so, which any node's death then explains: its process
    may have been lost while it was being created."""
    dead_before: frozenset[str]
    until_s: float


def dead_nodes() -> dict[str, str]:
    """The addresses of dead nodes, by their ids; a machine that comes back is another node."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if not node["Alive"]}


class DeadNodes:
    """Tells losses that were a node's death, seconds after they came.

    Where a machine's power is cut, all that Ray can say of its workers at first is that connections broke; the same is
    said of a worker that was killed by itself. Only later does it know that the node is gone, and tells nobody.

    Args:
        dead: the addresses of nodes that Ray's head takes for dead by now, by their ids.
        clock: seconds, of any beginning.
    """

    def __init__(self, dead: Callable[[], Mapping[str, str]], clock: Callable[[], float] = time.monotonic):
        self._dead, self._clock = dead, clock
        self._began: dict[int, tuple[Any, frozenset[str]]] = {}
        self._doubts: list[_Doubt] = []
        self._look, self._seen = clock(), frozenset[str]()

    def begin(self, number: int, actor: Any) -> None:
        """A trial begins in this process of Tune's, if Tune knows it. It is asked where it is, and not waited for."""
        if actor is not None:
            self._began[number] = (actor.get_current_ip_pid.remote(), frozenset(self._dead()))

    def lose(self, number: int, place: int) -> None:
        """A trial's process was lost.

        Args:
            place: of the loss among the trial's.
        """
        answer, dead_before = self._began.pop(number, (None, self._seen))
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

    def told_at_last(self) -> Iterator[tuple[int, int]]:
        """The same of all that is left. Of losses of the last minute, Ray's head is waited for."""
        while self._doubts:
            yield from self._known()
            if self._doubts:
                time.sleep(PAUSE_S)

    def _known(self) -> Iterator[tuple[int, int]]:
        dead, doubts = self._dead(), self._doubts
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
