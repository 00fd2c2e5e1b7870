"""One trial: settings in, reports out. The same on one device and on several workers; knows Tune only by `report`."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raylora.config import Experiment, LimitsConfig
from raylora.diffusion.base import UNET, BaseModel
from raylora.diffusion.families import load_base
from raylora.diffusion.lora_file import lora_bytes
from raylora.evaluation.encoders import ImageEncoder, load_encoder
from raylora.execution.gpu_part import keep_to_part
from raylora.execution.material import schedules
from raylora.execution.mirror import trial_at_work
from raylora.execution.node_cache import entries_in, read_folds, training_set
from raylora.execution.notes import leave_note
from raylora.execution.notice import FileNotice
from raylora.execution.outputs import OutFolder
from raylora.execution.trial_job import HALVED, STOP_REASON, TrialJob
from raylora.execution.watchdog import watched
from raylora.execution.winner import epoch_files
from raylora.files import fold_folders
from raylora.search.limits import in_words, over_limits
from raylora.search.stopping import IS_OVER, is_overfitting
from raylora.training.advancing import Notice
from raylora.training.fit import Fit, Report, evaluation_points
from raylora.training.folds import Folds
from raylora.training.trainer import Trainer
from raylora.world import World

_shared_load = functools.lru_cache(maxsize=1)(load_base)


@functools.lru_cache(maxsize=1)
def _shared_encoder(reference: str, device: str) -> ImageEncoder:
    return load_encoder(reference, device)


def pick_device() -> str:
    """The GPU that was given to this process, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def devices_here() -> str:
    """What this machine has to train on, in words."""
    names = sorted({torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())})
    if names:
        return f"{torch.cuda.device_count()} GPU ({', '.join(names)})"
    return f"CPU, {os.cpu_count()} cores (torch finds no GPU here)"


def base_of(experiment: Experiment, device: str) -> BaseModel:
    """The base model of this process: trials that run here one after another share it.

    Whoever leaves something on it, as a LoRA that was loaded from a file, takes `fresh_base`.
    """
    return _base_by(_shared_load, experiment, device)


def fresh_base(experiment: Experiment, device: str) -> BaseModel:
    """A base model of one's own."""
    return _base_by(load_base, experiment, device)


def _base_by(load: Callable[..., BaseModel], experiment: Experiment, device: str) -> BaseModel:
    training = experiment.training
    model = experiment.model.model_copy(update={"train_text_encoder": True})  # the trial's own; changes no weights
    assert model.base_model is not None
    return load(model.base_model, training.mixed_precision, device, model, training.channels_last, training.compile)


def encoder_of(experiment: Experiment, device: str) -> ImageEncoder:
    """The image encoder of this process."""
    return _shared_encoder(experiment.evaluation.encoder, device)


def run_trial(config: dict[str, Any], job: TrialJob, report: Callable[[Report], None], world: World = World()) -> None:
    """Train one configuration to its end, to an overfit stop, or until `report` doesn't return.

    Args:
        config: `number`, `params` (dotted paths) and `is_baseline` as the searcher gave them; `trial_job.HALVED`.
        report: hands a report to whoever runs the trial; ending the trial from there is allowed.

    Raises:
        RayloraError: the trial failed.
    """
    job.folder(config["number"]).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(job.threads)
    keep_to_part(job.experiment.search.gpus_per_trial)
    experiment = job.experiment.with_params(config["params"])
    base = base_of(experiment, pick_device())
    with watched(experiment.search.hang_s) as watch, beating(base, watch.beat):
        notice, kept = FileNotice(watch.beat, leave_note), watch.resting(job.kept)
        trial = _Trial(config, job, *_at_once(experiment, config, world), world, notice, kept)
        _run(trial, watch.resting(report))  # until whoever hears of a report lets the trial go on


def run_trial_here(
    config: dict[str, Any], job: TrialJob, report: Callable[[Report], None], world: World = World()
) -> None:
    """`run_trial` with this machine's copies of what it needs, where machines share no disk."""
    with trial_at_work(job, config["number"]) as here:
        run_trial(config, here, report, world)


