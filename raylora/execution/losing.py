"""Lost workers: what ended them and in whose words, and how many of a trial's are too many."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST_LOSSES = 10
"""Lost workers in a row, without a report between, after which a trial is given up: it may be what ends them."""
MOST_ALIKE = 3
"""How often in a row, without a report between, the device of a trial's only process may say the same: no other place
mends that."""
LAST_FAULT = "last_fault"
"""In what a trial is told: what was said when its worker was last lost, and how often in a row."""
CAUSES = {"memory": ("low on memory",), "node": ("node has died", "node died", "Node failed")}
"""What Ray says of a lost worker's end (`src/ray/protobuf/common.proto`, `ActorDiedErrorContext`), by its cause.
What the operating system killed for memory it tells like any other kill."""
OF_THE_DEVICE = ("CUDA error", "cuDNN error", "NCCL error", "CUBLAS_STATUS", "gloo/transport", "closed by peer")
"""Parts of torch's messages when a GPU, or another worker, has failed: its process can do nothing more with it."""
LONGEST_WORDS, LONGEST_LINE = 300, 240
"""Characters of what was said of a loss: in a record, and in a line of news."""
RAISED_BY_US = re.compile(r"^[\w.]*WorkerLostError: ")
NUMBERS = re.compile(r"0x[\da-f]+|\d+", re.IGNORECASE)
"""What differs where the same is said again: ports, addresses, processes."""


def error_of(trial: Any) -> str:
    """What Ray says of a trial's last loss; nothing if it can't be read.

    It adds each to a file of the driver's; `Trial.get_error` looks for that where it only lies after a snapshot.
    """
    with suppress(OSError):
        if trial.error_file:
            told = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
            return told.rpartition("Failure # ")[2].partition("\n")[2].strip()
    return ""


def cause_of_loss(error: str) -> str:
    """What ended a worker, by Ray's words: `memory`, `node`, or `worker` where all that is known is that it is gone."""
    return next((cause for cause, told in CAUSES.items() if any(part in error for part in told)), "worker")


def words_of_loss(error: str) -> str:
    """The line of Ray's or torch's many that says most: the one that tells the cause, or else the last."""
    lines = [" ".join(line.split()) for line in error.splitlines() if line.strip()]
    causes = [part for told in CAUSES.values() for part in told]
    telling = [line for line in lines if any(part in line for part in causes)] or lines[-1:]
    return shortened(RAISED_BY_US.sub("", telling[0]), LONGEST_WORDS) if telling else ""


def shortened(text: str, most: int) -> str:
    """The text, or its beginning with an ellipsis where it has more characters."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def is_of_device(words: str) -> bool:
    """Whether torch says this of a GPU, or of another worker."""
    return any(part in words for part in OF_THE_DEVICE)


def is_lasting(reason: str, config: Mapping[str, Any]) -> bool:
    """Whether a trial's device says the same as often as is enough.

    Args:
        reason: why the worker is to be given up now.
        config: what the trial was told, with `LAST_FAULT` if it was lost before.
    """
    words, times = config.get(LAST_FAULT, ("", 0))
    return is_of_device(reason) and _alike(words, reason) and times + 1 >= MOST_ALIKE


def _alike(one: str, other: str) -> bool:
    """The same but for numbers, as far as both are kept."""
    first, second = (NUMBERS.sub("#", shortened(text, LONGEST_WORDS))[:LONGEST_LINE] for text in (one, other))
    return first == second


class Losses:
    """Counts the lost workers of a round's trials.

    A process that was lost before it had its trial is nobody's fault but the cluster's, and counted apart.
    """

    def __init__(self) -> None:
        self._begun: set[int] = set()
        self._in_a_row: Counter[int] = Counter()
        self._unbegun: Counter[int] = Counter()
        self._faults: dict[int, tuple[str, int]] = {}

    def begin(self, number: int) -> None:
        """A trial has a process: it can be done."""
        self._begun.add(number)
        self._unbegun.clear()

    def report(self, number: int) -> None:
        """A trial has come further: what was lost before is made up for."""
        del self._in_a_row[number]
        self._faults.pop(number, None)

    def lose(self, number: int, words: str) -> None:
        """The process of a trial, or one that was to be it, is gone.

        Args:
            words: what was said of it.
        """
        if number not in self._begun:
            self._unbegun[number] += 1
            return
        self._begun.discard(number)
        self._in_a_row[number] += 1
        before, times = self._faults.get(number, ("", 0))
        self._faults[number] = (words, times + 1 if _alike(before, words) else 1)

    def in_a_row(self, number: int) -> int:
        """Losses of a trial's own since its last report."""
        return self._in_a_row[number]

    def last_fault(self, number: int) -> tuple[str, int]:
        """What was said of a trial's last loss, and how often in a row; see `LAST_FAULT`."""
        return self._faults.get(number, ("", 0))

    def nothing_begins(self, number: int) -> bool:
        """Whether processes for this trial were lost too often since any trial began."""
        return self._unbegun[number] >= MOST_LOSSES
