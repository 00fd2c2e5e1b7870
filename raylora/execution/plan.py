"""What is about to happen, told before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raylora.config import Experiment
from raylora.dataset.batches import Schedule, make_schedule
from raylora.dataset.folder import Picture
from raylora.dataset.split import Split
from raylora.diffusion.adapters import PARTS, count_parameters
from raylora.diffusion.families import FAMILIES, resolve_base, skeleton
from raylora.search.space import SearchSpace
from raylora.training.fit import evaluation_points

BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
BYTES_PER_TRAINED_WEIGHT = 4 * 4
"""A trial keeps its best adapter and its state: weights twice and two optimizer moments, in float32."""
FIXED_BYTES = 200 * 2**20
"""Ray's logs, MLflow's store and sample grids."""


@dataclass(frozen=True)
class Plan:
    """The arithmetic of a job. `trial` is the first point's run, `refit` the same on all images."""

    experiment: Experiment
    space: SearchSpace | None
    pictures: Sequence[Picture]
    split: Split
    trial: Schedule
    refit: Schedule
    points: list[int]
    lora_bytes: int
    disk_bytes: int

    def lines(self) -> list[tuple[str, str]]:
        """Label and text of each line, as printed."""
        rows = [
            ("Images", f"{len(self.pictures)} = {len(self.split.train)} to learn + {len(self.split.holdout)} held out"),
            ("Base model", str(self.experiment.model.base_model)),
            ("Steps", self._steps("a trial", self.trial, len(self.split.train))),
            ("", self._steps("on all images", self.refit, len(self.pictures))),
            ("LoRA file", f"{self.lora_bytes / 1e6:.1f} MB ({self.experiment.training.save_precision})"),
            ("Disk", f"up to {self.disk_bytes / 2**30:.2f} GiB"),
        ]
        return rows + (self._search_lines() if self.space else [])

    def _steps(self, label: str, schedule: Schedule, images: int) -> str:
        training = self.experiment.training
        repeats = "folder's" if training.repeats is None else str(training.repeats)
        product = schedule.images_per_epoch * training.epochs
        text = f"{label}: {images} images × {repeats} repeats × {training.epochs} epochs = {product:,} images"
        if schedule.images_total < product:
            text += f", capped at {schedule.images_total:,}"
        return f"{text}; ÷ batch {schedule.batch_size} = {schedule.micro_steps:,} steps"

    def _search_lines(self) -> list[tuple[str, str]]:
        assert self.space is not None
        search = self.experiment.search
        searched = ", ".join(self.space.parameters) or str(self.space.function)
        return [
            (
                "Search",
                f"{search.trials} trials of {self.space.name}: {search.optuna_sampler} + {search.trial_scheduler}",
            ),
            ("Searched", searched),
            ("First point", _first_point(self.space)),
            ("Rungs", f"{', '.join(f'{point:,}' for point in self.points)} images seen"),
        ]


def _first_point(space: SearchSpace) -> str:
    if not space.first_points:
        return "none: the space has no first_points"
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in space.first_points[0].items())


def make_plan(experiment: Experiment, space: SearchSpace | None, pictures: list[Picture], split: Split) -> Plan:
    """Work out steps, rungs, file size and disk; reads no weights."""
    if space and space.first_points:
        experiment = experiment.with_params(space.first_points[0])
    trial = make_schedule([picture.repeats for picture in split.train], experiment.training)
    largest = _trained_weights(experiment, _largest_rank(experiment, space))
    trials = experiment.search.trials if space else 1
    lora_bytes = _trained_weights(experiment, experiment.lora.rank) * BYTES[experiment.training.save_precision]
    return Plan(
        experiment=experiment,
        space=space,
        pictures=pictures,
        split=split,
        trial=trial,
        refit=make_schedule([picture.repeats for picture in pictures], experiment.training),
        points=evaluation_points(
            trial.images_total, experiment.search.grace_period, experiment.search.reduction_factor
        ),
        lora_bytes=lora_bytes,
        disk_bytes=trials * largest * BYTES_PER_TRAINED_WEIGHT + 4 * lora_bytes + FIXED_BYTES,
    )


def _largest_rank(experiment: Experiment, space: SearchSpace | None) -> int:
    parameter = space.parameters.get("lora.rank") if space else None
    if parameter is None:
        return experiment.lora.rank
    return int(max(float(value) for value in (parameter.choices or (parameter.high or 1,))))


def _trained_weights(experiment: Experiment, rank: int) -> int:
    base = experiment.model.base_model
    reference = resolve_base(base) if base else None
    local = reference if reference and Path(reference).is_dir() else None
    modules = dict(zip(PARTS, skeleton(FAMILIES[experiment.model.family], local), strict=True))
    lora = experiment.lora.model_copy(update={"rank": rank})
    parts = PARTS if experiment.model.train_text_encoder else PARTS[:1]
    return sum(count_parameters(modules[part], part, lora) for part in parts)
