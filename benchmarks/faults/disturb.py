"""A search on machines, and what befalls it: which faults, and when, follows from a seed."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import Row
from benchmarks.faults.count_steps import ENCODER
from tests.hosts.ground import FAULTS, Ground, Mend
from tests.tiny import make_base, make_pictures

KINDS = ("driver", *FAULTS)
QUIET_STEPS = (20, 180)
"""Steps of training, of all trials together, in which all is well between two faults: seconds would say little, since a
process that takes up a trial needs many of them before its first step."""
AWAY_S = (1.0, 8.0)
"""How long what broke is away, before it begins to come back."""
LOG_NAME = "steps.log"
INTERVAL = 40
"""Images between two states of a trial."""
MOST_GIVE_UPS = 5
LIMIT_S = 1500
LOOK_EVERY_S = 0.2
SPACE = {
    "parameters": {
        "optimizer.unet_lr": {"low": 1e-5, "high": 1e-2, "log": True},
        "lora.rank": {"choices": [2, 4, 8]},
    }
}


def settings(trials: int, seed: int, folder: Path) -> dict[str, Any]:
    """A search of small trials on a tiny model; nothing is trained after them."""
    return {
        "seed": seed,
        "dataset": {"path": str(folder / "pictures"), "resolution": 64},
        "model": {"base_model": str(folder / "base")},
        "training": {"epochs": 20, "batch_size": 2, "checkpoint_images": INTERVAL},
        "evaluation": {"encoder": ENCODER, "timesteps": [200, 800], "score": {"w_sim": 0, "w_copy": 0}},
        "sampling": {"seeds": [0], "steps": 2},
        "search": {
            "trials": trials,
            "grace_period": 80,
            "startup_trials": 4,
            "max_concurrent": trials,
            "confirm_trials": 0,
            "refit": False,
        },
    }


class Driver:
    """`raylora tune` on a ground, and `raylora resume` as often as it is needed.

    Args:
        folder: for everything of the search; `steps.log` in it is where steps are noted.
    """

    def __init__(self, ground: Ground, trials: int, seed: int, folder: Path):
        self.out, self._log, self._ground, self.gave_up = folder / "out", folder / LOG_NAME, ground, list[str]()
        make_base(folder / "base")
        make_pictures(folder / "pictures" / "2_sks", 12)
        (folder / "experiment.yaml").write_text(yaml.safe_dump(settings(trials, seed, folder)))
        (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
        where = ["--address", ground.ray.address, "--tracking-uri", ground.services.mlflow.uri, "--out", self.out]
        what = [folder / "experiment.yaml", "--space", folder / "space.yaml"]
        self._program = ground.ray.drive("tune", *what, *where)

    def keep_going(self) -> bool:
        """Whether there is anything left to disturb. A search that gave up by itself is told to go on.

        Raises:
            SystemExit: it never began, or gives up again and again.
        """
        if self._program.status is None:
            return True
        if self._program.status == 0:
            return False
        self.gave_up.append(self._program.tail().strip().splitlines()[-1])
        if len(self.gave_up) > MOST_GIVE_UPS or not self.steps:
            raise SystemExit(f"raylora gave up: {self._program.tail()}")
        self.go_on()
        return True

    @property
    def steps(self) -> int:
        """Steps of training so far, of all trials together."""
        return self._log.read_bytes().count(b"\n") if self._log.is_file() else 0

    def kill(self) -> Mend:
        """End it at once; mending goes on from what it left."""
        self._program.kill()
        return self.go_on

    def go_on(self) -> None:
        self._program = self._ground.ray.drive("resume", self.out, "--address", self._ground.ray.address)


@dataclass(frozen=True)
class Schedule:
    """Faults in the order of their coming: kinds, all alike often, and what lies between."""

    seed: int
    count: int

    def __iter__(self) -> Iterator[tuple[str, int, float]]:
        """Kind, steps of training before it, seconds until what it broke begins to be mended."""
        drawn = random.Random(f"faults {self.seed}")
        deck = [KINDS[place % len(KINDS)] for place in range(self.count)]
        drawn.shuffle(deck)
        return iter([(kind, drawn.randint(*QUIET_STEPS), drawn.uniform(*AWAY_S)) for kind in deck])


def run_to_its_end(driver: Driver, ground: Ground, schedule: Schedule) -> list[Row]:
    """Let a search run and break what the schedule says; returns the faults that came before its end.

    Raises:
        SystemExit: it doesn't end.
    """
    began, choose, told = time.monotonic(), random.Random(schedule.seed), list[Row]()
    for kind, quiet_steps, away_s in schedule:
        enough = driver.steps + quiet_steps
        if not _watch(driver, began, enough):
            break
        mend = driver.kill() if kind == "driver" else FAULTS[kind](ground, choose)
        if mend is None:  # no trial had a process just then
            continue
        at_s = time.monotonic() - began
        time.sleep(away_s)
        mend()
        back_s = time.monotonic() - began
        told.append({"fault": kind, "at_step": enough, "at_s": round(at_s, 1), "back_s": round(back_s, 1)})
    _watch(driver, began, math.inf)
    return told


def _watch(driver: Driver, began: float, steps: float) -> bool:
    """Wait until so many steps were trained, True, or the search has ended, False."""
    while driver.keep_going():
        if driver.steps >= steps:
            return True
        if time.monotonic() - began > LIMIT_S:
            raise SystemExit(f"the search has not ended after {LIMIT_S} s")
        time.sleep(LOOK_EVERY_S)
    return False


def kinds_of(faults: Sequence[Row]) -> dict[str, int]:
    """How many of each kind."""
    return {kind: sum(fault["fault"] == kind for fault in faults) for kind in KINDS}
