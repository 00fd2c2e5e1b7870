"""Is anything lost, doubled or trained twice while machines, servers and the driver die?

A search of 24 small trials on three worker machines, with MLflow on PostgreSQL and S3, all of them real and apart from
each other (`tests.hosts`). At moments drawn from a seed a process of a trial, a worker's machine, the driver, MLflow's
server or the database is killed without a word, and brought back seconds later; a killed driver is gone on with by
`raylora resume`. Then every trial must have ended, once in the study, once on disk and once in MLflow; and no image may
have been trained again beyond those since the last state of a trial that a fault broke off (see `count_steps`). The
best score is compared with those of the same searches left in peace. Needs root on Linux, for network namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.common import Row, Target, report, target
from benchmarks.faults.count_steps import LOG_VARIABLE
from benchmarks.faults.counting import again_of, best_of, kept_of, read_steps
from benchmarks.faults.disturb import INTERVAL, LOG_NAME, Driver, Schedule, kinds_of, run_to_its_end
from tests.hosts.ground import ground
from tests.hosts.namespaces import why_no_namespaces

TRIALS, WORKERS = 24, 3
SEEDS, FAULTS = 5, 8
QUICK_TRIALS, QUICK_FAULTS = 8, 4
GOAL_SPREADS = 2.0
"""How many standard deviations of undisturbed searches' best scores the worst disturbed one may be below their mean."""


def run_search(seed: int, trials: int, faults: int, work: Path) -> Row:
    """A search, disturbed so many times, on machines of its own; what became of it."""
    folder = work / f"seed-{seed}-{'disturbed' if faults else 'in-peace'}"
    folder.mkdir()
    began = time.monotonic()
    with ground(WORKERS, {LOG_VARIABLE: str(folder / LOG_NAME)}) as made:
        driver = Driver(made, trials, seed, folder)
        told = run_to_its_end(driver, made, Schedule(seed, faults))
        kept = kept_of(driver.out, trials)
    row = {
        "table": "disturbed" if faults else "in peace",
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "faults": len(told),
        **kinds_of(told),
        "gave_up": len(driver.gave_up),
        **kept,
        **again_of(read_steps(folder / LOG_NAME), INTERVAL),
        **best_of(driver.out),
        "schedule": told,
        "gave_up_because": driver.gave_up,
    }
    print(json.dumps(row), flush=True)  # whatever becomes of those after it
    return row


def targets_of(rows: list[Row]) -> dict[str, Target]:
    """What was promised, and what came. A trial that failed was lost, too: none of these fails by itself."""
    disturbed = [row for row in rows if row["table"] == "disturbed"]
    lost = sum(row["missing"] + row["failed"] for row in disturbed)
    doubled, twice = (sum(row[name] for row in disturbed) for name in ("doubled", "trained_twice"))
    return {
        "lost": target(lost, "= 0", lost == 0),
        "doubled": target(doubled, "= 0", doubled == 0),
        "trained_twice": target(twice, "= 0", twice == 0),
        "best_below_undisturbed_sd": _below([row["best"] for row in rows if row["table"] == "in peace"], disturbed),
        "faults": target(sum(row["faults"] for row in disturbed), f">= {SEEDS * FAULTS - SEEDS} in the full run", None),
    }


def _below(in_peace: list[float], disturbed: list[Row]) -> Target:
    """How far the worst best score lies below the mean of undisturbed ones, in their standard deviations."""
    if len(in_peace) < 2:
        return target(None, f"<= {GOAL_SPREADS:g}", None)
    mean, spread = statistics.mean(in_peace), statistics.stdev(in_peace)
    worst = max((mean - row["best"]) / spread for row in disturbed)
    return target(worst, f"<= {GOAL_SPREADS:g}", worst <= GOAL_SPREADS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 seed, 8 trials and 4 faults")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--in-peace", type=int, default=SEEDS, help="searches left in peace, of the first seeds")
    parser.add_argument("--faults", type=int, default=FAULTS, help="in each search")
    options = parser.parse_args()
    if why := why_no_namespaces():
        raise SystemExit(f"machines can't be made here: {why}")
    os.environ["NO_PROXY"] = "*"  # this process reads what the servers have
    work = Path(tempfile.mkdtemp(prefix="raylora-faults-"))
    print(f"the searches: {work}", flush=True)
    seeds, trials, faults = (
        (1, QUICK_TRIALS, QUICK_FAULTS) if options.quick else (options.seeds, TRIALS, options.faults)
    )
    rows = [
        run_search(seed, trials, count, work)
        for seed in range(seeds)
        for count in (0, faults)
        if count or seed < options.in_peace
    ]
    report("faults", rows, targets_of(rows), options.json)


if __name__ == "__main__":
    main()
