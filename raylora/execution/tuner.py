"""The search, from its first trial to the winner's files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import tune

from raylora.config import Experiment
from raylora.config_files import read_experiment, write_experiment
from raylora.dataset.folder import dataset_digest
from raylora.dataset.split import write_split
from raylora.diffusion.families import FAMILIES, save_as_folder
from raylora.errors import RayloraError, first_line
from raylora.evaluation.strength import StrengthSweep
from raylora.execution.cluster import Share, check_address, connected, node_resources, share_out
from raylora.execution.listening import RayListener
from raylora.execution.node_cache import SharedData, is_shared, make_shared, read_shared, write_shared
from raylora.execution.outputs import OutFolder, write_json, write_text, write_trials_csv
from raylora.execution.prepare import Job, absolute, check_hub, check_tracking, prepare
from raylora.execution.schedulers import TRIAL_SCHEDULERS
from raylora.execution.searcher import METRIC, MODE, StudySearcher
from raylora.execution.trial import TrialJob, base_of, encoder_of, pick_device, run_trial
from raylora.execution.winner import lora_paths, write_best
from raylora.execution.workers import DRIVER_CPUS, Workers, distributed_trainable
from raylora.search.importance import importance
from raylora.search.space import SearchSpace, load_space
from raylora.search.study import SearchStudy, keep_earlier, read_trials
from raylora.tracking.mlflow_runs import MlflowTracker
from raylora.tracking.mlflow_store import check_reachable
from raylora.tracking.recorder import Listener, Listeners, TrialRecord, measures, read_records
from raylora.tracking.registry import Registered, log_lora, register

Say = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """A search under way: the job, where it writes, and who hears of it."""

    job: Job
    out: OutFolder
    tracker: MlflowTracker
    listener: Listener
    say: Say
    address: str | None


def tune_job(job: Job, out: OutFolder, listener: Listener, say: Say, address: str | None = None) -> dict[str, Any]:
    """Run a new search to its end; returns the summary that is also written to `summary.json`.

    Raises:
        UserError: the output folder or the tracking server can't be used; nothing was started.
        RayloraError: no trial came to a result.
    """
    uri = check_start(job, out, address)
    out.claim()
    experiment = absolute(job.experiment)
    write_experiment(experiment, out.experiment)
    assert job.space is not None
    write_split(job.split, out.split)
    tracker = _tracker(uri, experiment, out, say)
    tags = {"dataset.digest": dataset_digest(job.pictures), "dataset.images": str(len(job.pictures))}
    tracker.start(out.root.name, _parent_params(experiment, job.space), tags)
    out.write_state("running", tracking_uri=uri, parent_run_id=tracker.parent_run_id, wall_s=0.0)
    if job.warm_start:
        keep_earlier(out.study, [trial for taken in job.warm_start for trial in taken.trials])
    space = yaml.safe_dump(job.space.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    write_text(out.space, space)  # the last of what `resume` needs
    return _run(Search(replace(job, experiment=experiment), out, tracker, listener, say, address))


def check_start(job: Job, out: OutFolder, address: str | None = None, warn: Say | None = None) -> str:
    """Everything outside the settings that a search needs; nothing is made. Returns the tracking URI.

    Args:
        warn: of models that can't be asked for from here, which is an error without it.

    Raises:
        UserError: the output folder, the cluster, the tracking server or a model can't be used.
    """
    out.check_free(job.plan.disk_bytes)
    check_address(address)
    uri = check_tracking(job.experiment, out.root)
    check_hub(job.experiment, warn=warn)
    return uri


def resume_job(root: Path, listener: Listener, say: Say, address: str | None = None) -> dict[str, Any]:
    """Go on with a search that was interrupted: finished trials stay, running ones go on from their last rung."""
    out = OutFolder(root.resolve())
    state = out.read_unfinished()
    check_address(address)
    check_reachable(state["tracking_uri"])
    experiment = read_experiment(out.experiment)
    job = prepare(experiment, load_space(str(out.space)), out.split, say)
    tracker = _tracker(state["tracking_uri"], experiment, out, say)
    tracker.start(out.root.name, {}, {}, run_id=state["parent_run_id"])
    out.write_state("running")
    return _run(Search(job, out, tracker, listener, say, address))


def _tracker(uri: str, experiment: Experiment, out: OutFolder, say: Say) -> MlflowTracker:
    return MlflowTracker(uri, experiment.tracking.experiment, warn=say)


def _parent_params(experiment: Experiment, space: SearchSpace) -> dict[str, Any]:
    return {
        "dataset": experiment.dataset.path,
        "base_model": experiment.model.base_model,
        "space": space.name,
        "seed": experiment.seed,
        **{f"search.{key}": value for key, value in experiment.search.model_dump().items()},
    }


def _run(search: Search) -> dict[str, Any]:
    """The search, with its state kept true whatever ends it."""
    began, before = time.monotonic(), float(search.out.read_state().get("wall_s", 0.0))

    def wall_s() -> float:
        return round(before + time.monotonic() - began, 1)

    try:
        with connected(search.address, with_state_api=search.job.experiment.search.gpus_per_trial > 1):
            trials = _search(search)
        return _conclude(search, trials, wall_s)
    except KeyboardInterrupt:
        search.out.write_state("interrupted", wall_s=wall_s())
        _close(search.tracker, "KILLED")
        raise
    except Exception:
        search.out.write_state("failed", wall_s=wall_s())
        _close(search.tracker, "FAILED")
        raise


def _close(tracker: MlflowTracker, status: str) -> None:
    """What has ended the search is what the user must hear of, and not a tracking server that is gone too."""
    with suppress(Exception):
        tracker.finish({}, None, status=status)


def _search(search: Search) -> list[TrialRecord]:
    """All trials, on Ray."""
    experiment, out = search.job.experiment, search.out
    share = share_out(experiment.search, node_resources())
    trial_job = TrialJob(out=out.root, experiment=experiment, threads=share.cpus)
    if not is_shared(out.cache):
        search.say("Encoding images and measuring the base model …")
        _make_cache(search.job, out, share)
    assert search.job.space is not None
    earlier = read_records(out.trials)
    known = {record.number: record for record in earlier}
    listener = RayListener(trial_job, Listeners([search.tracker, search.listener]), known)
    tuner = tune.Tuner(
        _trainable(trial_job, share),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode=MODE,
            search_alg=StudySearcher(SearchStudy(out.study, search.job.space, experiment), experiment.search.trials),
            scheduler=TRIAL_SCHEDULERS[experiment.search.trial_scheduler](experiment.search, earlier),
            num_samples=experiment.search.trials,
            max_concurrent_trials=share.concurrent,
            reuse_actors=share.workers == 1,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(out.ray), callbacks=[listener], verbose=0),
    )
    tuner.fit()
    return sorted(listener.records.values(), key=lambda record: record.number)


def _make_cache(job: Job, out: OutFolder, share: Share) -> None:
    """Encode in a Ray task, where the GPU is, and not in the driver."""

    def make() -> None:
        base = base_of(job.experiment, pick_device())
        encoder = encoder_of(job.experiment, pick_device())
        write_shared(out.cache, make_shared(base, encoder, job.material, job.experiment, out.cache))

    options = {"num_cpus": share.cpus, "num_gpus": min(1.0, share.gpus), "max_retries": 0}
    try:
        ray.get(ray.remote(**options)(make).remote())
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, RayloraError) else RayloraError(str(error.cause)) from None
    except ray.exceptions.RayError as error:
        raise RayloraError(
            f"the process that encodes the images died, as when memory runs out ({first_line(error)}); "
            "free some memory, or use training.mixed_precision=bf16"
        ) from None


def _trainable(job: TrialJob, share: Share) -> Any:
    """One loop, two ways to run it: in the Tune trial itself, or on workers that the trial starts."""
    if share.workers > 1:
        workers = Workers(share.workers, use_gpu=share.gpus > 0, cpus_each=share.cpus)
        return tune.with_resources(distributed_trainable(job, workers), {"cpu": DRIVER_CPUS})

    def trainable(config: dict[str, Any]) -> None:
        run_trial(config, job, tune.report)

    return tune.with_resources(trainable, {"cpu": share.cpus, "gpu": share.gpus})


def _conclude(search: Search, trials: Sequence[TrialRecord], wall_s: Callable[[], float]) -> dict[str, Any]:
    """Pick the winner and write everything that users get."""
    out = search.out
    write_trials_csv(out.root / "trials.csv", trials)
    winner = max(trials, key=lambda trial: trial.score, default=None)
    if winner is None or not math.isfinite(winner.score):
        reasons = sorted({trial.stop_reason or "no report" for trial in trials})
        raise RayloraError(f"no trial came to a result; all {len(trials)} failed: {'; '.join(reasons)}")
    search.say("Writing the winner …")
    baseline = next((trial for trial in trials if trial.is_baseline and trial.history), None)
    sweep = _write_winner(search, read_shared(out.cache), [trial for trial in (baseline, winner) if trial])
    registered = _track_winner(search, winner)
    summary = {
        "best": {**_entry(winner), **_strength(sweep), **lora_paths(out)},
        "baseline": _entry(baseline) if baseline else None,
        "trials": _counts(trials),
        "importance": what_mattered(search),
        "images_seen": sum(trial.images_seen for trial in trials),
        "wall_s": wall_s(),
        "registered": registered,
        "tracking_uri": search.tracker.uri,
        "parent_run_id": search.tracker.parent_run_id,
    }
    write_json(out.summary, summary)
    out.write_state("finished", wall_s=wall_s())
    return summary


def what_mattered(search: Search) -> list[dict[str, Any]]:
    """Each searched setting's part in the score; whatever fails in it, the winner is there."""
    assert search.job.space is not None
    try:
        trials = read_trials(search.out.study)
        found = importance(trials, search.job.experiment.seed, leave_out=search.job.space.fixed)
    except Exception as error:  # a look back, over whatever a user's own space function did
        search.say(f"warning: which settings mattered can't be told ({first_line(error)})")
        return []
    return [asdict(one) for one in found]


