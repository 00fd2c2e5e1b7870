"""What the demo world is made of: its drawings, its training budgets, its folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

# DiceBear style -> the word by which captions call it. The base is trained on these nine.
STYLES = {
    "micah": "micah",
    "bigSmile": "big smile",
    "personas": "persona",
    "openPeeps": "ink",
    "toonHead": "toon",
    "pixelArt": "pixel",
    "miniavs": "mini",
    "avataaars": "vector",
    "bigEars": "big ears",
}
# The style that a LoRA has to learn: the base never sees it.
NEW_STYLE, NEW_LABEL = "adventurer", "sks"
DATASET_SIZE, JUDGE_SIZE = 40, 64
IMAGE_SIZE = 64
MAX_TOKENS = 32


@dataclass(frozen=True)
class Round:
    """One run of optimizer steps under a single cosine learning rate.

    Attributes:
        steps, batch: optimizer steps, and drawings in each.
        peak_rate: AdamW's learning rate after `warmup` steps; it falls to `floor` times that.
        betas, weight_decay: AdamW's.
        ema: decay of the averaged weights that the round hands on; 0 hands on the last weights.
        seed: of the weights' start, the batches and the noise.
    """

    steps: int
    batch: int
    peak_rate: float
    warmup: int
    floor: float = 0.02
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    ema: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """Budgets of every stage. Drawings numbered from `drawings` on are held out of all training."""

    drawings: int
    held_out: int
    vae: tuple[Round, ...]
    clip: Round
    unet: tuple[Round, ...]
    save_every: int


# The budgets of the shipped weights. Those of VAE and CLIP were set in minutes (11 + 16 and 9, on two
# CPU cores) and are given here as the steps that fit in them; those of the U-Net are counted steps.
FULL = Recipe(
    drawings=1600,
    held_out=112,
    vae=(
        Round(steps=1600, batch=32, peak_rate=1e-3, warmup=100, betas=(0.9, 0.999)),
        Round(steps=3200, batch=24, peak_rate=1.2e-3, warmup=50, floor=0.01, ema=0.995, seed=1),
    ),
    clip=Round(steps=900, batch=192, peak_rate=6e-4, warmup=200, betas=(0.9, 0.98), weight_decay=0.05),
    unet=(
        Round(steps=5700, batch=32, peak_rate=8e-4, warmup=200, weight_decay=0.01, ema=0.999),
        Round(steps=1651, batch=32, peak_rate=5e-4, warmup=200, floor=0.002, weight_decay=0.01, ema=0.999, seed=2),
    ),
    save_every=200,
)

# A handful of steps: every stage runs, nothing is learned.
QUICK = Recipe(
    drawings=24,
    held_out=8,
    vae=(
        Round(steps=6, batch=8, peak_rate=1e-3, warmup=2),
        Round(steps=6, batch=8, peak_rate=1e-3, warmup=2, ema=0.995, seed=1),
    ),
    clip=Round(steps=6, batch=16, peak_rate=6e-4, warmup=2),
    unet=(
        Round(steps=6, batch=8, peak_rate=8e-4, warmup=2, ema=0.999),
        Round(steps=6, batch=8, peak_rate=5e-4, warmup=2, ema=0.999, seed=2),
    ),
    save_every=2,
)


@dataclass(frozen=True)
class Workshop:
    """Where a build keeps its drawings, finished parts (float32) and checkpoints, and what it follows.

    Attributes:
        work: folder of everything on the way; safe to delete once the build is done.
        out: the demo folder to write (`base/`, `image_encoder/`, `dataset/`, `judge/`).
    """

    work: Path
    out: Path
    recipe: Recipe

    def part(self, name: str) -> Path:
        """Folder of a finished part; it exists if and only if its stage is done."""
        return self.work / name

    def checkpoint(self, name: str) -> Path:
        """File of a training round's last saved state."""
        return self.work / "checkpoints" / f"{name}.pt"

    def claim(self) -> None:
        """Ties the work folder to this recipe.

        Raises:
            ValueError: the folder holds the parts of another recipe (say, of `--quick`).
        """
        wanted = json.dumps(asdict(self.recipe), indent=2)
        note = self.work / "recipe.json"
        if note.exists() and note.read_text() != wanted:
            raise ValueError(f"{self.work} holds a build of another recipe: delete it or name another --work")
        (self.work / "checkpoints").mkdir(parents=True, exist_ok=True)
        note.write_text(wanted)


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Lets `fill` write a folder and puts it in place whole, over an older one if there is one."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    fill(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
