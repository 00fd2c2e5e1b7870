"""A whole search whose trials don't train: each sleeps between rungs and reports scores that a formula gives.

All else is real: the demo's data set and cache, the study, the MLflow store, Ray Tune, and the driver. This is a
process of its own, `python -m benchmarks.simulated`, and says which trials start and end; `scale` and `nodes` watch it.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import Row

STARTED, ENDED = "started", "ended"
PATIENCE_S = 60
SENDER = "raylora.tracking.sending"
MOST_RUNS = 10_000
LOSSES = 25
"""Training losses that come with each report."""


@dataclass(frozen=True)
class Simulation:
    """What is searched, and how long trials take.

    Args:
        rung_s: seconds that a trial sleeps from rung to rung, on average.
        jitter: by what part of it that differs from time to time, at most.
        scheduler: what stops trials: `search.trial_scheduler`.
    """

    trials: int
    at_once: int
    rung_s: float
    jitter: float = 0.5
    scheduler: str = "forecast"


def rungs_of(experiment: Any) -> list[int]:
    """Where trials report, in images seen; the last is their end."""
    from raylora.dataset.batches import rungs

    config, total = experiment.search, experiment.training.max_images
    return [*takewhile(lambda rung: rung < total, rungs(config.grace_period, config.reduction_factor)), total]


def _trainable(simulation: Simulation, search: Any, job: Any) -> Any:
    """Stands for `execution.rounds._trainable`: rates near 1e-3 are good, and more images are better.

    What travels to a worker is numbers alone, so that none of them imports torch, which takes each 300 MB.
    """
    from ray import tune

    from raylora.execution.results import as_result

    points, rung_s, jitter = rungs_of(job.experiment), simulation.rung_s, simulation.jitter

    def simulated(config: dict[str, Any]) -> None:
        rng, best, total = random.Random(config["number"]), -math.inf, points[-1]
        quality = math.exp(-((math.log10(config["params"]["optimizer.unet_lr"]) + 3) ** 2)) + rng.gauss(0, 0.02)
        for images in points:
            time.sleep(rung_s * rng.uniform(1 - jitter, 1 + jitter))
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


def drive(out: Path, address: str, simulation: Simulation) -> None:
    """The driver's own process: a new search in `out`, or the one there, looked on as by the command line."""
    from raylora.cli_output import on_stderr
    from raylora.execution import rounds
    from raylora.execution.outputs import OutFolder
    from raylora.execution.tuner import ready, resume_job, tune_job
    from raylora.report.live import view
    from raylora.tracking.recorder import Listeners, read_records

    rounds._trainable = partial(_trainable, simulation)
    found = OutFolder(out)
    with view(on_stderr(), simulation.trials, read_records(found.trials)) as shown:
        listener = Listeners([Teller(), shown])
        if out.exists():
            resume_job(out, listener, _say, address)
        else:
            tune_job(ready(new_job(simulation), found, address), listener, _say)


def new_job(simulation: Simulation) -> Any:
    """The demo's search, with as many trials as wanted and nothing trained after them."""
    from raylora.config_files import build_experiment
    from raylora.execution.checked_job import checked_job
    from raylora.search.space import load_space, space_layer

    space = load_space("demo")
    settings = {
        "search.trials": simulation.trials,
        "search.max_concurrent": simulation.at_once,
        "search.trial_scheduler": simulation.scheduler,
        "search.refit": False,
    }
    return checked_job(build_experiment([space_layer(space)]).with_params(settings), space, None, _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@contextmanager
def driver(out: Path, address: str, simulation: Simulation) -> Iterator[subprocess.Popen[str]]:
    """The process of `drive`, killed at the block's end."""
    command = [sys.executable, "-m", "benchmarks.simulated", str(out), address, json.dumps(asdict(simulation))]
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


def news(child: subprocess.Popen[str]) -> Iterator[str]:
    """`STARTED` or `ENDED`, each time that a trial does.

    Raises:
        SystemExit: the driver ended.
    """
    assert child.stdout is not None
    for line in child.stdout:
        if (word := line.split(" ")[0].strip()) in (STARTED, ENDED):
            yield word
    raise SystemExit("the driver ended before its time; see its log")


def ends(child: subprocess.Popen[str], count: int) -> Iterator[int]:
    """How many trials have ended, each time that one does, up to `count`.

    Raises:
        SystemExit: the driver ended before.
    """
    done = 0
    for word in news(child):
        if word == ENDED:
            done += 1
            yield done
        if done == count:
            return


def sender_of(process: psutil.Process) -> psutil.Process:
    """The process beside a driver that writes to MLflow."""
    return next(one for one in process.children() if SENDER in one.cmdline())


def spent(process: psutil.Process) -> Row:
    times = process.cpu_times()
    return {"processor_s": times.user + times.system, "rss_mib": process.memory_info().rss / 2**20}


def settled(out: Path, trials: int) -> Row:
    """What is there once everything is, or when patience ends: MLflow hears of the last trials a little later."""
    deadline = time.monotonic() + PATIENCE_S
    while (kept := check(out, trials))["wrong"] and time.monotonic() < deadline:
        time.sleep(1)
    return kept


def check(out: Path, trials: int) -> Row:
    """How many trials the study, the records and MLflow have, and in how many of these some is missing or doubled."""
    places = numbers_in(out)
    wrong = sum(sorted(numbers) != list(range(trials)) for numbers in places.values())
    return {"table": "kept", **{name: len(numbers) for name, numbers in places.items()}, "wrong": wrong}


def numbers_in(out: Path) -> dict[str, list[int]]:
    """The numbers of trials that have ended in the study and in the records, and that have a run in MLflow."""
    from mlflow import MlflowClient

    from raylora.execution.outputs import OutFolder
    from raylora.search.study import read_trials
    from raylora.tracking.recorder import read_records

    found = OutFolder(out)
    state = found.read_state()
    client = MlflowClient(state["tracking_uri"])
    query = f"tags.`mlflow.parentRunId` = '{state['parent_run_id']}'"
    experiment = client.get_run(state["parent_run_id"]).info.experiment_id
    runs = [run.info.run_name for run in client.search_runs([experiment], query, max_results=MOST_RUNS)]
    return {
        "in the study": [trial.number for trial in read_trials(found.study) if trial.state.is_finished()],
        "records": [record.number for record in read_records(found.trials) if record.status != "running"],
        "MLflow": [int(name.removeprefix("t")) for name in runs if name.startswith("t")],
    }


if __name__ == "__main__":
    drive(Path(sys.argv[1]), sys.argv[2], Simulation(**json.loads(sys.argv[3])))
