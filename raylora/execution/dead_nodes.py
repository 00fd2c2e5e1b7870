"""Which lost workers went with their nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

LOOK_S = 5.0
HEARD_WITHIN_S = 120.0
"""Ray's head takes a node for dead once that has missed five questions, each some seconds after the other."""


@dataclass(frozen=True)
class _Doubt:
    """A loss that may have been a node's."""

    number: int
    place: int
    address: str
    dead_before: frozenset[str]
    until_s: float


class DeadNodes:
    """Tells losses that were a node's death, seconds after they came.

    Where a machine's power is cut, all that Ray can say of its workers at first is that connections broke; the same is
    said of a worker that was killed by itself. Only later does it know that the node is gone, and tells nobody.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._began: dict[int, tuple[Any, frozenset[str]]] = {}
        self._doubts: list[_Doubt] = []
        self._look = clock()

    def begin(self, number: int, actor: Any) -> None:
        """A trial begins in this process of Tune's, if Tune knows it. It is asked where it is, and not waited for."""
        if actor is not None:
            self._began[number] = (actor.get_current_ip_pid.remote(), frozenset(_dead()))

    def lose(self, number: int, place: int) -> None:
        """A trial's process was lost.

        Args:
            place: of the loss among the trial's.
        """
        answer, dead_before = self._began.pop(number, (None, frozenset()))
        if (address := _address(answer)) is not None:
            self._doubts.append(_Doubt(number, place, address, dead_before, self._clock() + HEARD_WITHIN_S))

    def end(self, number: int) -> None:
        """A trial has ended."""
        self._began.pop(number, None)

    def told(self, at_once: bool = False) -> Iterator[tuple[int, int]]:
        """Numbers of trials, and the places of losses, that by now are known to have been a node's.

        Args:
            at_once: ask Ray even if it was asked a moment ago.
        """
        if not self._doubts or (self._clock() < self._look and not at_once):
            return
        self._look = self._clock() + LOOK_S
        dead, doubts = _dead(), self._doubts
        self._doubts = []
        for doubt in doubts:
            if any(at == doubt.address and node not in doubt.dead_before for node, at in dead.items()):
                yield doubt.number, doubt.place
            elif self._clock() < doubt.until_s:
                self._doubts.append(doubt)


def _dead() -> dict[str, str]:
    """The addresses of dead nodes, by their ids; a machine that comes back is another node."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if not node["Alive"]}


def _address(answer: Any) -> str | None:
    """Where a process was, if it ever came to say so."""
    with suppress(ray.exceptions.RayError):
        if answer is not None and ray.wait([answer], timeout=0)[0]:
            address, _ = ray.get(answer)
            return str(address)
    return None
