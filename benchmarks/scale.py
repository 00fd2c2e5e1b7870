"""Does a search's driver bear a thousand trials, 64 at once?

A whole search of the demo whose trials don't train (see `simulated`). The driver is watched from outside. It is killed
while its last trials run, and a second one resumes: timed from the start of its process to the first trial that it
starts, and let go on until all trials have ended. Then study, records and MLflow must hold each trial once. What writes
to MLflow is a process of its own beside the driver; its time and memory are rows, not targets.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.common import Row, Target, report, target
from benchmarks.simulated import STARTED, Simulation, driver, ends, news, sender_of, settled, spent

WARM_TRIALS = 100
"""Trials after which a driver's memory should grow no more."""
GOAL_GROWTH_MIB, GOAL_DRIVER_MS, GOAL_RESUME_S = 1, 50, 10
RUNG_S, QUICK_RUNG_S = 3.0, 1.0
"""Seconds that a trial sleeps from rung to rung, on average."""


def watch(child: subprocess.Popen[str], count: int) -> list[Row]:
    """Processor time and memory of driver and sender at every hundredth trial's end, and at the last."""
    process, rows = psutil.Process(child.pid), []
    sender: psutil.Process | None = None
    for done in ends(child, count):
        sender = sender or sender_of(process)
        if done % WARM_TRIALS == 0 or done == count:
            row = {"table": "driver", "trials": done, **spent(process)}
            rows.append(row | {f"sender_{name}": value for name, value in spent(sender).items()})
    return rows


def first_start_s(child: subprocess.Popen[str], began: float) -> float:
    for word in news(child):
        if word == STARTED:
            break
    return time.monotonic() - began


def measure(work: Path, simulation: Simulation) -> list[Row]:
    """Both drivers, one after the other, on a cluster that outlives them."""
    from ray.cluster_utils import Cluster

    out, trials, at_once = work / "out", simulation.trials, simulation.at_once
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": at_once})
    try:
        with driver(out, cluster.address, simulation) as child:
            rows = watch(child, trials - at_once)
        began = time.monotonic()
        with driver(out, cluster.address, simulation) as child:
            first_s = first_start_s(child, began)
            resumed = {"table": "resume", "first_trial_s": first_s, **spent(psutil.Process(child.pid))}
            for _ in ends(child, at_once):
                pass
            kept = settled(out, trials)
    finally:
        cluster.shutdown()
    return [*rows, resumed, kept]


def targets_of(rows: list[Row]) -> dict[str, Target]:
    """What was promised of the rows, and what came."""
    *_, resumed, kept = rows
    warm, last = rows[0], [row for row in rows if row["table"] == "driver"][-1]
    trials = last["trials"] - warm["trials"]
    driver_ms = 1000 * (last["processor_s"] - warm["processor_s"]) / trials
    growth, resume_s = 100 * (last["rss_mib"] - warm["rss_mib"]) / trials, resumed["first_trial_s"]
    return {
        "driver_ms_per_trial": target(driver_ms, f"<= {GOAL_DRIVER_MS}", driver_ms <= GOAL_DRIVER_MS),
        "memory_growth_mib_per_100_trials": target(growth, f"<= {GOAL_GROWTH_MIB}", growth <= GOAL_GROWTH_MIB),
        "resume_s": target(resume_s, f"<= {GOAL_RESUME_S}", resume_s <= GOAL_RESUME_S),
        "missing_or_doubled": target(kept["wrong"], "= 0", kept["wrong"] == 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 trials, 8 at once, with shorter sleeps")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=64)
    options = parser.parse_args()
    simulation = Simulation(options.trials, options.at_once, RUNG_S)
    if options.quick:
        simulation = Simulation(200, 8, QUICK_RUNG_S)
    work = Path(tempfile.mkdtemp(prefix="raylora-scale-"))
    print(f"the search and its drivers' log: {work}", flush=True)
    rows = measure(work, simulation)
    report("scale", rows, targets_of(rows), options.json)


if __name__ == "__main__":
    main()
