"""A trainer with its judge: move to the next rung, measure, write down what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from PIL import Image

from raylora.dataset.batches import rungs
from raylora.dataset.pixels import Pixels
from raylora.diffusion.lora_file import lora_bytes
from raylora.errors import TrainingDivergedError
from raylora.evaluation.grid import sample_grid
from raylora.evaluation.scorecard import Evaluator, Metrics, Reference, is_finite
from raylora.files import STATE_NAME as STATE_NAME
from raylora.training.advancing import Keeping, NoNotice, Notice, advance_keeping
from raylora.training.checkpoint import no_state, read_state, write_state, write_weights
from raylora.training.epoch_files import EpochFiles
from raylora.training.trainer import Trainer
from raylora.world import World

BEST_NAME = "best.safetensors"
SAMPLES_FOLDER = "samples"

Report = dict[str, Any]
"""All measures, the costs (`Fit.costs`), `image_scores` of the held-out images, `best_score`, `train_loss`,
`images_seen`, `is_finished`, and `train_losses` since the last report."""


def evaluation_points(images_total: int, grace_period: int, reduction_factor: float) -> list[int]:
    """The rungs below the end, in images seen, and the end itself."""
    return [*takewhile(lambda rung: rung < images_total, rungs(grace_period, reduction_factor)), images_total]


def advance_by_epochs(
    trainer: Trainer,
    files: EpochFiles | None,
    state: Path,
    world: World = World(),
    tell: Callable[[], None] = lambda: None,
    notice: Notice = NoNotice(),
    kept: Callable[[], None] = lambda: None,
) -> None:
    """Train to the end, from the state if there is one. After every epoch it is written anew and `tell` is called.

    Args:
        kept: called after each time that the state was written.
    """
    if state.is_file():
        _go_on_from(state, trainer.load_state_dict)

    def write() -> None:
        write_state(state, trainer.state_dict())
        kept()

    keeping = Keeping(write, trainer.config.training.checkpoint_images, files, notice, world)
    while not trainer.is_done:
        epoch = trainer.images_seen // trainer.schedule.images_per_epoch
        advance_keeping(trainer, (epoch + 1) * trainer.schedule.images_per_epoch, keeping)
        if world.is_first:
            write()
        tell()


def _go_on_from(file: Path, load: Callable[[dict[str, Any]], None]) -> None:
    """Load a kept state.

    Raises:
        OutputError: it lacks something, or is of other settings.
    """
    state = read_state(file)
    try:
        load(state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise no_state(file) from None


@dataclass
class Fit:
    """One LoRA's way from its first image to its last, with everything it leaves in `folder`.

    The folder holds `state.pt` (to go on from), `best.safetensors` (the adapter where its owner called it best, in
    full precision) and `samples/`. A Fit made on a folder with a state goes on from there.
    """

    trainer: Trainer
    evaluator: Evaluator
    reference: Reference
    folder: Path
    world: World = World()
    epoch_files: EpochFiles | None = None
    notice: Notice = NoNotice()
    kept: Callable[[], None] = lambda: None
    """Called by the first worker after it has written a state or weights: whoever reads them elsewhere gets them so."""

    def __post_init__(self) -> None:
        self.history: list[Report] = []
        state_file = self.folder / STATE_NAME
        if state_file.is_file():
            _go_on_from(state_file, self._load)

    def _load(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state["trainer"])
        self.history = list(state["history"])

    @property
    def best_score(self) -> float:
        return max((report["score"] for report in self.history), default=float("-inf"))

    def pass_by(self, images: int) -> None:
        """Train to `images` images seen and keep the state, unmeasured."""
        if images > self.trainer.images_seen:
            self._advance(images)
            if self.world.is_first:
                self._write_state()

    def _advance(self, images: int) -> None:
        every = self.trainer.config.training.checkpoint_images
        keeping = Keeping(self._write_state, every, self.epoch_files, self.notice, self.world)
        advance_keeping(self.trainer, images, keeping)

    def _write_state(self) -> None:
        write_state(self.folder / STATE_NAME, {"trainer": self.trainer.state_dict(), "history": self.history})
        self.kept()

    def step(self, images: int) -> Report:
        """Train to `images` images seen, measure, and write down what came of it.

        Raises:
            TrainingDivergedError: a loss or a measure is no longer a number.
        """
        since = self.history[-1]["images_seen"] if self.history else 0
        self._advance(images)
        self.trainer.adapter.activate()
        evaluation = self.evaluator.measure(self.trainer.base, self.reference, self.world)
        metrics = self.world.from_first(evaluation.metrics)
        if not is_finite(metrics):
            raise TrainingDivergedError(f"a measure stopped being a number at {self.trainer.images_seen} images")
        report = self._make_report(metrics, evaluation.image_scores, since)
        self.history.append(report)
        if self.world.is_first:
            self._keep(evaluation.samples)
        return report

    def costs(self) -> dict[str, float]:
        """`train_s`, `peak_memory_gib` and `lora_mb` so far; of several workers, the most of any, as all must agree."""
        meter = self.trainer.meter
        every = self.world.gather([(meter.train_s, meter.peak_memory_gib)])
        train_s, peak_memory_gib = map(max, zip(*every, strict=True))
        lora_mb = lora_bytes(self.trainer.base.parts, self.trainer.config) / 1e6
        return {"train_s": train_s, "peak_memory_gib": peak_memory_gib, "lora_mb": lora_mb}

    def _make_report(self, metrics: Metrics, image_scores: list[float], since: int) -> Report:
        return {
            **metrics,
            **self.costs(),
            "image_scores": image_scores,
            "best_score": max(metrics["score"], self.best_score),
            "train_loss": self.trainer.train_loss,
            "images_seen": self.trainer.images_seen,
            "is_finished": self.trainer.is_done,
            "train_losses": [point for point in self.trainer.losses if point[0] > since],
        }

    def keep_best(self) -> None:
        """The adapter as it is now is the best one so far."""
        if self.world.is_first:
            write_weights(self.folder / BEST_NAME, self.trainer.weights())
            self.kept()

    def _keep(self, samples: Sequence[Pixels]) -> None:
        """Samples first, the state last: a state never speaks of pictures that aren't there."""
        folder = self.folder / SAMPLES_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        place = f"{self.trainer.images_seen:06d}.png"
        Image.fromarray(self.evaluator.grid(samples)).save(folder / f"images_{place}")
        if self.evaluator.looks:
            looks = self.evaluator.sample(self.trainer.base, self.evaluator.looks)
            Image.fromarray(sample_grid([looks])).save(folder / f"prompts_{place}")
        self._write_state()
