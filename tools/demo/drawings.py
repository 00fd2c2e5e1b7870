"""Stage `draw`: avatars and their captions; and the functions that load them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo.settings import (
    DATASET_SIZE,
    IMAGE_SIZE,
    JUDGE_SIZE,
    NEW_LABEL,
    NEW_STYLE,
    STYLES,
    Workshop,
    write_folder,
)

TOOLS = Path(__file__).resolve().parent.parent
DRAWING_FILES = ("package.json", "draw_avatars.mjs")


@dataclass(frozen=True)
class Drawings:
    """Pictures, uint8 [N, 64, 64, 3], and the caption of each."""

    pictures: Tensor
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def inputs(self, chosen: Tensor | slice) -> Tensor:
        """The chosen pictures as float [B, 3, 64, 64] in -1...1."""
        return self.pictures[chosen].permute(0, 3, 1, 2).float() / 127.5 - 1


def draw(shop: Workshop) -> None:
    """Draws every style that is not drawn yet, one folder a style."""
    node = install_node_packages(shop.work / "node")
    count = shop.recipe.drawings + shop.recipe.held_out
    jobs = [(style, label, count) for style, label in STYLES.items()]
    jobs.append((NEW_STYLE, NEW_LABEL, DATASET_SIZE + JUDGE_SIZE))
    for style, label, wanted in jobs:
        folder = style_folder(shop, style)
        if not folder.exists():
            write_folder(folder, partial(draw_style, node, style, label, wanted))
            print(f"  {style}: {wanted} avatars", flush=True)


def style_folder(shop: Workshop, style: str) -> Path:
    """Folder of one style's drawings and their metadata.jsonl."""
    return shop.work / "drawings" / style


def is_drawn(shop: Workshop) -> bool:
    """Whether every style's folder is there."""
    return all(style_folder(shop, style).exists() for style in (*STYLES, NEW_STYLE))


def read_captions(folder: Path) -> list[tuple[str, str]]:
    """(file name, caption) of each drawing of a style, in the order of their numbers."""
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    return [(entry["file_name"], entry["text"]) for entry in map(json.loads, lines)]


def load_drawings(shop: Workshop, *, held_out: bool) -> Drawings:
    """The nine base styles' training drawings, or those held out of training."""
    first = shop.recipe.drawings
    chosen = slice(first, None) if held_out else slice(0, first)
    pictures, captions = [], []
    for style in STYLES:
        folder = style_folder(shop, style)
        for name, caption in read_captions(folder)[chosen]:
            pictures.append(np.asarray(Image.open(folder / name).convert("RGB")))
            captions.append(caption)
    return Drawings(torch.from_numpy(np.stack(pictures)), captions)


def install_node_packages(folder: Path) -> Path:
    """Installs DiceBear beside a copy of the script in a folder; returns the folder."""
    if not (folder / "node_modules" / "@resvg").exists():
        if shutil.which("npm") is None or shutil.which("node") is None:
            raise ValueError("the avatars are drawn by node: install Node.js 18 or newer, with npm")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOOLS / "package.json", folder)
        subprocess.run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"], cwd=folder, check=True)
    shutil.copy(TOOLS / "draw_avatars.mjs", folder)
    return folder


def draw_style(node: Path, style: str, label: str, count: int, folder: Path) -> None:
    """Draws avatars 0 to `count - 1` of a style, with metadata.jsonl."""
    script = str(node / "draw_avatars.mjs")
    command = ["node", script, style, label, str(count), str(folder.resolve()), str(IMAGE_SIZE)]
    subprocess.run(command, check=True)
