"""Does the search find a better LoRA than the guide's own settings, and does stopping early pay?

For each seed: the demo's search with stopping, the same search without, then winner and baseline trained
again on all images with new seeds and judged by `raylora evaluate` on pictures that no search has seen.
Every step is a command as a user types it; finished steps are kept, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev, variance
from typing import Any

from benchmarks.common import Row, report, target
from raylora.bundled import DEMO_JUDGE

SEARCH_SEEDS = (0, 1, 2)
NEW_SEEDS = (101, 102, 103)
SEARCH_ALONE = ("search.confirm_trials=0", "search.refit=false")
"""What follows a search is done here, with other seeds and other judges."""
WITHOUT_STOPPING = ("search.trial_scheduler=none", "search.overfit_patience=1000")
GOAL_SE, GOAL_SHARE = 2.0, 0.6
AT_ONCE = 2
"""Trainings side by side, one thread each, as in the search itself on two cores."""


@dataclass(frozen=True)
class Scores:
    """One configuration trained again on several new seeds, judged on unseen pictures."""

    values: list[float]

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def sd(self) -> float:
        return stdev(self.values)


def difference_se(first: Scores, second: Scores) -> float:
    """How many pooled standard errors the first mean lies above the second."""
    error = sqrt(first.sd**2 / len(first.values) + second.sd**2 / len(second.values))
    return (first.mean - second.mean) / error


def raylora(*arguments: object) -> str:
    """Run the command line; its stdout."""
    command = [sys.executable, "-m", "raylora", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def search(folder: Path, seed: int, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The demo's search into a folder, unless it is there already; its summary."""
    if not (folder / "summary.json").is_file():
        command = "resume" if (folder / "state.json").is_file() else "tune"
        options = [word for setting in (f"seed={seed}", *SEARCH_ALONE, *settings) for word in ("--set", setting)]
        raylora(*(["resume", folder] if command == "resume" else ["tune", "--demo", "--out", folder, *options]))
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def judge(folder: Path, params: dict[str, Any], seed: int) -> float:
    """Train the demo with these settings on all its images, and score the LoRA on the judge's pictures."""
    result = folder / f"seed_{seed}.json"
    if not result.is_file():
        out = Path(tempfile.mkdtemp(prefix=f"{folder.name}_{seed}_", dir=folder)) / "train"
        settings = [f"{key}={value}" for key, value in {**params, "seed": seed}.items()]
        raylora("train", "--demo", "--out", out, *(word for setting in settings for word in ("--set", setting)))
        lora = out / "best" / "lora.safetensors"
        result.write_text(raylora("evaluate", lora, "--dataset", DEMO_JUDGE, "--json", "--set", "sampling.seeds=[0]"))
    return float(json.loads(result.read_text())["metrics"]["score"])


def judge_all(folder: Path, configurations: dict[str, dict[str, Any]], seeds: Sequence[int]) -> dict[str, Scores]:
    """Every configuration with every seed."""
    jobs = [(name, seed) for seed in seeds for name in configurations]
    for name in configurations:
        (folder / name).mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda job: judge(folder / job[0], configurations[job[0]], job[1]), jobs))
    del os.environ["OMP_NUM_THREADS"]
    return {
        name: Scores([score for job, score in zip(jobs, found, strict=True) if job[0] == name])
        for name in configurations
    }


def full_images(folder: Path) -> int:
    """Images that the same trials would have seen had none been stopped."""
    from raylora.config_files import read_experiment
    from raylora.execution.node_cache import read_shared
    from raylora.tracking.recorder import read_records

    experiment, shared = read_experiment(folder / "experiment.yaml"), read_shared(folder / "cache")
    return sum(
        shared.material.schedule(experiment.with_params(trial.params)).images_total
        for trial in read_records(folder / "trials")
    )


def run_seed(folder: Path, seed: int, new_seeds: Sequence[int], stopping_only: bool) -> Row:
    """One row of the table."""
    stopped = search(folder / "search", seed)
    configurations = {"winner": stopped["best"]["params"], "baseline": stopped["baseline"]["params"]}
    full = None if stopping_only else search(folder / "without_stopping", seed, WITHOUT_STOPPING)
    if full:
        configurations["full_winner"] = full["best"]["params"]
    scores = judge_all(folder / "judged", configurations, new_seeds)
    winner, baseline = scores["winner"], scores["baseline"]
    images = full["images_seen"] if full else full_images(folder / "search")
    row: Row = {
        "seed": seed,
        "winner": f"{winner.mean:.3f} ± {winner.sd:.3f}",
        "baseline": f"{baseline.mean:.3f} ± {baseline.sd:.3f}",
        "difference_se": difference_se(winner, baseline),
        "images_seen": stopped["images_seen"],
        "images_without_stopping": images,
        "images_share": stopped["images_seen"] / images,
        "wall_s": stopped["wall_s"],
        "scores": {name: found.values for name, found in scores.items()},
        "params": configurations,
    }
    if full:
        other = scores["full_winner"]
        row |= {
            "winner_without_stopping": f"{other.mean:.3f} ± {other.sd:.3f}",
            "winners_differ_by": abs(winner.mean - other.mean),
            "wall_s_without_stopping": full["wall_s"],
        }
    return row


def seed_spread(rows: list[Row]) -> float:
    """The standard deviation between seeds, pooled over all configurations: of three values alone it is a guess."""
    return sqrt(mean(variance(values) for row in rows for values in row["scores"].values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one search, two new seeds, no search without stopping")
    parser.add_argument("--stopping-only", action="store_true", help="none without stopping; its images are counted")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEARCH_SEEDS, help="seeds of the search")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--work", type=Path, help="keep finished steps here and go on from them")
    options = parser.parse_args()
    work = (options.work or Path(tempfile.mkdtemp(prefix="raylora-demo-"))).resolve()
    seeds, new_seeds = (options.seeds[:1], NEW_SEEDS[:2]) if options.quick else (options.seeds, NEW_SEEDS)
    stopping_only = options.quick or options.stopping_only
    rows = [run_seed(work / f"seed_{seed}", seed, new_seeds, stopping_only) for seed in seeds]
    worst_se, worst_share = min(row["difference_se"] for row in rows), max(row["images_share"] for row in rows)
    targets = {
        "winner_minus_baseline_se": target(worst_se, f"> {GOAL_SE:g} in every search", worst_se > GOAL_SE),
        "images_share": target(worst_share, f"<= {GOAL_SHARE:g} in every search", worst_share <= GOAL_SHARE),
    }
    if not stopping_only:
        apart = max(row["winners_differ_by"] for row in rows) / seed_spread(rows)
        targets["winners_differ_by_sd"] = target(apart, "<= 2 in every search", apart <= 2)
    report("demo", rows, targets, options.json)


if __name__ == "__main__":
    main()
