"""Words for who waits: what keeps work from starting on a cluster, said after a while and then now and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial

from raylora.execution.cluster import node_resources
from raylora.execution.notes import collect_notes
from raylora.execution.share import Share

FIRST_WORD_S = 30.0
NEXT_WORD_S = 600.0
LOOK_S = 5.0
"""How often a round's trials are looked through: a search of any length has time for that."""

Needs = Mapping[str, float]
"""What a piece of work needs of one node, as Ray names it."""


class Patience:
    """Counts how long nothing starts, and says so.

    Args:
        needs: of what is to start.
        say: told.
        clock: seconds, of any beginning.
    """

    def __init__(self, needs: Needs, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self._needs, self.say, self._clock = needs, say, clock
        self.reset()

    def reset(self) -> None:
        """Something has started."""
        self._since = self._clock()
        self._next = self._since + FIRST_WORD_S

    def wait(self) -> None:
        """Nothing has started yet; said where it was time to."""
        now = self._clock()
        if now >= self._next:
            self._next = now + NEXT_WORD_S
            self.say(f"{self._reason()} …" if now - self._since < NEXT_WORD_S else
                      f"{self._reason()}, for {(now - self._since) / 60:.0f} minutes by now …")  # fmt: skip

    def _reason(self) -> str:
        if no_node_has(self._needs):
            return f"Waiting for a node with {_in_words(self._needs)}: the cluster has none yet"
        return f"Waiting for {_in_words(self._needs)}: none are free"


def no_node_has(needs: Needs) -> bool:
    """Whether no node of the connected cluster could do such work, were it idle."""
    return not any(all(node.get(name, 0) >= count for name, count in needs.items()) for node in node_resources())


def _in_words(needs: Needs) -> str:
    names = {"CPU": "CPU cores", "GPU": "of a GPU" if needs.get("GPU", 0) < 1 else "GPU"}
    named = [f"{count:g} {names[kind]}" for kind, count in sorted(needs.items(), reverse=True) if count]
    return " and ".join(named) or "anything"


def needs_of(share: Share) -> Needs:
    """Of a trial's worker."""
    return {"CPU": share.cpus, "GPU": min(1.0, share.gpus) if share.workers == 1 else float(share.gpus > 0)}


def wait_for(task: Any, needs: Needs, say: Callable[[str], None]) -> None:
    """Until a Ray task has ended; a cluster without a node for it is told of, and what the task itself has to say."""
    patience, has_ended = Patience(needs, say), False
    while not has_ended:
        has_ended = bool(ray.wait([task], timeout=FIRST_WORD_S)[0])
        for note in collect_notes():
            say(note)
        if not has_ended and no_node_has(needs):
            patience.wait()


class WaitingListener(Callback):  # type: ignore[misc]  # Ray ships no types
    """Tells of a round in which no trial runs, though some are to, and what trials that wait have to say.

    Args:
        patience: of a trial.
        clock: the same clock.
    """

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic):
        self._patience, self._clock = patience, clock
        self._look = clock()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its parts to restore them; here is nothing to keep."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._clock() < self._look:
            return
        self._look = self._clock() + LOOK_S
        for note in collect_notes():
            self._patience.say(note)
        states = {trial.status for trial in trials}
        if Trial.RUNNING in states or Trial.PENDING not in states:
            self._patience.reset()
        else:
            self._patience.wait()
