"""How fast is a training step on a GPU, by option, and what share of the GPU's arithmetic does it use?

SD1.5 at 512² and SDXL at 1024² with random weights at full size, made on the device from the families' own
configurations, bf16, driven by `Trainer.advance` as in a real run. Without a GPU, or with --quick, the same at a tiny
size on the CPU, which shows only that the benchmark runs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from torch.utils.benchmark import Timer
from transformers import AutoTokenizer, CLIPTextConfig

from benchmarks.common import Row, Target, report, target
from raylora.bundled import DEMO_BASE
from raylora.config import Experiment
from raylora.dataset.batches import Schedule
from raylora.diffusion.base import BaseModel, Family
from raylora.diffusion.families import DTYPES
from raylora.diffusion.sd15 import SD15
from raylora.diffusion.sdxl import SDXL
from raylora.training.feed import TrainingSet
from raylora.training.trainer import Trainer

POSITIONS = 77
"""Of CLIP's text encoders."""
MATMUL_SIDE = 8192
WARM_UP_STEPS, STEPS, REPEATS = 3, 5, 5


@dataclass(frozen=True)
class Size:
    """A family at the size that is measured."""

    family: Family
    resolution: int
    tflop: float | None
    """Counted floor of a training step, an image; None for tiny models."""
    unet: dict[str, Any] = field(default_factory=dict)
    text_encoder: dict[str, Any] = field(default_factory=dict)
    """What differs from the full size."""


@dataclass(frozen=True)
class Option:
    """Something to switch on, beside raylora's defaults with cached text embeddings."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    channels_last: bool = False
    compile: bool = False


FULL = (Size(SD15, 512, 1.73), Size(SDXL, 1024, 14.2))
TINY_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY = (
    Size(
        SD15,
        64,
        None,
        {"block_out_channels": (32,) * 4, "norm_num_groups": 8, "cross_attention_dim": 32, "attention_head_dim": 2},
        TINY_TEXT,
    ),
    Size(
        SDXL,
        64,
        None,
        {
            "block_out_channels": (32,) * 3,
            "norm_num_groups": 8,
            "transformer_layers_per_block": (1, 1, 2),
            "attention_head_dim": 2,
            "cross_attention_dim": 64,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 32 + 6 * 8,
        },
        TINY_TEXT | {"projection_dim": 32},
    ),
)
OPTIONS = (
    Option("default"),
    Option("compile", compile=True),
    Option("channels_last + compile", channels_last=True, compile=True),
    Option("gradient checkpointing", {"training.gradient_checkpointing": True}),
    Option("text encoder trained", {"model.train_text_encoder": True}),
    Option("channels_last", channels_last=True),
    Option("optimizer not fused", {"optimizer.arguments": {"fused": False}}),
    Option(
        "channels_last + compile + checkpointing",
        {"training.gradient_checkpointing": True},
        channels_last=True,
        compile=True,
    ),
)
GOALS = {"sd15_ms_batch1": 60.0, "sdxl_ms_batch1": 200.0, "sd15_ms_best": 11.0, "sdxl_ms_best": 60.0}


def random_base(size: Size, device: torch.device, option: Option) -> BaseModel:
    """A base model of random weights, made where it will be used. The VAE, which no step needs, is tiny."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_BASE / "tokenizer", model_max_length=POSITIONS)
    with _made_on(device, DTYPES["bf16"]):
        unet = UNet2DConditionModel.from_config({**size.family.unet, **size.unet})
        encoders = {
            part: kind(text_config({**config, **size.text_encoder}))
            for part, (kind, config) in size.family.text_encoders.items()
        }
        vae = AutoencoderKL(block_out_channels=(32,))
    for module in (unet, vae, *encoders.values()):
        module.requires_grad_(False).eval()
    if option.channels_last:
        unet.to(memory_format=torch.channels_last)
    if option.compile:
        unet.compile_repeated_blocks()
    sampler = DDIMScheduler(beta_schedule="scaled_linear")
    return BaseModel(
        family=size.family,
        reference="random weights",
        unet=unet,
        vae=vae,
        text_encoders=encoders,
        tokenizers=dict.fromkeys(encoders, tokenizer),
        noise_scheduler=DDPMScheduler.from_config(sampler.config),
        sampler=sampler,
        clip_skip=size.family.clip_skip,
    )


@contextmanager
def _made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """New modules lie on the device, in the number format."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def text_config(settings: Mapping[str, Any]) -> CLIPTextConfig:
    """CLIP's, with ids of the tokens around a prompt that any tokenizer has."""
    own = {"bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": POSITIONS}
    return CLIPTextConfig(**{**own, **settings})


