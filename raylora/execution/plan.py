"""What is about to happen, told before anything starts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from raylora.config import Experiment, SearchConfig, TrainingConfig, describe, flatten, shown
from raylora.dataset.batches import Schedule
from raylora.dataset.folder import Picture, named_repeats
from raylora.diffusion.adapters import count_trained
from raylora.diffusion.families import DTYPES, FAMILIES, checked_clip_skip, resolve_base, skeleton
from raylora.diffusion.lora_file import lora_bytes
from raylora.execution.material import Material, schedules
from raylora.execution.node_cache import framed
from raylora.execution.refit import refit_experiment
from raylora.search.space import Known, SearchSpace
from raylora.training.fit import evaluation_points

BYTES_PER_TRAINED_WEIGHT = 4 * 4
"""A trial keeps its best adapter and its state: weights twice and two optimizer moments, in float32."""
FIXED_BYTES = 200 * 2**20
"""Ray's logs and MLflow's store."""
GRID_BYTES_PER_PX = 2.0
"""A photograph as PNG takes about this much."""


@dataclass(frozen=True)
class Disk:
    """Most that a job writes, by what it is, in bytes."""

    trials: int
    """Each trial's best weights and its state."""
    files: int
    """The LoRA files of `best/` and their copies in MLflow's store, and those of epochs."""
    base: int
    """The folder of a base model in one file, as MLflow loads it beside a registered LoRA."""
    grids: int
    """Samples of every evaluation."""

    @property
    def total(self) -> int:
        return self.trials + self.files + self.base + self.grids + FIXED_BYTES

    def __str__(self) -> str:
        parts = {
            "training state": self.trials,
            "LoRA files": self.files,
            "the base model": self.base,
            "samples": self.grids,
            "logs": FIXED_BYTES,
        }
        named = " + ".join(f"{size / 2**30:.2f} for {name}" for name, size in parts.items() if size)
        return f"up to {self.total / 2**30:.2f} GiB: {named}"


