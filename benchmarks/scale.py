"""Does a search's driver bear a thousand trials, 64 at once?

A whole search of the demo (its data set, cache, study, MLflow store and Ray Tune are real) whose trials don't train:
each sleeps between rungs and reports scores that a formula gives. The driver is a process of its own, watched from
outside. It is killed while its last trials run, and a second one resumes: timed from the start of its process to the
first trial that it starts, and let go on until all trials have ended. Then study, records and MLflow must hold each
trial once. What writes to MLflow is a process of its own beside the driver; its time and memory are rows, not targets.
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
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import Row, Target, report, target

STARTED, ENDED = "started", "ended"
WARM_TRIALS = 100
"""Trials after which a driver's memory should grow no more."""
GOAL_GROWTH_MIB, GOAL_DRIVER_MS, GOAL_RESUME_S = 1, 50, 10
RUNG_S, QUICK_RUNG_S = 3.0, 1.0
"""Seconds that a trial sleeps from rung to rung, on average."""
PATIENCE_S = 60
SENDER = "raylora.tracking.sending"
LOSSES = 25
"""Training losses that come with each report."""


def simulated_trainable(rung_s: float, search: Any, job: Any) -> Any:
    """Stands for `execution.rounds._trainable`: rates near 1e-3 are good, and more images are better.

    What travels to a worker is numbers alone, so that none of the 64 imports torch, which takes them 300 MB each.
    """
    from ray import tune

    from raylora.dataset.batches import rungs
    from raylora.execution.results import as_result

    config = job.experiment.search
    total = job.experiment.training.max_images
    points = [*takewhile(lambda rung: rung < total, rungs(config.grace_period, config.reduction_factor)), total]

    def simulated(config: dict[str, Any]) -> None:
        rng, best = random.Random(config["number"]), -math.inf
        quality = math.exp(-((math.log10(config["params"]["optimizer.unet_lr"]) + 3) ** 2)) + rng.gauss(0, 0.02)
        for images in points:
            time.sleep(rung_s * rng.uniform(0.5, 1.5))
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


def drive(out: Path, address: str, options: argparse.Namespace) -> None:
    """The driver's own process: a new search in `out`, or the one there, looked on as by the command line."""
    from raylora.cli_output import on_stderr
    from raylora.execution import rounds
    from raylora.execution.outputs import OutFolder
    from raylora.execution.tuner import resume_job, tune_job
    from raylora.report.live import view
    from raylora.tracking.recorder import Listeners, read_records

    rounds._trainable = partial(simulated_trainable, options.rung_s)
    found = OutFolder(out)
    with view(on_stderr(), options.trials, read_records(found.trials)) as shown:
        listener = Listeners([Teller(), shown])
        if out.exists():
            resume_job(out, listener, _say, address)
        else:
            tune_job(new_job(options.trials, options.at_once), found, listener, _say, address)


def new_job(trials: int, at_once: int) -> Any:
    from raylora.config_files import build_experiment
    from raylora.execution.prepare import prepare
    from raylora.search.space import load_space, space_layer

    space = load_space("demo")
    settings = {"search.trials": trials, "search.max_concurrent": at_once, "search.refit": False}
    return prepare(build_experiment([space_layer(space)]).with_params(settings), space, None, _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@contextmanager
def driver(out: Path, address: str, options: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    """The process of `drive`, killed at the block's end."""
    command = [sys.executable, "-m", "benchmarks.scale", "--drive", str(out), address]
    for name in ("trials", "at_once", "rung_s"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
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
    """Processor time and memory of driver and sender at every hundredth trial's end, and at the last."""
    process, rows = psutil.Process(child.pid), []
    sender: psutil.Process | None = None
    for done in ends(child, count):
        sender = sender or next(one for one in process.children() if SENDER in one.cmdline())
        if done % WARM_TRIALS == 0 or done == count:
            row = {"table": "driver", "trials": done, **spent(process)}
            rows.append(row | {f"sender_{name}": value for name, value in spent(sender).items()})
    return rows


def spent(process: psutil.Process) -> Row:
    times = process.cpu_times()
    return {"processor_s": times.user + times.system, "rss_mib": process.memory_info().rss / 2**20}


def first_start_s(child: subprocess.Popen[str], began: float) -> float:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(STARTED):
            return time.monotonic() - began
    raise SystemExit("the resumed driver started no trial; see its log")


def settled(out: Path, trials: int) -> Row:
    """What is there once everything is, or when patience ends: MLflow hears of the last trials a little later."""
    deadline = time.monotonic() + PATIENCE_S
    while (kept := check(out, trials))["wrong"] and time.monotonic() < deadline:
        time.sleep(1)
    return kept


def check(out: Path, trials: int) -> Row:
    """How many trials the study, the records and MLflow have, and in how many of these some is missing or doubled."""
    from mlflow import MlflowClient

    from raylora.execution.outputs import OutFolder
    from raylora.search.study import read_trials
    from raylora.tracking.recorder import read_records

    found = OutFolder(out)
    study = [trial.number for trial in read_trials(found.study) if trial.state.is_finished()]
    records = [record.number for record in read_records(found.trials) if record.status != "running"]
    state = found.read_state()
    client = MlflowClient(state["tracking_uri"])
    experiment = client.get_run(state["parent_run_id"]).info.experiment_id
    runs = [run.info.run_name for run in client.search_runs([experiment], max_results=10 * trials)]
    tracked = [int(name.removeprefix("t")) for name in runs if name.startswith("t")]
    wrong = sum(sorted(numbers) != list(range(trials)) for numbers in (study, records, tracked))
    return {
        "table": "kept",
        "in the study": len(study),
        "records": len(records),
        "MLflow": len(tracked),
        "wrong": wrong,
    }


def measure(work: Path, options: argparse.Namespace) -> list[Row]:
    """Both drivers, one after the other, on a cluster that outlives them."""
    from ray.cluster_utils import Cluster

    out, at_once = work / "out", options.at_once
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": at_once})
    try:
        with driver(out, cluster.address, options) as child:
            rows = watch(child, options.trials - at_once)
        began = time.monotonic()
        with driver(out, cluster.address, options) as child:
            first_s = first_start_s(child, began)
            resumed = {"table": "resume", "first_trial_s": first_s, **spent(psutil.Process(child.pid))}
            for _ in ends(child, at_once):
                pass
            kept = settled(out, options.trials)
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
    parser.add_argument("--rung-s", type=float, default=RUNG_S, help=argparse.SUPPRESS)
    parser.add_argument("--drive", nargs=2, metavar=("OUT", "ADDRESS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(Path(options.drive[0]), options.drive[1], options)
        return
    if options.quick:
        options.trials, options.at_once, options.rung_s = 200, 8, QUICK_RUNG_S
    work = Path(tempfile.mkdtemp(prefix="raylora-scale-"))
    print(f"the search and its drivers' log: {work}", flush=True)
    rows = measure(work, options)
    report("scale", rows, targets_of(rows), options.json)


if __name__ == "__main__":
    main()
