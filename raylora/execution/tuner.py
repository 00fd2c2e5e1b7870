"""The search, from its first trial to the winner's files.

What trains, torch and diffusers with it, is imported where it runs, in the cluster, or after the last trial: a search
that goes on then starts seconds sooner.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from raylora.config import Experiment, flatten
from raylora.config_files import read_experiment, write_experiment
from raylora.dataset.folder import dataset_digest
from raylora.dataset.split import write_splits
from raylora.errors import RayloraError, StorageError
from raylora.execution.autoscaling import nodes_to_count_on
from raylora.execution.cluster import check_address, connected
from raylora.execution.confirm import candidates, confirmations
from raylora.execution.handing_out import ListSearcher
from raylora.execution.job import Job, job_again, local_paths
from raylora.execution.kept import check_kept
from raylora.execution.listening import settle
from raylora.execution.material import is_shared, schedules
from raylora.execution.mirror import at_work, check_storage, claimed, datasets_here, reopened
from raylora.execution.nodes import check_reached, check_shared, forget_copies
from raylora.execution.outputs import OutFolder, write_text
from raylora.execution.rounds import run_round
from raylora.execution.schedulers import TRIAL_SCHEDULERS
from raylora.execution.searcher import StudySearcher
from raylora.execution.share import Share, share_out
from raylora.execution.trial_job import HALVED
from raylora.execution.underway import Say, Search
from raylora.files import fold_folders, resolved
from raylora.search.space import SearchSpace, load_space
from raylora.search.study import SearchStudy, keep_earlier
from raylora.tracking.recorder import Listener, TrialRecord, read_records
from raylora.tracking.sender import MlflowSender
from raylora.tracking.stored import Stored


@dataclass(frozen=True)
class Ready:
    """A search that can start: everything outside its settings was looked at too, and nothing is made."""

    job: Job
    out: OutFolder
    tracking_uri: str
    address: str | None
    """Of the Ray cluster that it is to run on; None for one of its own."""


def ready(job: Job, out: OutFolder, address: str | None = None, warn: Say | None = None) -> Ready:
    """Look at what a search needs outside its settings; nothing is made.

    Args:
        warn: of models that can't be asked for from here, which is an error without it.

    Raises:
        UserError: output folder, storage, cluster, tracking server or a model can't be used.
    """
    from raylora.execution.checked_job import check_hub, check_tracking

    out.check_free(job.plan.disk_bytes)
    check_address(address)
    check_storage(job.experiment)
    uri = check_tracking(job.experiment, out.root)
    check_hub(job.experiment, weighs=True, warn=warn)
    return Ready(job, out, uri, address)


def tune_job(start: Ready, listener: Listener, say: Say) -> dict[str, Any]:
    """Run a new search to its end; returns the summary that is also written to `summary.json`.

    Raises:
        UserError: the output folder, the cluster or the tracking server can't be used after all; nothing is left.
        RayloraError: no trial came to a result.
    """
    from raylora.execution.checked_job import absolute, digest_of_base

    job, out, uri, address = start.job, start.out, start.tracking_uri, start.address
    with (
        _tracker(uri, job.experiment, out, say) as tracker,
        _new_cluster(job, address) as share,
        out.claimed(),
        claimed(job.experiment, out) as mirror,
    ):
        experiment = absolute(job.experiment)
        write_experiment(experiment, out.experiment)
        if address:
            check_shared([*([] if mirror else [out.experiment]), *local_paths(experiment)])
            check_reached(mirror, experiment)
        assert job.space is not None
        write_splits(job.splits, out.split)
        if job.warm_start:
            keep_earlier(out.study, [trial for taken in job.warm_start for trial in taken.trials])
        space = yaml.safe_dump(job.space.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
        write_text(out.space, space)
        search = Search(replace(job, experiment=experiment), out, tracker, listener, say, share, mirror)
        _load_judge(search)
        tags = {"dataset.digest": dataset_digest(job.pictures), "dataset.images": str(len(job.pictures))}
        with _ended_in(tracker):
            tracker.start(out.root.name, _parent_params(experiment, job.space), tags)
            going_on = {"tracking_uri": uri, "parent_run_id": tracker.parent_run_id, "address": address}
            going_on |= {"storage_run": mirror.run} if mirror else {}
            out.write_state("running", **going_on, base_digest=digest_of_base(experiment), wall_s=0.0)
            _tell_where_to_look(search)
            return _run(search)


def _tell_where_to_look(search: Search) -> None:
    """While it runs, for who wants more than is printed."""
    search.say(f"MLflow      {search.tracker.page}")
    search.say(f"Study       optuna-dashboard {shlex.quote(str(search.out.study))}")


def _load_judge(search: Search) -> None:
    """Load an encoder that `check_hub` could not look into, where trials will: what fails now leaves nothing behind."""
    from raylora.evaluation.encoder_place import is_at_hand
    from raylora.execution.trial import encoder_of, pick_device

    experiment = search.job.experiment
    if not is_at_hand(experiment.evaluation.encoder):
        search.run_in_cluster(lambda: bool(encoder_of(experiment, pick_device())), "loads the image encoder")


def resume_job(root: Path, listener: Listener, say: Say, address: str | None = None) -> dict[str, Any]:
    """Go on with a search that was interrupted: finished trials stay, running ones go on from their last rung.

    Args:
        address: where the search began, unless given.

    Raises:
        UserError: there is no such search, it is finished, another process is at it, or what it needs is gone.
        RayloraError: no trial came to a result.
    """
    out = OutFolder(resolved(root))
    state = out.read_unfinished()
    address = address or state.get("address")
    check_address(address)
    experiment = read_experiment(out.experiment)
    check_kept(out, state, experiment)
    with _tracker(state["tracking_uri"], experiment, out, say) as tracker:
        job = job_again(experiment, load_space(str(out.space)), out.split, say)
        tracker.check()
        mirror = reopened(experiment, state, out)
        with _cluster(experiment, address) as share, out.locked(), _ended_in(tracker):
            if address:
                check_reached(mirror, experiment)
            tracker.start(out.root.name, {}, {}, run_id=state["parent_run_id"])
            search = Search(job, out, tracker, listener, say, share, mirror)
            _tell_where_to_look(search)
            return _run(search)


@contextmanager
def _cluster(experiment: Experiment, address: str | None) -> Iterator[Share]:
    """A cluster for the search, and what each of its trials gets."""
    with connected(address, with_state_api=experiment.search.gpus_per_trial > 1):
        yield share_out(experiment.search, nodes_to_count_on())


@contextmanager
def _new_cluster(job: Job, address: str | None) -> Iterator[Share]:
    """The same for a search that begins, where the parts of GPUs that trials get can hold them."""
    from raylora.execution.gpu_share import check_parts

    with _cluster(job.experiment, address) as share:
        check_parts(job.plan.experiment, share)
        yield share


def _tracker(uri: str, experiment: Experiment, out: OutFolder, say: Say) -> MlflowSender:
    stored = Stored(experiment.search.storage, out.root) if experiment.search.storage else None
    return MlflowSender(uri, experiment.tracking.experiment, (out.trials, out.confirmations), say, stored)


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
        from raylora.execution.conclude import conclude

        wants_refit = search.job.experiment.search.refit and bool(found)
        summary = conclude(search, trials, found, wants_refit and _refit(search, found[0].trial), wall_s)
    if search.mirror:
        forget_copies(search.mirror)
    return summary


@contextmanager
def _ended_in(tracker: MlflowSender) -> Iterator[None]:
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
    if not (search.mirror.has_cache(experiment) if search.mirror else is_shared(out.cache, experiment)):
        search.say("Encoding images and measuring the base model …")
        _make_cache(search)
    study, trials = _open_study(search), experiment.search.trials
    make_scheduler = TRIAL_SCHEDULERS[experiment.search.trial_scheduler]
    scheduler = make_scheduler(experiment.search, _settled_records(search, study), study)
    found = run_round(search, search.trial_job(), StudySearcher(study, trials), scheduler)
    expected = _open_study(search).expected()  # opened anew, so that a resume expects the same to the last digit
    return [replace(record, expected=expected.get(record.number)) for record in found]


def _open_study(search: Search) -> SearchStudy:
    """The study in the output folder, new or to be gone on with."""
    experiment, materials = search.job.experiment, search.job.materials
    assert search.job.space is not None

    def images_of(params: Mapping[str, Any]) -> int:
        return schedules(materials, experiment.with_params(dict(params)))[0].images_end

    return SearchStudy(search.out.study, search.job.space, experiment, images_of)


def _settled_records(search: Search, study: SearchStudy) -> list[TrialRecord]:
    """Records of trials before an interruption, true to the study: it is told first of a trial's end."""
    earlier = read_records(search.out.trials)
    for record in settle(earlier, search.trial_job(), study.ended):
        search.heard_by.trial_ended(record)
    return earlier


