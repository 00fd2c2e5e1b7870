"""What became of a search: trials lost or doubled, images trained again, and how good the best is."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Row
from benchmarks.simulated import numbers_in

PATIENCE_S = 60


@dataclass(frozen=True)
class Step:
    """One step of training: of which trial, in which process, from and to which image."""

    rate: float
    process: str
    since: int
    until: int


def read_steps(log: Path) -> list[Step]:
    """All steps of a search, in their order; a kill may have cut a line short."""
    found = []
    for line in log.read_text().splitlines():
        try:
            found.append(Step(*json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def again_of(steps: Iterable[Step], interval: int) -> Row:
    """Images that were trained more than once.

    A trial that goes on in another process, or further back, has begun again. What it then repeats is due to the fault
    that broke it off, up to the interval at which states are written; what is above that was trained twice.

    Args:
        interval: images between two states of a trial.
    """
    by_trial: dict[float, list[Step]] = defaultdict(list)
    for step in steps:
        by_trial[step.rate].append(step)
    restarts = repeated = above = trained = 0
    for own in by_trial.values():
        trained += sum(step.until - step.since for step in own)
        reached = 0
        for before, step in zip([None, *own[:-1]], own, strict=True):
            is_restart = before is not None and (step.process != before.process or step.since < before.until)
            again = max(0, reached - step.since) if is_restart else 0
            restarts, repeated, above = restarts + is_restart, repeated + again, above + max(0, again - interval)
            reached = max(reached, step.until)
    return {"images": trained, "restarts": restarts, "again": repeated, "trained_twice": above}


def kept_of(out: Path, trials: int) -> Row:
    """Trials that study, records or MLflow lack, have twice, or that failed; MLflow hears of the last ones later."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        places = numbers_in(out)
        lost = sum(len(set(range(trials)) - set(numbers)) for numbers in places.values())
        doubled = sum(count - 1 for numbers in places.values() for count in Counter(numbers).values())
        if not lost or time.monotonic() > deadline:
            return {**{name: len(numbers) for name, numbers in places.items()}, "missing": lost, "doubled": doubled}
        time.sleep(1)


def best_of(out: Path) -> Row:
    """The best score, and how many trials failed."""
    summary = json.loads((out / "summary.json").read_text())
    return {"best": summary["best"]["selection_score"], "failed": summary["trials"]["failed"]}
