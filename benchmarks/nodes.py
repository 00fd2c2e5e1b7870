"""Do twice the nodes end twice the trials?

A whole search whose trials sleep for a fixed time (see `simulated`), nothing stopped early, on 1, 2, 4 and 8 of Ray's
pretended nodes, each with one CPU and so one trial at a time, in a process in which trials follow each other. Counted
are the trials that end while every node has one: an efficiency of 1 would be sleep alone, with no time lost to reports,
proposals, and the change from trial to trial. Processor time of the driver over the same seconds is what a trial costs
it. The nodes share this machine's cores, so sleeps are long against what a process takes to begin.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.common import Row, Target, report, target
from benchmarks.simulated import (
    ENDED,
    STARTED,
    Simulation,
    driver,
    ends,
    new_job,
    news,
    rungs_of,
    sender_of,
    settled,
    spent,
)

NODES, QUICK_NODES = (1, 2, 4, 8), (1, 4)
TRIAL_S, QUICK_TRIAL_S = 20.0, 6.0
WAVES, QUICK_WAVES = 4, 2
"""Trials of each node that count."""
WARM, QUICK_WARM = 2, 1
"""Those before, while nodes start their processes. One more runs on each when the last that counts ends."""
GOAL_EFFICIENCY = 0.9


@dataclass(frozen=True)
class Plan:
    """How long a trial sleeps, and how many trials of each node come before those that count, and count."""

    trial_s: float
    warm: int
    waves: int


def measure(nodes: int, plan: Plan, work: Path) -> list[Row]:
    """A search on so many nodes; returns its row, and the one that says whether all was kept."""
    from ray.cluster_utils import Cluster

    trials = nodes * (plan.warm + plan.waves + 1)
    simulation = Simulation(trials, nodes, plan.trial_s / rungs_of_a_trial(), jitter=0.0, scheduler="none")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        out = work / f"out-{nodes}"
        with driver(out, cluster.address, simulation) as child:
            row = watch(child, nodes, plan)
            for _ in ends(child, nodes):
                pass
            kept = settled(out, trials)
    finally:
        cluster.shutdown()
    ideal = nodes * 60 / plan.trial_s
    row |= {"ideal_per_minute": ideal, "efficiency": row["trials_per_minute"] / ideal}
    return [row, {**kept, "nodes": nodes}]


def rungs_of_a_trial() -> int:
    """How often a trial reports."""
    return len(rungs_of(new_job(Simulation(1, 1, 0.0)).experiment))


def watch(child: subprocess.Popen[str], nodes: int, plan: Plan) -> Row:
    """Trials that end while every node has one, by the clock and by the processes' time.

    Raises:
        SystemExit: a node had not begun when the counting did.
    """
    driving, began, before = psutil.Process(child.pid), 0.0, list[Row]()
    counted, heard = nodes * plan.waves, Counter[str]()
    for word in news(child):
        heard[word] += 1
        if word == ENDED and heard[ENDED] == nodes * plan.warm:
            if heard[STARTED] - heard[ENDED] < nodes - 1:  # the one that has ended makes room
                raise SystemExit("not every node had a trial yet when the counting began: this machine is too busy")
            began, before = time.monotonic(), [spent(driving), spent(sender_of(driving))]
        if word == ENDED and heard[ENDED] == nodes * plan.warm + counted:
            break
    took, after = time.monotonic() - began, [spent(driving), spent(sender_of(driving))]
    own_s, sender_s = (now["processor_s"] - then["processor_s"] for now, then in zip(after, before, strict=True))
    return {
        "table": "nodes",
        "nodes": nodes,
        "trials": counted,
        "seconds": took,
        "trials_per_minute": 60 * counted / took,
        "driver_ms_per_trial": 1000 * own_s / counted,
        "sender_ms_per_trial": 1000 * sender_s / counted,
    }


def targets_of(rows: list[Row]) -> dict[str, Target]:
    """What was promised of the largest cluster, and what came; what the driver does for a trial has no goal here."""
    last = [row for row in rows if row["table"] == "nodes"][-1]
    efficiency, wrong = last["efficiency"], sum(row["wrong"] for row in rows if row["table"] == "kept")
    goal = f">= {GOAL_EFFICIENCY}"
    return {
        f"efficiency_{last['nodes']}_nodes": target(efficiency, goal, efficiency >= GOAL_EFFICIENCY),
        "missing_or_doubled": target(wrong, "= 0", wrong == 0),
        "driver_ms_per_trial": target(last["driver_ms_per_trial"], "none; see scale", None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 and 4 nodes, with shorter and fewer trials")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    plan = Plan(QUICK_TRIAL_S, QUICK_WARM, QUICK_WAVES) if options.quick else Plan(TRIAL_S, WARM, WAVES)
    work = Path(tempfile.mkdtemp(prefix="raylora-nodes-"))
    print(f"the searches and their drivers' logs: {work}", flush=True)
    rows = [row for nodes in (QUICK_NODES if options.quick else NODES) for row in measure(nodes, plan, work)]
    report("nodes", rows, targets_of(rows), options.json)


if __name__ == "__main__":
    main()