def _confirm(search: Search, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The best trials again, with new seeds; those that a broken-off search has done stay done."""
    wanted = confirmations(trials, search.job.experiment)
    earlier = read_records(search.out.confirmations)
    done = {record.number for record in earlier if record.status != "running"}
    left = [config for config in wanted if config["number"] not in done]
    if not left:
        return earlier
    search.say(f"Training {', '.join(dict.fromkeys(config['confirms'] for config in wanted))} again, with new seeds …")
    return run_round(search, search.trial_job(is_confirming=True), ListSearcher(left))


def _make_cache(search: Search) -> None:
    """Encode the pictures, once for all trials and folds."""
    experiment, materials = search.job.experiment, search.job.materials
    mirror, root = search.mirror, search.out.root

    def make() -> None:
        from raylora.execution.node_cache import make_shared, write_shared
        from raylora.execution.trial import base_of, encoder_of, pick_device

        base, encoder = base_of(experiment, pick_device()), encoder_of(experiment, pick_device())
        with datasets_here(experiment), at_work(mirror, root, ["cache"], ["cache"]) as out:
            for place, material in zip(fold_folders(out.cache, len(materials)), materials, strict=True):
                write_shared(place, make_shared(base, encoder, material.here(experiment), experiment, out.cache))

    search.run_in_cluster(make, "encodes the images")


def _refit(search: Search, winner: TrialRecord) -> bool:
    """The winner's settings on all images: the LoRA of `best/`. False if that failed; then the trial's must serve."""
    from raylora.execution.attempt import halving
    from raylora.execution.refit import run_refit_here
    from raylora.execution.workers import run_on_workers, workers_of

    search.say("Training the winner's settings on all images …")
    job, workers = search.trial_job(), workers_of(search.share)
    config = {"number": 0, "params": winner.params, "images": (winner.best or {})["images_seen"]}
    config[HALVED] = "memory" in winner.losses

    def train(told: dict[str, Any]) -> None:
        if workers.count > 1:
            run_on_workers(run_refit_here, told, job, workers)
        else:
            run_refit_here(told, job, list[Any]().append)

    def work() -> None:
        halving(config, train)

    def work_halved() -> None:  # what the kernel kills for memory says nothing of it
        halving(config | {HALVED: True}, train)

    try:
        search.run_in_cluster(work, "trains on all images", starts_workers=workers.count > 1, again=work_halved)
    except StorageError:
        raise
    except RayloraError as error:
        fold = " (its first fold)" if job.experiment.dataset.folds > 1 else ""
        search.say(
            f"warning: training on all images failed ({error}); best/ holds the LoRA of the winner's trial{fold}"
        )
        return False
    return True
