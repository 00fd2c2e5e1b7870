"""The pictures of a job by what they are for, and whether all that is made of them is there; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raylora.config import Experiment
from raylora.dataset.batches import Schedule, make_schedule
from raylora.dataset.folder import Picture
from raylora.dataset.remote import here
from raylora.files import fold_folders

TEXTS_NAME = "images.json"
"""Of all that trials share, what is written last."""


@dataclass(frozen=True)
class Material:
    """The pictures of a job by what they are for."""

    train: Sequence[Picture]
    holdout: Sequence[Picture]
    regularization: Sequence[Picture] = ()

    @property
    def all_learned(self) -> Material:
        """None held out, in the folder's order: a refit then learns what `raylora train` does."""
        pictures = sorted([*self.train, *self.holdout], key=lambda picture: picture.path)
        return Material(pictures, (), self.regularization)

    def here(self, experiment: Experiment) -> Material:
        """The same pictures in this machine's copies, where another one has read them from object storage."""
        datasets = (experiment.dataset.path, experiment.dataset.regularization)
        parts = (self.train, self.holdout, self.regularization)
        return Material(*([replace(one, path=here(one.path, datasets)) for one in part] for part in parts))

    def schedule(self, experiment: Experiment) -> Schedule:
        """The length of a run on the training and regularization pictures."""
        return make_schedule(
            [picture.repeats for picture in self.train],
            experiment.training,
            [picture.repeats for picture in self.regularization],
        )


def schedules(materials: Sequence[Material], experiment: Experiment) -> list[Schedule]:
    """Of the run on each fold's pictures: all as long as the shortest, so that their rungs are at the same steps."""
    own = [material.schedule(experiment) for material in materials]
    shortest = min(schedule.images_total for schedule in own)
    return [replace(schedule, images_total=shortest) for schedule in own]


def look_prompts(experiment: Experiment) -> list[str]:
    """The user's sample prompts with the trigger word filled in."""
    trigger = experiment.dataset.trigger or ""
    return [prompt.replace("{trigger}", trigger) for prompt in experiment.sampling.prompts]


def is_shared(folder: Path, experiment: Experiment) -> bool:
    """Whether everything that `node_cache.read_folds` reads is there."""
    return all((place / TEXTS_NAME).is_file() for place in fold_folders(folder, experiment.dataset.folds))
