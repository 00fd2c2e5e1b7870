"""Training on all images: what `raylora train` does, and a search with its winner's settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from raylora.config import Experiment
from raylora.execution.material import Material, schedules
from raylora.execution.mirror import refit_at_work
from raylora.execution.node_cache import entries_in, read_folds, training_set
from raylora.execution.notes import leave_note
from raylora.execution.notice import FileNotice
from raylora.execution.outputs import LOSSES_NAME, OutFolder, write_json
from raylora.execution.trial import base_of, beating, pick_device
from raylora.execution.trial_job import HALVED, TrialJob
from raylora.execution.watchdog import watched
from raylora.execution.winner import epoch_files, write_lora
from raylora.training.advancing import Notice
from raylora.training.fit import STATE_NAME, Report, advance_by_epochs
from raylora.training.trainer import Trainer
from raylora.world import World


def refit_experiment(experiment: Experiment, materials: Sequence[Material], images: int) -> Experiment:
    """A winner's settings for all images: the same share of their schedule as of the trial's when that was best.

    The schedule has grown with the pictures, unless `max_images` caps it, so each picture is seen as often.

    Args:
        materials: the trial's own, of each fold, with what is held out.
        images: seen by the trial when it was best.
    """
    of_trial, of_all = schedules(materials, experiment)[0], materials[0].all_learned.schedule(experiment)
    share = images / of_trial.images_total
    return experiment.with_params({"training.stop_at": round(of_all.images_total * share) if share < 1 else None})


def run_refit(config: dict[str, Any], job: TrialJob, report: Callable[[Report], None], world: World = World()) -> None:
    """Train on all images and write the LoRA files of `best/`. Goes on from its last epoch if it was broken off.

    A process that hangs in it is ended, as a trial's is.

    Args:
        config: `params` of the winner and `images`, as many as did it best; `trial_job.HALVED`.
        report: told once, at the end.
    """
    out = OutFolder(job.out)
    torch.set_num_threads(job.threads)
    of_trial = [shared.material for shared in read_folds(out.cache, job.experiment)]
    experiment = refit_experiment(job.experiment.with_params(config["params"]), of_trial, config["images"])
    half = math.ceil(experiment.training.batch_size / world.size / 2) if config.get(HALVED) else None
    material, base = of_trial[0].all_learned, base_of(experiment, pick_device())
    with watched(experiment.search.hang_s) as watch, beating(base, watch.beat):
        notice, kept = FileNotice(watch.beat, leave_note), watch.resting(job.kept)
        with trained_on_all(experiment, material, out, out.refit, None, world, half, kept, notice) as trainer:
            report({"images_seen": trainer.images_seen})


def run_refit_here(
    config: dict[str, Any], job: TrialJob, report: Callable[[Report], None], world: World = World()
) -> None:
    """`run_refit` with this machine's copies of what it needs, where machines share no disk."""
    with refit_at_work(job, world.is_first) as here:
        run_refit(config, here, report, world)


@contextmanager
def trained_on_all(
    experiment: Experiment,
    material: Material,
    out: OutFolder,
    state: Path,
    say: Callable[[str], None] | None = None,
    world: World = World(),
    most_at_once: int | None = None,
    kept: Callable[[], None] = lambda: None,
    notice: Notice | None = None,
) -> Iterator[Trainer]:
    """A trainer that has learned all pictures, its LoRA in `best/`: with none to measure by, the last weights count.

    Args:
        material: none held out.
        state: a folder for checkpoints; if there is one, training goes on from it.
        say: told of the training loss after each epoch, and where training waits for its machine's end.
        most_at_once: images that a worker learns together, if not its whole share of a batch.
        kept: called after each time that the state was written.
        notice: of this machine's end, if `say` isn't to be told of it.
    """
    base, schedule = base_of(experiment, pick_device()), material.schedule(experiment)
    data = training_set(base, material, experiment, entries_in(out.cache))
    files = epoch_files(experiment, schedule, material.train, out.root)
    notice = notice or FileNotice(say=say or (lambda _: None))
    with closing(Trainer(base, data, experiment, schedule, world, most_at_once)) as trainer:

        def tell() -> None:
            if say:
                say(f"{trainer.images_seen} of {schedule.images_end} images: training loss {trainer.train_loss:.4f}")

        advance_by_epochs(trainer, files, state / STATE_NAME, world, tell, notice, kept)
        if world.is_first:
            write_json(out.best / LOSSES_NAME, trainer.losses)
            write_lora(trainer.adapter, experiment, material.train, out.best, title=out.root.name)
        yield trainer
