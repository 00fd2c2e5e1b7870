"""`raylora train`: one configuration, no search, no Ray. It shares the trials' loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raylora.config import Experiment
from raylora.config_files import read_experiment, write_experiment
from raylora.dataset.folder import Picture
from raylora.dataset.split import write_splits
from raylora.diffusion.base import BaseModel
from raylora.diffusion.generate import generate, requests_of
from raylora.diffusion.tensor_cache import framed_pixels
from raylora.errors import DatasetError
from raylora.evaluation.scorecard import Evaluator
from raylora.execution.checked_job import absolute, checked_job
from raylora.execution.job import Job
from raylora.execution.material import Material, look_prompts
from raylora.execution.model_card import write_card
from raylora.execution.node_cache import entries_in, framed, make_shared, training_set
from raylora.execution.notice import FileNotice
from raylora.execution.outputs import OutFolder, verdict_on, write_json, write_trials_csv
from raylora.execution.refit import trained_on_all
from raylora.execution.registering import describe
from raylora.execution.trial import base_of, encoder_of, pick_device
from raylora.execution.winner import adapter_of, epoch_files, first_seed, lora_paths, write_lora, write_samples
from raylora.tracking.recorder import TrialRecord, measures
from raylora.training.fit import Fit, Report, evaluation_points
from raylora.training.folds import Folds
from raylora.training.trainer import Trainer

Say = Callable[[str], None]
MOST_SAMPLES = 8


@dataclass(frozen=True)
class Training:
    """One configuration, where it writes, and who hears of it."""

    job: Job
    out: OutFolder
    say: Say

    @property
    def experiment(self) -> Experiment:
        return self.job.experiment


def train_job(job: Job, out: OutFolder, holdout: bool, say: Say) -> dict[str, Any]:
    """Train on all images, or with `holdout` on the split's training part, measured at the rungs.

    Returns the summary that is also written to `summary.json`.

    Raises:
        UserError: a model or the output folder can't be used; nothing is left.
    """
    base_of(job.experiment, pick_device())
    if holdout:
        encoder_of(job.experiment, pick_device())
    with out.claimed():
        experiment = absolute(job.experiment)
        write_experiment(experiment, out.experiment)
        if holdout:
            write_splits(job.splits, out.split)
        going_on = {"holds_out": holdout, "digest": job.digest}
        out.write_state("running", **going_on, wall_s=0.0)  # the last of what going on needs
        return _train(Training(replace(job, experiment=experiment), out, say), holdout)


def resume_training(out: OutFolder, say: Say) -> dict[str, Any]:
    """Go on with a training that was interrupted, from its last epoch or rung.

    Raises:
        DatasetError: the pictures or captions are others now.
    """
    state = out.read_unfinished()
    holdout = state["holds_out"]
    job = checked_job(read_experiment(out.experiment), None, out.split if holdout else None, say, holdout, goes_on=True)
    if state.get("digest", job.digest) != job.digest:
        raise DatasetError(
            f"{job.experiment.dataset.path}: pictures, captions or repeats have changed since {out.root} began; "
            "put them back as they were, or begin anew with another --out"
        )
    with out.locked():
        return _train(Training(job, out, say), holdout)


def _train(training: Training, holdout: bool) -> dict[str, Any]:
    out = training.out
    record = TrialRecord("train", 0, {}, is_baseline=True, folder=str(out.trials / "train"))
    with out.working() as wall_s:
        run = _train_measured if holdout else _train_on_all
        run(training, record)
        record.status = "finished"
        record.write()
        write_trials_csv(out.trials_csv, [record], training.job.experiment)
        summary = _summary(record, training, wall_s())
        prompts = None if holdout else _prompts(training)
        write_card(out, describe(out, training.job, summary, prompts))
        write_json(out.summary, summary)
    return summary


def _train_measured(training: Training, record: TrialRecord) -> None:
    """The trials' own way: measures at the rungs, the best checkpoint counts."""
    job, experiment, out = training.job, training.experiment, training.out
    base, encoder = base_of(experiment, pick_device()), encoder_of(experiment, pick_device())
    training.say("Encoding images and measuring the base model …")
    shared = make_shared(base, encoder, job.materials[0], experiment, out.cache)
    schedule = shared.material.schedule(experiment)
    data = training_set(base, shared.material, experiment, entries_in(out.cache))
    evaluator = shared.evaluator(encoder, experiment)
    files = epoch_files(experiment, schedule, shared.material.train, out.root)
    search = experiment.search

    def report(latest: Report) -> bool:
        record.history = fit.history
        record.write()  # a page tells of a training that still runs or was broken off
        training.say(
            f"{latest['images_seen']} images: score {latest['score']:.3f}, held-out loss {latest['holdout_loss']:.4f}"
        )
        return True

    with closing(Trainer(base, data, experiment, schedule)) as trainer:
        notice, folder = FileNotice(say=training.say), Path(record.folder)
        fit = Folds([Fit(trainer, evaluator, shared.reference, folder, epoch_files=files, notice=notice)])
        fit.run(evaluation_points(schedule.images_end, search.grace_period, search.reduction_factor), report)
    record.history = fit.history
    _write_measured(experiment, out, base, evaluator, record, shared.material.train)


