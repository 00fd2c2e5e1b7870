"""Does a search's driver bear a thousand trials, 64 at once?

A whole search of the demo (its data set, cache, study, MLflow store and Ray Tune are real) whose trials don't train:
each sleeps between rungs and reports scores that a formula gives. The driver is a process of its own, watched from
outside. It is killed while its last trials run, and a second one resumes: timed from the start of its process to the
first trial that it starts, and let go on until all trials have ended. Then study and records must hold each trial once.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import Row, report, target

STARTED, ENDED = "started", "ended"
WARM_TRIALS = 100
"""Trials after which a driver's memory should grow no more."""
GOAL_GROWTH, GOAL_DRIVER_MS, GOAL_RESUME_S = 1.05, 50, 10
RUNG_S = 3.0
LOSSES = 25
"""Training losses that come with each report."""


def simulated_trainable(search: Any, job: Any) -> Any:
    """Stands for `execution.rounds._trainable`: rates near 1e-3 are good, and more images are better.

    What travels to a worker is numbers alone, so that none of the 64 imports torch, which takes them 300 MB each.
    """
    from ray import tune

    from raylora.execution.results import as_result
    from raylora.training.fit import evaluation_points

    config = job.experiment.search
    total = job.experiment.training.max_images
    points = evaluation_points(total, config.grace_period, config.reduction_factor)

    def simulated(config: dict[str, Any]) -> None:
        rng, best = random.Random(config["number"]), -math.inf
        quality = math.exp(-((math.log10(config["params"]["optimizer.unet_lr"]) + 3) ** 2)) + rng.gauss(0, 0.02)
        for images in points:
            time.sleep(RUNG_S * rng.uniform(0.5, 1.5))
            score = quality * (1 - math.exp(-3 * images / total)) + rng.gauss(0, 0.01)
            best = max(best, score)
            report = {**_measures(score, images, rng), "best_score": best, "is_finished": images == total,
                      "is_over": images == total, "stop_reason": None}  # fmt: skip
            tune.report(as_result(report))

    return tune.with_resources(simulated, {"cpu": search.share.cpus})


def _measures(score: float, images: int, rng: random.Random) -> dict[str, Any]:
    """As many numbers as a real report has."""
    names = ("holdout_loss", "holdout_loss_ratio", "train_probe_loss", "sample_similarity", "similarity_gain",
             "prompt_alignment", "diversity", "copying", "train_loss", "train_s", "peak_memory_gib")  # fmt: skip
    return {
        **{name: rng.random() for name in names},
        "score": score,
        "images_seen": images,
        "lora_mb": 1.0,
        "train_losses": [(images - 4 * step, rng.random()) for step in range(LOSSES)],
        "image_scores": [rng.random() for _ in range(10)],
    }


class Teller:
    """A listener that says aloud which trials start and end."""

    def trial_started(self, record: Any) -> None:
        print(STARTED, record.number, flush=True)

    def trial_reported(self, record: Any) -> None:
        """Nothing to say."""

    def trial_ended(self, record: Any) -> None:
        print(ENDED, record.number, flush=True)


def drive(out: Path, address: str, trials: int, at_once: int) -> None:
    """The driver's own process: a new search in `out`, or the one there."""
    from raylora.config_files import build_experiment
    from raylora.execution import rounds
    from raylora.execution.outputs import OutFolder
    from raylora.execution.prepare import prepare
    from raylora.execution.tuner import resume_job, tune_job
    from raylora.search.space import load_space, space_layer

    rounds._trainable = simulated_trainable
    if out.exists():
        resume_job(out, Teller(), _say, address)
        return
    space = load_space("demo")
    settings = {"search.trials": trials, "search.max_concurrent": at_once, "search.refit": False}
    experiment = build_experiment([space_layer(space)]).with_params(settings)
    tune_job(prepare(experiment, space, None, _say), OutFolder(out), Teller(), _say, address)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@contextmanager