@dataclass(frozen=True)
class Plan:
    """The arithmetic of a job. `trial` is the first point's run, on each fold; `refit` the same on all images."""

    experiment: Experiment
    space: SearchSpace | None
    materials: Sequence[Material]
    """Of each fold; of several the one with the shortest run comes first."""
    trial: Schedule
    refit: Schedule
    points: list[int]
    lora_bytes: int
    disk: Disk

    @property
    def disk_bytes(self) -> int:
        """What the output folder's own disk has to take."""
        elsewhere = self.disk.trials if self.space and self.experiment.search.storage else 0
        return self.disk.total - elsewhere

    def lines(self) -> list[tuple[str, str]]:
        """Label and text of each line, as printed."""
        rows = [
            ("Images", self._images()),
            *self._folds(),
            *self._buckets(),
            ("Base model", str(self.experiment.model.base_model)),
            *([("Judge", self.experiment.evaluation.encoder)] if self.materials[0].holdout else []),
            *self._runs(),
            ("LoRA file", f"{self.lora_bytes / 1e6:.1f} MB ({self.experiment.training.save_precision})"),
            ("Disk", str(self.disk)),
        ]
        return rows + (self._search_lines() if self.space else [("Settings", _settings(self.experiment))])

    @property
    def everything(self) -> list[Picture]:
        return [*self.materials[0].train, *self.materials[0].holdout]

    @property
    def searched(self) -> list[str]:
        """The paths that some trial may search; a function doesn't say them."""
        return self.space.searched(self.experiment) if self.space else []

    @property
    def regularization_images(self) -> int:
        """How many times an epoch shows a regularization image."""
        return sum(picture.repeats for picture in self.materials[0].regularization)

    def _images(self) -> str:
        text = f"{len(self.everything)}"
        if self.materials[0].holdout:
            learned = _span(len(material.train) for material in self.materials)
            text += f" = {learned} to learn + {_span(len(material.holdout) for material in self.materials)} held out"
        if regularization := self.materials[0].regularization:
            text += f"; {len(regularization)} for regularization"
        return text

    def _folds(self) -> list[tuple[str, str]]:
        """What it costs to judge by more than one split."""
        folds = len(self.materials)
        if folds == 1:
            return []
        text = f"{folds}: each trial trains {folds} LoRAs, {folds} times the compute"
        lengths = {material.schedule(self.experiment).images_total for material in self.materials}
        return [("Folds", f"{text}; all as long as the shortest" if len(lengths) > 1 else text)]

    def _buckets(self) -> list[tuple[str, str]]:
        """How many images each size has, where they differ."""
        if not self.experiment.dataset.buckets:
            return []
        sizes = Counter(cut.frame.size for cut in framed(self.everything, self.experiment.dataset))
        return [("Buckets", ", ".join(f"{count} of {wide}x{high}" for (wide, high), count in sizes.most_common()))]

    def _runs(self) -> list[tuple[str, str]]:
        """The steps of what will run, and of what follows a search."""
        trial = self._steps(self.trial, len(self.materials[0].train))
        if not self.space:
            return [("Steps", trial)]
        search, rows = (
            self.experiment.search,
            [("Steps", f"a trial{', each fold' * (len(self.materials) > 1)}: {trial}")],
        )
        if search.confirm_trials:
            best = min(search.confirm_trials, search.trials)
            own = bool(self.space.first_points) and best < search.trials
            rows.append(("", f"then {_again_in_words(best, own, search.confirm_seeds)}"))
        refit = f"the winner on all images, up to: {self._steps(self.refit, len(self.everything))}"
        return [*rows, ("", f"then {refit}")] if search.refit else rows

    def _steps(self, schedule: Schedule, images: int) -> str:
        training, named = self.experiment.training, named_repeats(self.everything)
        an_epoch = f"{images} images × {training.repeats} repeats"
        if training.repeats is None:
            an_epoch = f"the folders' repeats of {images} images"
        elif named and named != [training.repeats]:
            an_epoch += f" (not the folders' {' and '.join(map(str, named))})"
        if self.regularization_images:
            an_epoch = f"({an_epoch} + {self.regularization_images} for regularization)"
        product = schedule.images_per_epoch * training.epochs
        text = f"{an_epoch} × {training.epochs} epochs = {product:,} images"
        if schedule.images_total < product:
            text += f", capped at {schedule.images_total:,}"
        if schedule.images_end < schedule.images_total:
            text += f", stopped after {schedule.images_end:,}"
        return f"{text}; ÷ batch {schedule.batch_size} = {schedule.micro_steps:,} steps"

    def _search_lines(self) -> list[tuple[str, str]]:
        assert self.space is not None
        search = self.experiment.search
        how = f"proposed by {search.optuna_sampler}, stopped by {search.trial_scheduler}"
        if search.optuna_sampler == search.trial_scheduler:
            how = f"proposed and stopped by {search.optuna_sampler}"
        return [
            ("Search", f"{search.trials} trials of {self.space.name}: {how}"),
            ("Searched", self.space.function or ", ".join(self.searched)),
            *_fixed_lines(self.space, self.experiment),
            *_unsearched_lines(self.space, self.experiment),
            ("First point", _first_point(self.space)),
            *(
                [("Storage", f"{search.storage}, for the trials' files and the encoded images")]
                if search.storage
                else []
            ),
            *([("Limits", limits)] if (limits := describe(search.limits.model_dump(exclude_none=True))) else []),
            ("Rungs", f"{', '.join(f'{point:,}' for point in self.points)} images seen"),
        ]


def _again_in_words(best: int, own: bool, seeds: int) -> str:
    """What is trained again with new seeds.

    Args:
        best: how many trials; `own` where the guide's settings are trained too.
    """
    trials = "the best trial" if best == 1 else f"the best {best} trials"
    guide, each = " and the guide's own settings" if own else "", " each" if own or best > 1 else ""
    seed = f"{seeds} new seed{'s' * (seeds > 1)}{each}"
    return f"{trials}{guide} once more, with {seed}, for as many images as were best"


def _span(counts: Iterable[int]) -> str:
    """How many, of each fold."""
    ordered = sorted(counts)
    least, most = ordered[0], ordered[-1]
    return str(least) if least == most else f"{least} to {most}"


def _settings(experiment: Experiment) -> str:
    """The settings that people ask for first."""
    values = flatten(experiment.model_dump())
    rates = {"optimizer.unet_lr": experiment.optimizer.unet_rate}
    if experiment.model.train_text_encoder:
        rates["optimizer.text_encoder_lr"] = experiment.optimizer.text_encoder_rate
    first = {path: values[path] for path in ("lora.rank", "lora.alpha", "optimizer.name")}
    return describe(first | rates | {"lr_scheduler.name": experiment.lr_scheduler.name})


def _fixed_lines(space: SearchSpace, experiment: Experiment) -> list[tuple[str, str]]:
    """What the space would search, had it not been set: a line for each file or option."""
    values, by_source = Known(experiment), defaultdict[str, list[str]](list)
    for path, source in space.fixed.items():
        by_source[source].append(f"{path} {shown(values[path])}")
    return [(f"Fixed by {source}: ", ", ".join(settings)) for source, settings in by_source.items()]