def make_trainer(base: BaseModel, size: Size, option: Option, batch_size: int) -> Trainer:
    """A trainer over random latents that doesn't end."""
    settings = {"training.batch_size": batch_size, "training.mixed_precision": "bf16"}
    config = Experiment().with_params(
        {"model.family": size.family.name, "model.train_text_encoder": False, **settings, **option.settings}
    )
    side, images = size.resolution // 8, 16
    data = TrainingSet(
        latents=list(torch.randn(images, 4, side, side, generator=torch.Generator().manual_seed(0))),
        captions=[f"sks, picture {number}" for number in range(images)],
        repeats=[1] * images,
        time_ids=torch.tensor([[size.resolution, size.resolution, 0, 0, size.resolution, size.resolution]] * images),
        weights=[1.0] * images,
    )
    return Trainer(base, data, config, Schedule(images, 1_000_000, batch_size, 1))


def step_seconds(trainer: Trainer) -> float:
    """Median time of a step, over blocks, after steps that don't count."""

    def advance(steps: int) -> None:
        trainer.advance(trainer.images_seen + steps * trainer.schedule.batch_size)

    if trainer.base.device.type != "cuda":
        timer = Timer("advance(1)", globals={"advance": advance})
        return float(timer.timeit(2).median)
    advance(WARM_UP_STEPS)
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        advance(STEPS)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000 / STEPS)
    return float(median(times))


def matmul_tflops(device: torch.device, side: int = MATMUL_SIDE) -> float:
    """The rate of a large bf16 matrix product, in TFLOP/s."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    timer = Timer("left @ right", globals={"left": left, "right": right})
    return 2 * side**3 / float(timer.blocked_autorange(min_run_time=1).median) / 1e12


def share_of_peak(ms_per_image: float, tflop: float | None, peak_tflops: float) -> float | None:
    """Counted arithmetic of an image over what the device could do in the same time."""
    return None if tflop is None else tflop / (ms_per_image / 1000) / peak_tflops


def measure(size: Size, option: Option, batch_size: int, device: torch.device, peak_tflops: float) -> Row:
    """One row; what doesn't fit says so."""
    row: Row = {"family": size.family.name, "px": size.resolution, "batch": batch_size, "option": option.name}
    torch._dynamo.reset()
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        trainer = make_trainer(random_base(size, device, option), size, option, batch_size)
        ms = 1000 * step_seconds(trainer) / batch_size
    except torch.OutOfMemoryError:
        return {**row, "note": "out of memory"}
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if is_cuda else None
    return {**row, "ms_image": ms, "peak_gib": memory, "share": share_of_peak(ms, size.tflop, peak_tflops)}


def targets_of(rows: Sequence[Row], on_gpu: bool) -> dict[str, Target]:
    """The fastest options at batch 1, and of all; without a GPU nothing is promised."""
    found: dict[str, Target] = {}
    for key, goal in GOALS.items():
        family, _, which = key.split("_")
        times = [
            row["ms_image"]
            for row in rows
            if on_gpu and row.get("family") == family and "ms_image" in row and (which == "best" or row["batch"] == 1)
        ]
        value = min(times, default=None)
        found[key] = target(value, f"<= {goal:g}", None if value is None else value <= goal)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny size on the CPU")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--family", choices=["sd15", "sdxl"], help="only this one")
    parser.add_argument("--batch", type=int, nargs="+", help="images a step; 1, 4 and 16 on a GPU, else 1 and 2")
    parser.add_argument("--within", type=float, default=math.inf, help="begin no row after so many seconds")
    options = parser.parse_args()
    ends_at = time.monotonic() + options.within
    on_gpu = torch.cuda.is_available() and not options.quick
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    peak = matmul_tflops(device, MATMUL_SIDE if on_gpu else 512)
    batch_sizes = options.batch or ([1, 4, 16] if on_gpu else [1, 2])
    wanted = [
        (size, option, batch_size)
        for option in OPTIONS
        if on_gpu or not option.compile  # compiling takes longer than all the rest here
        for size in (FULL if on_gpu else TINY)
        if options.family in (None, size.family.name)
        for batch_size in batch_sizes
    ]
    rows = [measure(*row, device, peak) for row in wanted if time.monotonic() < ends_at]
    rows.append({"option": f"rows left out for lack of time: {len(wanted) - len(rows)}"})
    rows.append({"option": f"bf16 matrix product: {peak:.4g} TFLOP/s"})
    report("gpu_step" if on_gpu else "gpu_step (tiny, CPU)", rows, targets_of(rows, on_gpu), options.json)


if __name__ == "__main__":
    main()
