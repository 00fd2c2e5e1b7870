"""Can the measures be trusted? Trainings from far underfit to far overfit and of known quality, recorded and compared.

`python -m benchmarks.measures --quick` trains nothing: it says what the recorded table of `benchmarks/recorded` tells.
Without it, cases of known quality are recorded too (about two hours on two cores). With `--work DIR` finished ones are
kept, so that it can be stopped and started anew.
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
from benchmarks.measures.cases import CASES, STYLES
from benchmarks.measures.effects import effects
from benchmarks.measures.plots import draw_study
from benchmarks.measures.plots_recorded import draw_recorded
from benchmarks.measures.record import record, record_base
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
from benchmarks.measures.table import AT_END, OWN_THIRD, SAME_THIRD, SCORE, TABLES, Training, read_trainings
from raylora.config import ScoreConfig

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


def targets_of(rows: list[Row]) -> dict[str, Target]:
    """What a score must do to be searched by; what is known to be bad only where cases were recorded."""
    ratios = {row["measure"]: row["ratio"] for row in _table("recorded: spread", rows) if row["at"] == AT_END}
    early = [row for row in _table("recorded: early order", rows) if row["measure"] == SCORE]
    agreement = min(row[at] for row in early for at in (OWN_THIRD, SAME_THIRD))
    found = {f"{name}_between_over_within": target(ratios[name], ">= 5", ratios[name] >= 5) for name in in_the_score()}
    found["early_rank_correlation"] = target(agreement, ">= 0.8, in every style and seed, both ways", agreement >= 0.8)
    if bad := [row[SCORE] for row in _table("known truths", rows)]:
        found["known_bad"] = target(max(bad), "score <= -3 SD, every one", max(bad) <= -3)
    return found


def in_the_score() -> list[str]:
    """The measures that the score is made of by default, and itself."""
    weights = ScoreConfig()
    parts = {"holdout_loss_ratio": weights.w_loss, "similarity_gain": weights.w_sim, "copying": weights.w_copy}
    return [*(name for name, weight in parts.items() if weight > 0), SCORE]


def _table(name: str, rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["table"] == name]


def recorded_rows(trainings: list[Training]) -> list[Row]:
    """All that the table says, and nothing has to be trained for."""
    tables = {**TABLES, "recorded: effects": effects}
    return [{"table": name, **row} for name, table in tables.items() for row in table(trainings)]


def study_rows(options: argparse.Namespace, work: Path) -> list[Row]:
    """What the cases say, once all of them are recorded."""
    record_all(work, options.styles, options.cases, options.seeds)
    found = read_study(work)
    tables = {"spread": spread, "early order": early_order, "known truths": truths, "grid": grid_sizes}
    tables |= {"samples": sample_sizes, "weights": weights, "verdicts": verdicts}
    rows = [{"table": name, **row} for name, table in tables.items() for row in table(found)]
    if options.plots:
        draw_study(found, _table("early order", rows), options.plots)
    return rows


def main() -> None:
    options = _options()
    work = (options.work or Path(tempfile.mkdtemp(prefix="raylora-measures-"))).resolve()
    if options.one:
        style, case, seed = options.one
        file = recording(work, style, case, int(seed))
        if case == BASE:
            record_base(STYLES[style], file)
        else:
            record(CASES[case], STYLES[style], int(seed), file)
        return
    trainings = read_trainings()
    rows = recorded_rows(trainings)
    if options.plots:
        draw_recorded(trainings, _table("recorded: effects", rows), options.plots)
    if not options.quick:
        rows += study_rows(options, work)
    report("measures", rows, targets_of(rows), options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="from the recorded table alone; nothing is trained")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--plots", type=Path, help="draw the study's pictures into this folder")
    parser.add_argument("--work", type=Path, help="keep recordings here and go on from them")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--one", nargs=3, metavar=("STYLE", "CASE", "SEED"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
