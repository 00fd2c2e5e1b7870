"""What does the trainer cost beyond the forward and backward passes themselves?

The same demo modules, LoRA, shapes and optimizer, driven two ways by turns in one process: by `Trainer.advance` (feed,
captions, noise, clipping, LR schedule, records), and by the bare loop of forward, backward, optimizer step and
zero_grad over inputs that were made before. A block of steps is as long as the demo's way to its first rung, for
`advance` is called once for each rung. A pair of neighbouring blocks gives one ratio; the median of all counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.common import Row, report, target
from raylora.config import Experiment
from raylora.config_files import build_experiment
from raylora.dataset.split import split_pictures
from raylora.diffusion.base import TEXT_ENCODERS, BaseModel, Conditioning
from raylora.diffusion.families import load_base
from raylora.diffusion.tensor_cache import TensorCache
from raylora.execution.job import read_pictures
from raylora.execution.node_cache import Material, training_set
from raylora.execution.trial import pick_device
from raylora.search.space import load_space, space_layer
from raylora.training.optimizers import build_optimizer, param_groups
from raylora.training.trainer import Trainer

GOAL = 1.05
STEPS_TO_FIRST_RUNG = 25
CASES: dict[str, dict[str, object]] = {
    "text encoder trained": {},
    "embeddings cached": {"model.train_text_encoder": False},
}


@dataclass(frozen=True)
class Inputs:
    """All that a bare step needs, on the device."""

    noised: Tensor
    timesteps: Tensor
    target: Tensor
    tokens: Tensor
    embeddings: Tensor | None
    """Of the prompts, where the text encoder isn't trained."""


def demo_trainer(base: BaseModel, settings: dict[str, object]) -> Trainer:
    """A trainer of the demo's baseline that has more to do than the benchmark asks."""
    space = load_space("demo")
    baseline = build_experiment([space_layer(space)]).with_params(space.first_points[0])
    experiment = baseline.with_params({"training.max_images": None, "training.epochs": 1000, **settings})
    split = split_pictures(read_pictures(experiment, print), experiment.dataset.holdout_fraction)
    material = Material(split.train, split.holdout)
    data = training_set(base, material, experiment, TensorCache(None))
    return Trainer(base, data, experiment, material.schedule(experiment))


def make_inputs(base: BaseModel, config: Experiment) -> Inputs:
    """One batch of the trainer's shapes."""
    images, sides = config.training.batch_size, latent_sides(base, config.dataset.resolution)
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(images, 4, *sides, generator=generator) for _ in range(2))
    timesteps = torch.randint(0, 1000, (images,), generator=generator)
    tokens = base.tokenizer(
        ["sks, a portrait"] * images,
        padding="max_length",
        max_length=base.tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids.to(base.device)
    with torch.no_grad():
        embeddings = base.text_encoder(tokens).last_hidden_state
    return Inputs(
        noised=base.noise_scheduler.add_noise(latents, noise, timesteps).to(base.device, base.dtype),
        timesteps=timesteps.to(base.device),
        target=noise.to(base.device),
        tokens=tokens,
        embeddings=None if config.model.train_text_encoder else embeddings,
    )


def latent_sides(base: BaseModel, resolution: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the latents of a picture of (width, height) px."""
    factor = 2 ** (len(base.vae.config.block_out_channels) - 1)
    return resolution[1] // factor, resolution[0] // factor


def bare_loop(trainer: Trainer) -> Callable[[int], None]:
    """The loop that the trainer is held against, over the very same modules and LoRA weights."""
    base, config = trainer.base, trainer.config
    inputs = make_inputs(base, config)
    named = {part: trainer.adapter.parameters(part) for part in trainer.adapter.peft_configs}
    optimizer = build_optimizer(param_groups(named, config.optimizer), config.optimizer)

    def run(steps: int) -> None:
        for _ in range(steps):
            embeddings = inputs.embeddings
            if embeddings is None:
                embeddings = base.text_encoder(inputs.tokens).last_hidden_state
            arguments = base.family.unet_arguments(Conditioning(embeddings), inputs.timesteps)
            with torch.autocast(base.device.type, dtype=base.dtype, enabled=base.dtype != torch.float32):
                prediction = base.unet(inputs.noised, inputs.timesteps, **arguments).sample
            torch.nn.functional.mse_loss(prediction.float(), inputs.target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    return run


@contextmanager
def in_train_mode(base: BaseModel) -> Iterator[None]:
    modules = [base.unet, *(encoder for part, encoder in base.text_encoders.items() if part in TEXT_ENCODERS)]
    for module in modules:
        module.train()
    yield
    for module in modules:
        module.eval()


def seconds(work: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Wall and processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - processor


def measure(name: str, base: BaseModel, settings: dict[str, object], pairs: int, steps: int) -> Row:
    """One row: medians over `pairs` of neighbouring blocks of `steps` steps each."""
    trainer = demo_trainer(base, settings)
    bare, images = bare_loop(trainer), trainer.schedule.batch_size * steps

    def ours() -> None:
        trainer.advance(trainer.images_seen + images)

    def theirs() -> None:
        with in_train_mode(base):
            bare(steps)

    times = []
    for number in range(pairs + 1):  # whichever comes first changes from pair to pair; the first pair warms up
        order = (ours, theirs) if number % 2 else (theirs, ours)
        times.append({work: seconds(work, base.device) for work in order})
    trainer.close()
    return summarize(name, [(pair[ours], pair[theirs]) for pair in times[1:]], steps)


def summarize(name: str, pairs: list[tuple[tuple[float, float], tuple[float, float]]], steps: int) -> Row:
    """Pairs of (wall, processor) seconds of the trainer's and the bare loop's blocks as a row."""
    walls = sorted(ours[0] / bare[0] for ours, bare in pairs)
    return {
        "case": name,
        "trainer_ms": 1000 * median(ours[0] for ours, _ in pairs) / steps,
        "bare_ms": 1000 * median(bare[0] for _, bare in pairs) / steps,
        "ratio": median(walls),
        "ratio_quartiles": [walls[len(walls) // 4], walls[-1 - len(walls) // 4]],
        "processor_ratio": median(ours[1] / bare[1] for ours, bare in pairs),
        "pairs": len(pairs),
        "steps_each": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter blocks")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    pairs, steps = (24, 4) if options.quick else (30, STEPS_TO_FIRST_RUNG)
    base = load_base("demo", device=pick_device())
    rows = [measure(name, base, settings, pairs, steps) for name, settings in CASES.items()]
    worst = max(row["ratio"] for row in rows)
    report("train_step", rows, {"ratio_to_bare_loop": target(worst, f"<= {GOAL:g}", worst <= GOAL)}, options.json)


if __name__ == "__main__":
    main()
