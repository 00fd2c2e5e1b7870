"""The search, from its first trial to the winner's files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from raylora.config import Experiment, flatten
from raylora.config_files import read_experiment, write_experiment
from raylora.dataset.folder import dataset_digest
from raylora.dataset.split import write_splits
from raylora.errors import RayloraError
from raylora.evaluation.encoders import is_at_hand
from raylora.execution.cluster import (
    Share,
    check_address,
    check_shared,
    connected,
    device_line,
    node_resources,
    share_out,
)
from raylora.execution.conclude import conclude
from raylora.execution.confirm import candidates, confirmations
from raylora.execution.listening import settle
from raylora.execution.node_cache import is_shared, make_shared, write_shared
from raylora.execution.outputs import OutFolder, write_text
from raylora.execution.prepare import Job, absolute, check_hub, check_tracking, digest_of_base, local_paths, prepare
from raylora.execution.refit import run_refit
from raylora.execution.rounds import ListSearcher, run_round
from raylora.execution.schedulers import TRIAL_SCHEDULERS
from raylora.execution.searcher import StudySearcher
from raylora.execution.trial import base_of, encoder_of, pick_device
from raylora.execution.underway import Say, Search
from raylora.execution.workers import run_on_workers, workers_of
from raylora.files import fold_folders
from raylora.search.space import SearchSpace, load_space
from raylora.search.study import SearchStudy, keep_earlier
from raylora.tracking.mlflow_runs import MlflowTracker
from raylora.tracking.mlflow_store import check_reachable
from raylora.tracking.recorder import Listener, TrialRecord, read_records
from raylora.training.fit import Report


def tune_job(job: Job, out: OutFolder, listener: Listener, say: Say, address: str | None = None) -> dict[str, Any]:
    """Run a new search to its end; returns the summary that is also written to `summary.json`.

    Raises:
        UserError: the output folder, the cluster or the tracking server can't be used; nothing was started or left.
        RayloraError: no trial came to a result.
    """
    uri = check_start(job, out, address)
    with _cluster(job.experiment, address) as share, out.claimed():
        experiment = absolute(job.experiment)
        write_experiment(experiment, out.experiment)
        if address:
            check_shared([out.experiment, *local_paths(experiment)])
        assert job.space is not None
        write_splits(job.splits, out.split)
        if job.warm_start:
            keep_earlier(out.study, [trial for taken in job.warm_start for trial in taken.trials])
        space = yaml.safe_dump(job.space.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
        write_text(out.space, space)
        tracker = _tracker(uri, experiment, out, say)
        search = Search(replace(job, experiment=experiment), out, tracker, listener, say, share)
        _load_judge(search)
        tags = {"dataset.digest": dataset_digest(job.pictures), "dataset.images": str(len(job.pictures))}
        with _ended_in(tracker):
            tracker.start(out.root.name, _parent_params(experiment, job.space), tags)
            going_on = {"tracking_uri": uri, "parent_run_id": tracker.parent_run_id, "address": address}
            out.write_state("running", **going_on, base_digest=digest_of_base(experiment), wall_s=0.0)
            return _run(search)


def _load_judge(search: Search) -> None:
    """Load an encoder that `check_hub` could not look into, where trials will: what fails now leaves nothing behind."""
    experiment = search.job.experiment
    if not is_at_hand(experiment.evaluation.encoder):
        search.run_in_cluster(lambda: bool(encoder_of(experiment, pick_device())), "loads the image encoder")


def check_start(job: Job, out: OutFolder, address: str | None = None, warn: Say | None = None) -> str:
    """Everything outside the settings that a search needs; nothing is made. Returns the tracking URI.

    Args:
        warn: of models that can't be asked for from here, which is an error without it.

    Raises:
        UserError: the output folder, the cluster, the tracking server or a model can't be used.
    """
    out.check_free(job.plan.disk_bytes)
    check_address(address)
    device_line(job.experiment.search, address)
    uri = check_tracking(job.experiment, out.root)
    check_hub(job.experiment, weighs=True, warn=warn)
    return uri


def resume_job(root: Path, listener: Listener, say: Say, address: str | None = None) -> dict[str, Any]:
    """Go on with a search that was interrupted: finished trials stay, running ones go on from their last rung.

    Args:
        address: where the search began, unless given.

    Raises:
        UserError: there is no such search, it is finished, another process is at it, or what it needs is gone.
        RayloraError: no trial came to a result.
    """
    out = OutFolder(root.resolve())
    state = out.read_unfinished()
    address = address or state.get("address")
    check_address(address)
    check_reachable(state["tracking_uri"])
    experiment = read_experiment(out.experiment)
    job = prepare(experiment, load_space(str(out.space)), out.split, say)
    with _cluster(experiment, address) as share, out.locked():
        tracker = _tracker(state["tracking_uri"], experiment, out, say)
        with _ended_in(tracker):
            tracker.start(out.root.name, {}, {}, run_id=state["parent_run_id"])
            return _run(Search(job, out, tracker, listener, say, share))


@contextmanager
def _cluster(experiment: Experiment, address: str | None) -> Iterator[Share]:
    """A cluster for the search, and what each of its trials gets."""
    with connected(address, with_state_api=experiment.search.gpus_per_trial > 1):
        yield share_out(experiment.search, node_resources())


def _tracker(uri: str, experiment: Experiment, out: OutFolder, say: Say) -> MlflowTracker:
    return MlflowTracker(uri, experiment.tracking.experiment, warn=say)


def _parent_params(experiment: Experiment, space: SearchSpace) -> dict[str, Any]:
    return {
        "dataset": experiment.dataset.path,
        "base_model": experiment.model.base_model,
        "space": space.name,
        "seed": experiment.seed,
        **{f"search.{key}": value for key, value in flatten(experiment.search.model_dump()).items()},
    }


def _run(search: Search) -> dict[str, Any]:
    """The search from wherever it stands to its end."""
    with search.out.working() as wall_s:
        trials = _search(search)
        found = candidates(trials, _confirm(search, trials))
        wants_refit = search.job.experiment.search.refit and bool(found)
        return conclude(search, trials, found, wants_refit and _refit(search, found[0].trial), wall_s)


@contextmanager
def _ended_in(tracker: MlflowTracker) -> Iterator[None]:
    """What breaks the search off ends its MLflow runs too, its own and those of its trials.

    That is what the user must hear of, and not a tracking server that is gone as well, or a Ctrl-C while it is asked.
    """
    try:
        yield
    except BaseException as error:
        with suppress(Exception, KeyboardInterrupt):
            tracker.break_off("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


def _search(search: Search) -> list[TrialRecord]:
    """All trials."""
    experiment, out = search.job.experiment, search.out
    if not is_shared(out.cache, experiment):
        search.say("Encoding images and measuring the base model …")
        _make_cache(search)
    assert search.job.space is not None
    study, trials = SearchStudy(out.study, search.job.space, experiment), experiment.search.trials
    earlier = _settled_records(search, study)
    search.tracker.catch_up(earlier)
    searcher = StudySearcher(study, trials)
    scheduler = TRIAL_SCHEDULERS[experiment.search.trial_scheduler](experiment.search, earlier)
    return run_round(search, search.trial_job(), searcher, trials, scheduler, earlier)


def _settled_records(search: Search, study: SearchStudy) -> list[TrialRecord]:
    """Records of trials before an interruption, true to the study: it is told first of a trial's end."""
    earlier = read_records(search.out.trials)
    for record in settle(earlier, search.trial_job(), study.ended):
        search.listener.trial_ended(record)
    return earlier