def _write_measured(
    experiment: Experiment,
    out: OutFolder,
    base: BaseModel,
    evaluator: Evaluator,
    record: TrialRecord,
    pictures: Sequence[Picture],
) -> None:
    rows = [evaluator.holdout.pixels, first_seed(evaluator, base)]
    with adapter_of(base, experiment, Path(record.folder)) as adapter:
        rows.append(first_seed(evaluator, base))
        write_lora(adapter, experiment, pictures, out.best, title=out.root.name)
    write_samples(out.best / "samples", rows)


def _train_on_all(training: Training, record: TrialRecord) -> None:
    material = Material(training.job.pictures, (), training.job.regularization)
    experiment, folder = training.experiment, Path(record.folder)
    with trained_on_all(experiment, material, training.out, folder, training.say) as trainer:
        _draw_samples(training, trainer.base)
    record.params = {"train_loss": trainer.train_loss, "images_seen": trainer.images_seen}


def _prompts(training: Training) -> list[str]:
    """Of the samples where nothing is held out: the user's own, or else the first captions."""
    captions = [picture.caption for picture in training.job.pictures[:MOST_SAMPLES]]
    return look_prompts(training.experiment) or captions


def _draw_samples(training: Training, base: BaseModel) -> None:
    """The adapter's pictures of the prompts, or else of the first captions, below the pictures that it learned."""
    experiment, pictures = training.experiment, training.job.pictures[:MOST_SAMPLES]
    shown = [framed_pixels(cut) for cut in framed(pictures, experiment.dataset)]
    sizes = [(pixels.shape[1], pixels.shape[0]) for pixels in shown]
    prompts = look_prompts(experiment)
    requests = requests_of(
        _prompts(training),
        experiment.sampling.seeds[:1],
        [experiment.dataset.resolution] * len(prompts) if prompts else sizes,
    )
    at_once = min(experiment.training.batch_size, experiment.evaluation.batch_size)  # no more memory than training
    samples = generate(base, requests, experiment.sampling, at_once)
    write_samples(training.out.best / "samples", [shown, samples])


def _summary(record: TrialRecord, training: Training, wall_s: float) -> dict[str, Any]:
    images = record.images_seen or record.params.get("images_seen", 0)
    best = {
        "trial_id": record.trial_id,
        "score": record.score if record.history else None,
        "params": {},
        "metrics": measures(record.best) if record.best else {"train_loss": record.params["train_loss"]},
        **verdict_on(record, training.job.experiment, [record]),
        **lora_paths(training.out),
    }
    return {
        "best": best,
        "baseline": None,
        "trials": {"finished": 1, "stopped_early": 0, "failed": 0, "total": 1},
        "importance": [],
        "images_seen": images,
        "wall_s": wall_s,
        "registered": None,
        "tracking_uri": None,
        "parent_run_id": None,
    }
