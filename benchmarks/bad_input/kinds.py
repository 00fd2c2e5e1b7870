"""What a kind of bad input is, and the good folder that it is put into."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CANARY = "c4nary-5ecret"
"""What nobody may see again: passwords, tokens, and the text of files that lie outside."""
GOOD = """
dataset: {path: pictures, resolution: 64}
model: {base_model: BASE}
lora: {rank: 2, alpha: 2}
training: {batch_size: 1, epochs: 1, max_images: 2}
evaluation: {encoder: demo, timesteps: [500]}
sampling: {seeds: [0], steps: 1}
search: {trials: 2, confirm_trials: 0, refit: false, grace_period: 2}
"""
PLAN = "tune good.yaml --space small.yaml --dry-run --out out"
TRAIN = "train good.yaml --out out"
REFUSED, FINE, FAILED = 2, 0, 1

Make = Callable[[Path], None]


def nothing(folder: Path) -> None:
    """Leaves the good folder as it is."""


@dataclass(frozen=True)
class Kind:
    """One kind of bad input: what is made in a good folder, and the command that meets it there."""

    name: str
    """`group/what`"""
    command: str
    """What follows `raylora`, as in a shell. Python's escapes of odd bytes, such as \\udcff, are in it as such."""
    make: Make = nothing
    status: int = REFUSED
    tells: tuple[str, ...] = ()
    """What the message must name."""
    finds: tuple[str, ...] = ()
    """What the answer on stdout must name: of a check, which says what is wrong as its answer."""
    environment: Mapping[str, str] = field(default_factory=dict)
    as_nobody: bool = False
    """Run without root's right to read everything."""
    is_fresh: bool = False
    """Run in a new Python: libraries read some of the environment when they are imported."""

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Shared:
    """Good things that kinds copy or point to, made once."""

    root: Path

    @property
    def base(self) -> Path:
        """A base model of SD1.5's shape, tiny."""
        return self.root / "base"

    @property
    def lora(self) -> Path:
        """A LoRA for it in kohya's layout."""
        return self.root / "lora.safetensors"

    @property
    def tagger(self) -> Path:
        """A tagger that knows colours, tiny."""
        return self.root / "tagger"

    @property
    def blip(self) -> Path:
        """A BLIP with random weights, tiny."""
        return self.root / "blip"

    @property
    def prepared(self) -> Path:
        """The pictures as `raylora prepare` leaves them."""
        return self.root / "prepared"

    @property
    def training(self) -> Path:
        """The output folder of `raylora train`, as a kill left it."""
        return self.root / "training"

    @property
    def search(self) -> Path:
        """The output folder of `raylora tune`, as a kill left it."""
        return self.root / "search"

    def furnish(self, folder: Path) -> None:
        """The good folder: settings, pictures with captions, a small search space; and something outside of it."""
        folder.mkdir(parents=True)
        shutil.copytree(self.root / "pictures", folder / "pictures")
        (folder / "good.yaml").write_text(GOOD.replace("BASE", str(self.base)))
        (folder / "small.yaml").write_text("name: small\nparameters:\n  lora.dropout: {choices: [0, 0.1]}\n")
        outside = folder.parent / "outside"
        shutil.copytree(self.root / "pictures", outside)
        (outside / "secret.txt").write_text(CANARY)


def writes(name: str, content: bytes | str) -> Make:
    """Makes a file."""

    def make(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

    return make


def links(name: str, target: str) -> Make:
    """Makes a symbolic link."""
    return lambda folder: (folder / name).symlink_to(target)


def both(*makers: Make) -> Make:
    """One after the other."""

    def make(folder: Path) -> None:
        for each in makers:
            each(folder)

    return make


def mode(name: str, bits: int) -> Make:
    """Changes the rights on a file or folder."""
    return lambda folder: os.chmod(folder / name, bits)  # noqa: PTH101 - also of what is no file