def _confirm(search: Search, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The best trials again, with new seeds; those that a broken-off search has done stay done."""
    wanted = confirmations(trials, search.job.experiment)
    earlier = read_records(search.out.confirmations)
    done = {record.number for record in earlier if record.status != "running"}
    left = [config for config in wanted if config["number"] not in done]
    search.tracker.catch_up(earlier)
    if not left:
        return earlier
    search.say(f"Training {', '.join(dict.fromkeys(config['confirms'] for config in wanted))} again, with new seeds …")
    job = search.trial_job(is_confirming=True)
    return run_round(search, job, ListSearcher(left), len(left), earlier=earlier)


def _make_cache(search: Search) -> None:
    """Encode the pictures, once for all trials and folds."""
    experiment, materials, cache = search.job.experiment, search.job.materials, search.out.cache

    def make() -> None:
        base, encoder = base_of(experiment, pick_device()), encoder_of(experiment, pick_device())
        for place, material in zip(fold_folders(cache, len(materials)), materials, strict=True):
            write_shared(place, make_shared(base, encoder, material, experiment, cache))

    search.run_in_cluster(make, "encodes the images")


def _refit(search: Search, winner: TrialRecord) -> bool:
    """The winner's settings on all images: the LoRA of `best/`. False if that failed; then the trial's must serve."""
    search.say("Training the winner's settings on all images …")
    job, workers = search.trial_job(), workers_of(search.share)
    config = {"number": 0, "params": winner.params, "images": (winner.best or {})["images_seen"]}

    def work() -> None:
        if workers.count > 1:
            run_on_workers(run_refit, config, job, workers)
        else:
            run_refit(config, job, list[Report]().append)

    try:
        search.run_in_cluster(work, "trains on all images", starts_workers=workers.count > 1)
    except RayloraError as error:
        fold = " (its first fold)" if job.experiment.dataset.folds > 1 else ""
        search.say(
            f"warning: training on all images failed ({error}); best/ holds the LoRA of the winner's trial{fold}"
        )
        return False
    return True
