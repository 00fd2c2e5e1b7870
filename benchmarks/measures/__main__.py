"""`python -m benchmarks.measures --work DIR`: record all trainings (finished ones are kept), then look at them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measures.cases import CASES, STYLES
from benchmarks.measures.record import record, record_base

SEEDS = (0, 1, 2)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
    record_all(work, options.styles, options.cases, options.seeds)


if __name__ == "__main__":
    main()