def _unsearched_lines(space: SearchSpace, experiment: Experiment) -> list[tuple[str, str]]:
    """What the space names and no trial searches, and why: a condition may hang on what was set by hand."""
    reasons = [f"{path}, since {reason}" for path, reason in space.unsearched(experiment).items()]
    return [("Not searched: ", "; ".join(reasons))] if reasons else []


def _first_point(space: SearchSpace) -> str:
    return describe(space.first_points[0]) if space.first_points else "none: the space has no first_points"


def make_plan(experiment: Experiment, space: SearchSpace | None, materials: Sequence[Material]) -> Plan:
    """Work out steps, rungs, file size and disk; reads no weights.

    Args:
        materials: of each fold.
    """
    if space and space.first_points:
        experiment = experiment.with_params(space.first_points[0])
    folds = len(materials)
    materials = sorted(materials, key=lambda material: material.schedule(experiment).images_total)
    trial = schedules(materials, experiment)[0]
    parts = _parts(experiment)
    largest = _trained_weights(parts, experiment, _largest_rank(experiment, space))
    loras = (experiment.search.trials + _again(experiment.search)) * folds + experiment.search.refit if space else 1
    file_bytes, precision = lora_bytes(parts, experiment), DTYPES[experiment.training.save_precision]
    search = experiment.search
    points = evaluation_points(trial.images_end, search.grace_period, search.reduction_factor)
    evaluations = search.trials * len(points) + _again(search) if space else len(points)
    grids = evaluations * sum(_grid_bytes(experiment, len(material.holdout)) for material in materials)
    saved = _epoch_files(trial, experiment.training) * precision.itemsize * largest
    saving = search.trials * folds + search.refit if space else 1
    return Plan(
        experiment=experiment,
        space=space,
        materials=materials,
        trial=trial,
        refit=materials[0].all_learned.schedule(refit_experiment(experiment, materials, trial.images_end)),
        points=points,
        lora_bytes=file_bytes,
        disk=Disk(
            trials=loras * largest * BYTES_PER_TRAINED_WEIGHT,
            files=4 * file_bytes + saving * saved,
            base=_base_bytes(experiment) if space else 0,
            grids=grids,
        ),
    )


def _again(search: SearchConfig) -> int:
    """How many trainings with new seeds there are at most: of the best trials and of the first point."""
    if not search.confirm_trials:
        return 0
    return min(search.confirm_trials + 1, search.trials) * search.confirm_seeds


def _epoch_files(schedule: Schedule, training: TrainingConfig) -> int:
    """How many files of epochs a training leaves."""
    if training.save_every_epochs is None:
        return 0
    saved = schedule.images_end // (schedule.images_per_epoch * training.save_every_epochs)
    return min(saved, training.keep_last or saved)


def _base_bytes(experiment: Experiment) -> int:
    """Room for a registered winner's base model, where that is one file and so no folder that MLflow could load."""
    file = Path(str(experiment.model.base_model)).expanduser()
    return file.stat().st_size if experiment.tracking.register_name and file.is_file() else 0


def _grid_bytes(experiment: Experiment, held_out: int) -> int:
    """Room for the sample grid of one evaluation, in the output folder and in MLflow's store."""
    pictures = min(held_out, experiment.evaluation.max_images) * (1 + len(experiment.sampling.seeds))
    return 2 * round(pictures * experiment.dataset.bucket_area_px * GRID_BYTES_PER_PX)


def _largest_rank(experiment: Experiment, space: SearchSpace | None) -> int:
    parameter = space.parameters.get("lora.rank") if space else None
    if parameter is None:
        return experiment.lora.rank
    return int(max(float(value) for value in (parameter.choices or (parameter.high or 1,))))


def _parts(experiment: Experiment) -> dict[str, nn.Module]:
    """The base model's parts without weights, once what the settings say of its layers was looked at."""
    model = experiment.model
    family = FAMILIES[model.family]
    parts = skeleton(family, resolve_base(model.base_model, model.family) if model.base_model else None)
    checked_clip_skip(model.clip_skip or family.clip_skip, {part: parts[part] for part in family.text_encoders})
    return parts


def _trained_weights(parts: Mapping[str, nn.Module], experiment: Experiment, rank: int) -> int:
    lora = experiment.lora.model_copy(update={"rank": rank})
    return count_trained(parts, lora, experiment.model.train_text_encoder)
