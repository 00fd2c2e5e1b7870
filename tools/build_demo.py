#!/usr/bin/env python
"""Builds the demo world of `raylora/demo/` from nothing, on a CPU.

The stages, in order: `draw` (avatars, by node), `tokenizer`, `vae`, `clip`, `unet`, `assemble` (the
demo folder in float16) and `check` (quality and size). A finished stage is skipped; a stage that was
stopped goes on from its last checkpoint. To redo a stage, delete its folder (and its checkpoints)
in the work folder. See raylora/demo/README.md.
"""

# mypy: disable-error-code="no-untyped-call"
# (transformers comes without some types.)

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from demo.assemble import assemble
from demo.check import check
from demo.clip import train_clip
from demo.drawings import draw, is_drawn
from demo.settings import FULL, QUICK, Workshop
from demo.tokenizer import train_tokenizer
from demo.unet import train_unet
from demo.vae import train_vae

DEFAULT_WORK = Path("build")
DEFAULT_THREADS = 2


@dataclass(frozen=True)
class Stage:
    """A step of the build: `run` does it, `done` tells whether it can be skipped, `needs` come before."""

    run: Callable[[Workshop], None]
    done: Callable[[Workshop], bool]
    needs: tuple[str, ...] = ()


def _has(part: str) -> Callable[[Workshop], bool]:
    return lambda shop: shop.part(part).exists()


def _never(_shop: Workshop) -> bool:
    return False


STAGES = {
    "draw": Stage(draw, is_drawn),
    "tokenizer": Stage(train_tokenizer, _has("tokenizer"), ("draw",)),
    "vae": Stage(train_vae, _has("vae"), ("draw",)),
    "clip": Stage(train_clip, _has("clip"), ("draw", "tokenizer")),
    "unet": Stage(train_unet, _has("unet"), ("draw", "tokenizer", "vae", "clip")),
    "assemble": Stage(assemble, _never, ("draw", "tokenizer", "vae", "clip", "unet")),
    "check": Stage(check, _never, ("draw",)),
}


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Builds raylora's demo world from nothing, on a CPU.")
    parser.add_argument("--work", type=Path, help="drawings, checkpoints, parts (default: build/demo, or demo-quick)")
    parser.add_argument("--out", type=Path, help="demo folder to write (default: WORK/out)")
    parser.add_argument("--stage", choices=STAGES, help="run this stage alone; those before it must be finished")
    parser.add_argument("--quick", action="store_true", help="a handful of drawings and steps, to try the tool")
    parser.add_argument("--threads", type=int, default=DEFAULT_THREADS, help="CPU threads (default: %(default)s)")
    return parser.parse_args(arguments)


def workshop(options: argparse.Namespace) -> Workshop:
    """The folders and the recipe that the options ask for."""
    work: Path = options.work or DEFAULT_WORK / ("demo-quick" if options.quick else "demo")
    return Workshop(work=work, out=options.out or work / "out", recipe=QUICK if options.quick else FULL)


def run_stage(name: str, shop: Workshop) -> None:
    """Runs a stage unless it is finished.

    Raises:
        ValueError: a stage that this one needs is not finished.
    """
    stage = STAGES[name]
    missing = [need for need in stage.needs if not STAGES[need].done(shop)]
    if missing:
        raise ValueError(f"stage {name} needs {', '.join(missing)}: run --stage {missing[0]} first, or all stages")
    if stage.done(shop):
        print(f"{name}: finished before", flush=True)
        return
    print(f"{name} ...", flush=True)
    begun = time.monotonic()
    stage.run(shop)
    print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)


def main(arguments: list[str]) -> int:
    """Builds; returns the exit status."""
    options = parse_arguments(arguments)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    shop = workshop(options)
    try:
        shop.claim()
        for name in [options.stage] if options.stage else STAGES:
            run_stage(name, shop)
    except ValueError as error:
        print(f"build_demo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