@dataclass(frozen=True)
class _Trial:
    """A trial under way in this process."""

    config: dict[str, Any]
    job: TrialJob
    experiment: Experiment
    most_at_once: int | None
    """Images that this worker learns together, if not its whole share of a batch."""
    world: World
    notice: Notice
    kept: Callable[[], None]

    @property
    def may_stop(self) -> bool:
        return not self.config["is_baseline"] and not self.job.is_confirming

    @property
    def folder(self) -> Path:
        return self.job.folder(self.config["number"])


def _at_once(experiment: Experiment, config: dict[str, Any], world: World) -> tuple[Experiment, int | None]:
    """Settings, and the most images that a worker learns together, where all of them may be too many."""
    if not config.get(HALVED):
        return experiment, None
    halved = experiment.with_params({"evaluation.batch_size": math.ceil(experiment.evaluation.batch_size / 2)})
    return halved, math.ceil(experiment.training.batch_size / world.size / 2)


@contextmanager
def beating(base: BaseModel, beat: Callable[[], None]) -> Iterator[None]:
    """Every step of training, measuring and sampling goes through the U-Net."""
    hook = base.parts[UNET].register_forward_pre_hook(lambda *_: beat())
    try:
        yield
    finally:
        hook.remove()


def _too_large(lora_mb: float, limits: LimitsConfig) -> Report | None:
    """What a trial reports that isn't trained, since its file would be over the limit."""
    over = over_limits(limits, {"lora_mb": lora_mb})
    if not over:
        return None
    reason = f"limit: {in_words(limits, over)}"
    return {**over, "images_seen": 0, "best_score": float("-inf"), STOP_REASON: reason, IS_OVER: False}


def _run(trial: _Trial, report: Callable[[Report], None]) -> None:
    search, parts = trial.experiment.search, base_of(trial.experiment, pick_device()).parts
    if trial.may_stop and (untrained := _too_large(lora_bytes(parts, trial.experiment) / 1e6, search.limits)):
        report(untrained)
        return
    with _folds(trial) as (folds, images_end):
        points = evaluation_points(images_end, search.grace_period, search.reduction_factor)

        def report_and_judge(latest: Report) -> bool:
            is_over, reason = latest["is_finished"], None
            if trial.may_stop and (over := over_limits(search.limits, latest)):
                is_over, reason = False, f"limit: {in_words(search.limits, over)}"
            elif trial.may_stop and not is_over and is_overfitting(folds.history, search.overfit_patience):
                is_over, reason = True, "overfit"
            report({**latest, STOP_REASON: reason, IS_OVER: is_over})
            return reason is None

        for earlier in folds.history[:-1]:  # of a resumed trial: reports may have got lost, and new rungs want them
            report({**earlier, STOP_REASON: None, IS_OVER: False})
        if folds.history and not report_and_judge(folds.history[-1]):
            return
        if not trial.job.is_confirming:
            folds.run(points, report_and_judge)
        elif not folds.history:  # measured once, where its trial was best; a whole step may have taken it there already
            for point in points[:-1]:
                folds.pass_by(point)
            report_and_judge(folds.step(points[-1]))


@contextmanager
def _folds(trial: _Trial) -> Iterator[tuple[Folds, int]]:
    """The LoRAs of a trial, wherever they stand, on one base model; and the images that each sees in all."""
    experiment, cache, device = trial.experiment, OutFolder(trial.job.out).cache, pick_device()
    shares, base, encoder = read_folds(cache, experiment), base_of(experiment, device), encoder_of(experiment, device)
    lengths = schedules([shared.material for shared in shares], experiment)
    with ExitStack() as trainers:
        fits = []
        for shared, schedule, place in zip(shares, lengths, fold_folders(trial.folder, len(shares)), strict=True):
            data = training_set(base, shared.material, experiment, entries_in(cache))
            made = Trainer(base, data, experiment, schedule, trial.world, trial.most_at_once)
            trainer, evaluator = trainers.enter_context(closing(made)), shared.evaluator(encoder, experiment)
            no_files = trial.job.is_confirming
            files = None if no_files else epoch_files(experiment, schedule, shared.material.train, place)
            of_trial = (place, trial.world, files, trial.notice, trial.kept)
            fits.append(Fit(trainer, evaluator, shared.reference, *of_trial))
        yield Folds(fits), lengths[0].images_end