def _write_winner(search: Search, shared: SharedData, trials: list[TrialRecord]) -> StrengthSweep:
    """Ray is gone by now, so the driver uses the device itself."""
    experiment = search.job.experiment
    base = base_of(experiment, pick_device())
    evaluator = shared.evaluator(encoder_of(experiment, pick_device()), experiment)
    return write_best(search.out, base, evaluator, experiment, trials, shared)


def _track_winner(search: Search, winner: TrialRecord) -> Registered | None:
    """The winner in MLflow, each step for itself. Its files are written by now, so what fails costs nothing else."""
    best = {f"best.{key}": value for key, value in measures(winner.best or {}).items()}
    search.tracker.catch_up()
    registered = _try(search, "as a model", lambda: _register(search))
    _try(search, "in full", lambda: search.tracker.finish(best, search.out.best))
    return registered


def _try(search: Search, how: str, step: Callable[[], Registered | None]) -> Registered | None:
    try:
        return step()
    except Exception as error:  # MLflow, requests and SQLAlchemy raise many kinds
        reason = first_line(error)
        search.say(f"warning: the winner could not be written to MLflow {how} ({reason}); its files are there")
        return None


def _register(search: Search) -> Registered | None:
    """Log the winner to the parent run, and register it where a name was given."""
    experiment, tracker = search.job.experiment, search.tracker
    name = experiment.tracking.register_name
    base_model = base_of(experiment, pick_device()).reference
    if name and base_model.endswith(".safetensors"):  # MLflow loads base models from hub ids and folders alone
        family = FAMILIES[experiment.model.family]
        base_model = str(save_as_folder(base_model, family, search.out.root / "base_model"))
    model_uri = log_lora(
        tracker.uri,
        tracker.parent_run_id,
        lora=Path(lora_paths(search.out)["lora_diffusers"]),
        base_model=base_model,
        size=experiment.dataset.resolution,
        steps=experiment.sampling.steps,
        guidance_scale=experiment.sampling.guidance_scale,
    )
    return register(tracker.uri, model_uri, name) if name else None


def _entry(trial: TrialRecord) -> dict[str, Any]:
    return {
        "trial_id": trial.trial_id,
        "score": trial.score,
        "params": trial.params,
        "metrics": measures(trial.best or {}),
        "images_seen": (trial.best or {}).get("images_seen"),
    }


def _strength(sweep: StrengthSweep) -> dict[str, Any]:
    """The strength to use the LoRA at, and the score at each that was tried."""
    return {"strength": sweep.recommended, "strength_scores": {f"{at:g}": score for at, score in sweep.scores.items()}}


def _counts(trials: Sequence[TrialRecord]) -> dict[str, int]:
    counts = {
        status: sum(trial.status == status for trial in trials) for status in ("finished", "stopped_early", "failed")
    }
    return {**counts, "total": len(trials)}
