"""Can the measures be trusted? Trainings from far underfit to far overfit and of known quality, recorded and compared.

`python -m benchmarks.measures --work DIR` records all of them (about two hours on two cores; finished ones are kept, so
it can be stopped and started anew) and prints what they say. `--quick` records three cases for one style and two seeds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.common import Row, Target, report, target
from benchmarks.measures.cases import CASES, GOOD, STYLES
from benchmarks.measures.plots import draw_all
from benchmarks.measures.record import POINTS, record, record_base
from benchmarks.measures.study import (
    early_order,
    grid_sizes,
    read_study,
    sample_sizes,
    spread,
    truths,
    verdicts,
    weights,
)

SEEDS = (0, 1, 2)
QUICK_CASES = ("rate 3e-4", GOOD, "collapse")
BASE = "base model"
AT_ONCE = 2
"""Trainings side by side, one thread each."""


def recording(work: Path, style: str, case: str, seed: int) -> Path:
    return work / style / f"{case} {seed}.safetensors"


def record_all(work: Path, styles: list[str], cases: list[str], seeds: list[int]) -> None:
    """Each in a process of its own; a seed of all cases before the next, so that a stop leaves whole rounds."""
    jobs = [(style, BASE, 0) for style in styles]
    jobs += [(style, case, seed) for seed in seeds for case in cases for style in styles]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda job: _record_apart(work, *job), jobs))


def _record_apart(work: Path, style: str, case: str, seed: int) -> None:
    if recording(work, style, case, seed).is_file():
        return
    command = [sys.executable, "-m", "benchmarks.measures", "--work", str(work), "--one", style, case, str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{style}, {case}, seed {seed} failed:\n{done.stderr[-2000:]}")
    print(f"{style}, {case}, seed {seed}", flush=True)


def targets_of(rows: list[Row]) -> dict[str, Target]:
    """What a score must do to be searched by."""

    def values(table: str, key: str) -> list[float]:
        return [row[key] for row in rows if row["table"] == table]

    ratio = min(row["ratio"] for row in rows if row["table"] == "spread" and row["measure"] == "score")
    at_a_third = values("early order", "score")[POINTS // 3 - 1]
    bad = max(values("known truths", "score"), default=None)
    return {
        "between_to_within": target(ratio, "score >= 2 in every style", ratio >= 2),
        "order_at_a_third": target(at_a_third, "score >= 0.8", at_a_third >= 0.8),
        "known_bad": target(bad, "score <= -3 SD, every one", None if bad is None else bad <= -3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three cases, one style, two seeds")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--plots", type=Path, help="draw the study's pictures into this folder")
    parser.add_argument("--work", type=Path, help="keep recordings here and go on from them")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--one", nargs=3, metavar=("STYLE", "CASE", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = (options.work or Path(tempfile.mkdtemp(prefix="raylora-measures-"))).resolve()
    if options.one:
        style, case, seed = options.one
        file = recording(work, style, case, int(seed))
        if case == BASE:
            record_base(STYLES[style], file)
        else:
            record(CASES[case], STYLES[style], int(seed), file)
        return
    if options.quick:
        options.styles, options.cases, options.seeds = options.styles[:1], list(QUICK_CASES), [0, 1]
    record_all(work, options.styles, options.cases, options.seeds)
    found = read_study(work)
    tables = {"spread": spread, "early order": early_order, "known truths": truths, "grid": grid_sizes}
    tables |= {"samples": sample_sizes, "weights": weights, "verdicts": verdicts}
    rows = [{"table": name, **row} for name, table in tables.items() for row in table(found)]
    if options.plots:
        draw_all(found, [row for row in rows if row["table"] == "early order"], options.plots)
    report("measures", rows, targets_of(rows), options.json)


if __name__ == "__main__":
    main()
