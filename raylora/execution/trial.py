"""One trial: settings in, reports out. The same on one device and on several workers; knows Tune only by `report`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from raylora.config import Experiment, LimitsConfig
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import load_base
from raylora.diffusion.lora_file import lora_bytes
from raylora.errors import DIVERGED, RayloraError, TrainingDivergedError
from raylora.evaluation.encoders import ImageEncoder, load_encoder
from raylora.execution.gpu_share import keep_to_part
from raylora.execution.material import schedules
from raylora.execution.node_cache import entries_in, read_folds, training_set
from raylora.execution.outputs import OutFolder
from raylora.execution.trial_job import ERROR_NAME, STOP_REASON, TrialJob
from raylora.execution.winner import epoch_files
from raylora.files import fold_folders
from raylora.search.limits import in_words, over_limits
from raylora.search.stopping import IS_OVER, is_overfitting
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
        config: `number`, `params` (dotted paths) and `is_baseline` as the searcher gave them.
        report: hands a report to whoever runs the trial; ending the trial from there is allowed.

    Raises:
        RayloraError: the trial failed; the reason is also in `error.txt` in its folder.
    """
    folder = job.folder(config["number"])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(job.threads)
    keep_to_part(job.experiment.search.gpus_per_trial)
    if world.is_first:
        (folder / ERROR_NAME).unlink(missing_ok=True)  # of an earlier part of the same search
    try:
        _run(config, job, folder, report, world)
    except Exception as error:
        beginning = DIVERGED if isinstance(error, TrainingDivergedError) else ""
        _write_reason(folder / ERROR_NAME, beginning + reason_of_failure(error))
        raise


def _write_reason(file: Path, reason: str) -> None:
    """Of several workers the first to fail knows why; the others only see it gone."""
    with suppress(FileExistsError), file.open("x", encoding="utf-8") as opened:
        opened.write(reason)


def reason_of_failure(error: Exception) -> str:
    """One line on why a piece of work failed, with the mend where there is one."""
    if isinstance(error, RayloraError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return (
            "out of GPU memory; lower training.batch_size or evaluation.batch_size, "
            "or set training.gradient_checkpointing=true"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return ": ".join(filter(None, (os.strerror(error.errno), str(error.filename or ""))))
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _too_large(lora_mb: float, limits: LimitsConfig) -> Report | None:
    """What a trial reports that isn't trained, since its file would be over the limit."""
    over = over_limits(limits, {"lora_mb": lora_mb})
    if not over:
        return None
    reason = f"limit: {in_words(limits, over)}"
    return {**over, "images_seen": 0, "best_score": float("-inf"), STOP_REASON: reason, IS_OVER: False}


def _run(config: dict[str, Any], job: TrialJob, folder: Path, report: Callable[[Report], None], world: World) -> None:
    experiment = job.experiment.with_params(config["params"])
    search = experiment.search
    may_stop = not config["is_baseline"] and not job.is_confirming
    parts = base_of(experiment, pick_device()).parts
    if may_stop and (untrained := _too_large(lora_bytes(parts, experiment) / 1e6, search.limits)):
        report(untrained)
        return
    with _folds(experiment, job, folder, world) as (folds, images_end):
        points = evaluation_points(images_end, search.grace_period, search.reduction_factor)

        def report_and_judge(latest: Report) -> bool:
            is_over, reason = latest["is_finished"], None
            if may_stop and (over := over_limits(search.limits, latest)):
                is_over, reason = False, f"limit: {in_words(search.limits, over)}"
            elif may_stop and not is_over and is_overfitting(folds.history, search.overfit_patience):
                is_over, reason = True, "overfit"
            report({**latest, STOP_REASON: reason, IS_OVER: is_over})
            return reason is None

        for earlier in folds.history[:-1]:  # of a resumed trial: reports may have got lost, and new rungs want them
            report({**earlier, STOP_REASON: None, IS_OVER: False})
        if folds.history and not report_and_judge(folds.history[-1]):
            return
        if not job.is_confirming:
            folds.run(points, report_and_judge)
        elif not folds.history:  # measured once, where its trial was best; a whole step may have taken it there already
            for point in points[:-1]:
                folds.pass_by(point)
            report_and_judge(folds.step(points[-1]))


@contextmanager
def _folds(experiment: Experiment, job: TrialJob, folder: Path, world: World) -> Iterator[tuple[Folds, int]]:
    """The LoRAs of a trial, wherever they stand, on one base model; and the images that each sees in all."""
    cache, device = OutFolder(job.out).cache, pick_device()
    shares, base, encoder = read_folds(cache, experiment), base_of(experiment, device), encoder_of(experiment, device)
    lengths = schedules([shared.material for shared in shares], experiment)
    with ExitStack() as trainers:
        fits = []
        for shared, schedule, place in zip(shares, lengths, fold_folders(folder, len(shares)), strict=True):
            data = training_set(base, shared.material, experiment, entries_in(cache))
            trainer = trainers.enter_context(closing(Trainer(base, data, experiment, schedule, world)))
            files = None if job.is_confirming else epoch_files(experiment, schedule, shared.material.train, place)
            fits.append(Fit(trainer, shared.evaluator(encoder, experiment), shared.reference, place, world, files))
        yield Folds(fits), lengths[0].images_end
