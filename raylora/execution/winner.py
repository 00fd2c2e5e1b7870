"""From a trial's best weights to `best/`: LoRA files, settings that run again, samples beside the real pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from raylora.config import Experiment
from raylora.config_files import write_experiment
from raylora.dataset.batches import Schedule, own_repeats
from raylora.dataset.folder import Picture
from raylora.dataset.pixels import Pixels
from raylora.diffusion.adapters import Adapter
from raylora.diffusion.base import BaseModel
from raylora.diffusion.lora_file import LoraCard, write_diffusers, write_kohya
from raylora.diffusion.places import DIFFUSERS_NAME, KOHYA_NAME
from raylora.evaluation.grid import sample_grid
from raylora.evaluation.scorecard import Evaluator
from raylora.evaluation.strength import AS_TRAINED, StrengthSweep, sweep_strengths
from raylora.execution.node_cache import SharedData
from raylora.execution.outputs import EXPERIMENT_NAME, OutFolder
from raylora.files import first_fold
from raylora.tracking.recorder import TrialRecord
from raylora.training.checkpoint import read_weights
from raylora.training.epoch_files import EPOCHS_FOLDER, EpochFiles
from raylora.training.fit import BEST_NAME

GRID_NAME, STRENGTHS_NAME = "grid.png", "strengths.png"


@contextmanager
def adapter_of(base: BaseModel, experiment: Experiment, folder: Path) -> Iterator[Adapter]:
    """The best adapter of a trial's folder (of its first fold), on the base model while the block lasts."""
    adapter = Adapter(base, experiment.lora, "winner", experiment.model.train_text_encoder, experiment.seed)
    try:
        adapter.load_state_dict(read_weights(first_fold(folder) / BEST_NAME))
        adapter.activate()
        yield adapter
    finally:
        adapter.close()


def lora_card(experiment: Experiment, pictures: Sequence[Picture], title: str) -> LoraCard:
    """What the files of a LoRA say about it, and about the pictures that it learned."""
    captions = [picture.caption for picture in pictures]
    return LoraCard(
        title=title,
        resolution=experiment.dataset.resolution,
        train_images=sum(own_repeats([picture.repeats for picture in pictures], experiment.training)),
        save_precision=experiment.training.save_precision,
        trigger=experiment.dataset.trigger,
        tag_frequency={title: tag_frequency(captions)},
        clip_skip=experiment.model.clip_skip,
    )


def epoch_files(experiment: Experiment, schedule: Schedule, pictures: Sequence[Picture], folder: Path) -> EpochFiles:
    """Files in kohya's layout below `folder`, as `training.save_every_epochs` wants them."""
    card = lora_card(experiment, pictures, folder.name)

    def write(adapter: Adapter, path: Path) -> None:
        write_kohya(adapter, path, card)

    return EpochFiles(folder / EPOCHS_FOLDER, schedule, experiment.training, write)


def write_lora(adapter: Adapter, experiment: Experiment, pictures: Sequence[Picture], folder: Path, title: str) -> None:
    """`lora.safetensors` (kohya), `pytorch_lora_weights.safetensors` (diffusers) and the settings."""
    card = lora_card(experiment, pictures, title)
    folder.mkdir(parents=True, exist_ok=True)
    write_kohya(adapter, folder / KOHYA_NAME, card)
    write_diffusers(adapter, folder, experiment.training.save_precision, card)
    write_experiment(experiment, folder / EXPERIMENT_NAME)


def tag_frequency(captions: Sequence[str]) -> dict[str, int]:
    """How often each comma-separated tag stands in the captions."""
    return dict(Counter(tag.strip() for caption in captions for tag in caption.split(",") if tag.strip()))


def write_samples(folder: Path, rows: Sequence[Sequence[Pixels]]) -> Path:
    """A grid of rows (real pictures first) and each picture of the last row by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(rows[-1]):
        Image.fromarray(picture).save(folder / f"sample_{number:02d}.png")
    grid = folder / GRID_NAME
    Image.fromarray(sample_grid(rows)).save(grid)
    return grid


def first_seed(evaluator: Evaluator, base: BaseModel) -> list[Pixels]:
    """One sample of each held-out caption with the active adapter."""
    return evaluator.sample(base, evaluator.requests[:: _seeds(evaluator)])


def _seeds(evaluator: Evaluator) -> int:
    """How many samples there are of each held-out caption."""
    return len(evaluator.requests) // len(evaluator.holdout.captions)


def write_best(
    out: OutFolder, base: BaseModel, evaluator: Evaluator, experiment: Experiment, trials: Sequence[TrialRecord],
    shared: SharedData, is_refit: bool,
) -> StrengthSweep:  # fmt: skip
    """`best/` of a search. The grid's rows: real, base model, the guide's settings, the winner.

    All pictures are made by trials, which have not seen the held-out images that stand above them: of several folds
    the first one's.

    Args:
        trials: the winner last; before it, if there is one, the baseline.
        is_refit: whether the LoRA is there already, trained on all images.
    """
    rows: list[Sequence[Pixels]] = [evaluator.holdout.pixels, first_seed(evaluator, base)]
    *others, winner = trials
    for trial in others:
        with adapter_of(base, experiment.with_params(trial.params), Path(trial.folder)):
            rows.append(first_seed(evaluator, base))
    config = experiment.with_params(winner.params)
    with adapter_of(base, config, Path(winner.folder)) as adapter:
        if not is_refit:
            write_lora(adapter, config, shared.material.train, out.best, title=out.root.name)
        sweep = sweep_strengths(adapter, evaluator, shared.reference)
    firsts = {strength: samples[:: _seeds(evaluator)] for strength, samples in sweep.samples.items()}
    write_samples(out.best / "samples", [*rows, firsts[AS_TRAINED]])
    Image.fromarray(sample_grid(list(firsts.values()))).save(out.best / "samples" / STRENGTHS_NAME)
    return sweep


def lora_paths(out: OutFolder) -> dict[str, str]:
    """Where the two LoRA files of `best/` lie."""
    return {"lora_kohya": str(out.best / KOHYA_NAME), "lora_diffusers": str(out.best / DIFFUSERS_NAME)}