def driver(out: Path, address: str, trials: int, at_once: int) -> Iterator[subprocess.Popen[str]]:
    """The process of `drive`, killed at the block's end."""
    command = [sys.executable, "-m", "benchmarks.scale", "--drive", str(out), address]
    command += ["--trials", str(trials), "--at-once", str(at_once)]
    errors = out.with_suffix(".log").open("a")
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | {"COLUMNS": "99"}
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        errors.close()


def ends(child: subprocess.Popen[str], count: int) -> Iterator[int]:
    """How many trials have ended, each time that one does, up to `count`.

    Raises:
        SystemExit: the driver ended before.
    """
    done = 0
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(ENDED):
            done += 1
            yield done
        if done == count:
            return
    raise SystemExit(f"the driver ended after {done} trials; see its log")


def watch(child: subprocess.Popen[str], count: int) -> list[Row]:
    """The driver's processor time and memory at every hundredth trial's end, and at the last."""
    process, rows = psutil.Process(child.pid), []
    for done in ends(child, count):
        if done % WARM_TRIALS == 0 or done == count:
            times = process.cpu_times()
            mib = process.memory_info().rss / 2**20
            rows.append({"table": "driver", "trials": done, "processor_s": times.user + times.system, "rss_mib": mib})
    return rows


def first_start_s(child: subprocess.Popen[str], began: float) -> float:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(STARTED):
            return time.monotonic() - began
    raise SystemExit("the resumed driver started no trial; see its log")


def check(out: Path, trials: int) -> Row:
    """How many trials the study and the records have, and how many are missing or doubled there."""
    from raylora.execution.outputs import OutFolder
    from raylora.search.study import read_trials
    from raylora.tracking.recorder import read_records

    found = OutFolder(out)
    study = [trial.number for trial in read_trials(found.study) if trial.state.is_finished()]
    records = [record.number for record in read_records(found.trials) if record.status != "running"]
    wrong = sum(sorted(numbers) != list(range(trials)) for numbers in (study, records))
    return {"table": "kept", "in the study": len(study), "records": len(records), "wrong": wrong}


def measure(work: Path, trials: int, at_once: int) -> list[Row]:
    """Both drivers, one after the other, on a cluster that outlives them."""
    from ray.cluster_utils import Cluster

    out = work / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": at_once})
    try:
        with driver(out, cluster.address, trials, at_once) as child:
            rows = watch(child, trials - at_once)
        began = time.monotonic()
        with driver(out, cluster.address, trials, at_once) as child:
            resumed = {"table": "resume", "first_trial_s": first_start_s(child, began)}
            for _ in ends(child, at_once):
                pass
    finally:
        cluster.shutdown()
    return [*rows, resumed, check(out, trials)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 trials, 8 at once")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--drive", nargs=2, metavar=("OUT", "ADDRESS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(Path(options.drive[0]), options.drive[1], options.trials, options.at_once)
        return
    if options.quick:
        options.trials, options.at_once = 200, 8
    work = Path(tempfile.mkdtemp(prefix="raylora-scale-"))
    print(f"the search and its drivers' log: {work}", flush=True)
    rows = measure(work, options.trials, options.at_once)
    warm, last = rows[0], [row for row in rows if row["table"] == "driver"][-1]
    driver_ms = 1000 * (last["processor_s"] - warm["processor_s"]) / (last["trials"] - warm["trials"])
    growth, resume_s = last["rss_mib"] / warm["rss_mib"], rows[-2]["first_trial_s"]
    targets = {
        "memory_growth": target(growth, f"<= {GOAL_GROWTH} after {WARM_TRIALS} trials", growth <= GOAL_GROWTH),
        "driver_ms": target(driver_ms, f"<= {GOAL_DRIVER_MS} of processor time a trial", driver_ms <= GOAL_DRIVER_MS),
        "resume_s": target(resume_s, f"< {GOAL_RESUME_S}", resume_s < GOAL_RESUME_S),
        "missing_or_doubled": target(rows[-1]["wrong"], "0", rows[-1]["wrong"] == 0),
    }
    report("scale", rows, targets, options.json)


if __name__ == "__main__":
    main()
