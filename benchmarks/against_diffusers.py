"""How long does a whole run take against diffusers' own LoRA script, and is what it learns as good?

`raylora train` and the peer, `examples/text_to_image/train_text_to_image_lora.py` of diffusers, by turns, each in a
process of its own, on the demo's base model and pictures: same captions, steps, batch, rank, rate, format, threads and
target modules (attention; the text encoder is not trained). From process start to saved file; steps are told apart from
start-up by the progress that each prints. Both files are judged by `raylora evaluate` on pictures that neither saw.

The peer draws latents from the VAE's posterior, raylora takes its mean. For SD's narrow posteriors that is the same,
but the demo's VAE has a standard deviation of 0.33 beside 0.78 of the means, and the measure is on means. So that both
learn the same, both get a copy of the base model whose posteriors have no width (`write_base`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from safetensors.torch import load_file, save_file

from benchmarks.common import Row, Target, report, target
from raylora.bundled import DEMO_BASE, DEMO_JUDGE

BATCH_SIZE, RANK, RATE = 4, 8, 1e-3
SEEDS = (0, 1, 2)
GOAL_WALL, GOAL_STEP, GOAL_MEMORY, GOAL_LOSS = 1.3, 1.05, 1.0, 0.01
NO_WIDTH = -30.0
"""Where diffusers cuts the logarithms of variances."""
LORA_NAME = "pytorch_lora_weights.safetensors"
OUR_PROGRESS = re.compile(rb"(\d+) of \d+ images")
PEER_PROGRESS = re.compile(rb"Steps:[^\r\n]*?(\d+)/\d+ ")


@dataclass(frozen=True)
class Run:
    """What was seen of a process from outside. Times in seconds since its start."""

    saved_s: float
    exit_s: float
    processor_s: float
    """Of all its threads, user and system."""
    peak_mib: float
    marks: list[tuple[int, float]]
    """(steps done, when it said so)"""
    lora: Path

    def step_s(self, after: int) -> float:
        """Mean time of a step, the first `after` left out."""
        first = next(mark for mark in self.marks if mark[0] >= after)
        last = next(mark for mark in self.marks if mark[0] == self.marks[-1][0])
        return (last[1] - first[1]) / (last[0] - first[0])

    def start_s(self, after: int) -> float:
        """What is left of the time to the saved file."""
        return self.saved_s - self.marks[-1][0] * self.step_s(after)


def watch(command: list[str], environment: dict[str, str], progress: re.Pattern[bytes], lora: Path, unit: int) -> Run:
    """Run a command; `unit` is how many of what it counts make a step."""
    marks: list[tuple[int, float]] = []
    said = b""
    began, began_at = time.perf_counter(), time.time()
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    while chunk := os.read(child.stderr.fileno(), 65536):
        said += chunk
        found = progress.findall(chunk)
        marks += [(int(number) // unit, time.perf_counter() - began) for number in found if int(number)]
    _, status, usage = os.wait4(child.pid, 0)
    exit_s = time.perf_counter() - began
    if status or not lora.is_file():
        raise SystemExit(f"{' '.join(command)} failed:\n{said[-3000:].decode(errors='replace')}")
    return Run(
        lora.stat().st_mtime - began_at, exit_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, marks, lora
    )


def environment_of(threads: int, path: list[Path] | None = None) -> dict[str, str]:
    """The same for both, offline; the peer also gets folders of packages that raylora doesn't need."""
    folders = [str(Path(__file__).resolve().parents[1]), *map(str, path or [])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    return environment | {"PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])}


def train_ours(folder: Path, base: Path, steps: int, pictures: int, seed: int, threads: int) -> Run:
    settings = {
        "seed": seed, "model.train_text_encoder": "false", "lora.rank": RANK, "lora.alpha": RANK,
        "lora.targets": "[attention]", "optimizer.unet_lr": RATE, "lr_scheduler.name": "constant",
        "training.batch_size": BATCH_SIZE, "training.repeats": 1, "training.mixed_precision": "no",
        "training.epochs": -(-steps * BATCH_SIZE // pictures), "training.max_images": steps * BATCH_SIZE,
        "training.save_precision": "fp32",
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "raylora", "train", "--demo", "--base-model", str(base)]
    command += ["--out", str(folder / "ours"), *words]
    lora = folder / "ours" / "best" / LORA_NAME
    return watch(command, environment_of(threads), OUR_PROGRESS, lora, BATCH_SIZE)


def train_peer(folder: Path, base: Path, images: Path, steps: int, seed: int, options: argparse.Namespace) -> Run:
    arguments = {
        "pretrained_model_name_or_path": base, "train_data_dir": images, "image_column": "image",
        "caption_column": "text", "resolution": 64, "train_batch_size": BATCH_SIZE, "max_train_steps": steps,
        "learning_rate": RATE, "lr_scheduler": "constant", "lr_warmup_steps": 0, "rank": RANK, "seed": seed,
        "mixed_precision": "no", "checkpointing_steps": 10 * steps, "output_dir": folder / "peer",
        "cache_dir": folder / "peer_cache",
    }  # fmt: skip
    words = [word for key, value in arguments.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, str(Path(__file__).with_name("run_peer.py")), str(options.peer), *words]
    environment = environment_of(options.threads, options.peer_path)
    return watch(command, environment, PEER_PROGRESS, folder / "peer" / LORA_NAME, 1)


def write_base(folder: Path) -> Path:
    """The demo's base model with the same means of the VAE's posteriors, and no width."""
    shutil.copytree(DEMO_BASE, folder)
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for name, value in (("quant_conv.weight", 0.0), ("quant_conv.bias", NO_WIDTH)):
        weights[name][weights[name].shape[0] // 2 :] = value  # means come first, then logarithms of variances
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def write_images(folder: Path) -> int:
    """The demo's pictures with the captions that raylora gives them, as `datasets` reads them; how many."""
    from raylora.config_files import build_experiment
    from raylora.execution.prepare import read_pictures
    from raylora.search.space import load_space, space_layer

    pictures = read_pictures(build_experiment([space_layer(load_space("demo"))]), print)
    folder.mkdir(parents=True)
    for picture in pictures:
        shutil.copy(picture.path, folder / picture.path.name)
    lines = [json.dumps({"file_name": picture.path.name, "text": picture.caption}) for picture in pictures]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(pictures)


def holdout_loss(run: Run, base: Path, copy: Path, threads: int) -> float:
    """On the judge's pictures, 5 timesteps and 2 noises of each, the same for both."""
    shutil.copy(run.lora, copy)  # away from the settings that lie beside ours
    settings = (
        "dataset.resolution=64",
        "dataset.trigger=sks",
        "evaluation.encoder=demo",
        "evaluation.noises=2",
        "sampling.steps=1",
        "sampling.seeds=[0]",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "raylora", "evaluate", str(copy), "--dataset", str(DEMO_JUDGE)]
    command += ["--base-model", str(base), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment_of(threads))
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout)["metrics"]["holdout_loss"])


def row_of(who: str, seed: int, run: Run, after: int, loss: float) -> Row:
    return {
        "who": who,
        "seed": seed,
        "saved_s": run.saved_s,
        "exit_s": run.exit_s,
        "processor_s": run.processor_s,
        "start_s": run.start_s(after),
        "step_ms": 1000 * run.step_s(after),
        "peak_mib": run.peak_mib,
        "holdout_loss": loss,
    }


def compare(rows: list[Row]) -> dict[str, Target]:
    """The targets from rows of ours and the peer's by turns; medians over the pairs, for the loss means."""
    pairs = list(zip(rows[::2], rows[1::2], strict=True))

    def ratio(key: str) -> float:
        """The peer's to ours."""
        return float(median(peer[key] / ours[key] for ours, peer in pairs))

    wall, step, memory = ratio("saved_s"), ratio("step_ms"), 1 / ratio("peak_mib")
    loss = mean(ours["holdout_loss"] for ours, _ in pairs) / mean(peer["holdout_loss"] for _, peer in pairs)
    return {
        "wall_ratio": target(wall, f">= {GOAL_WALL:g}", wall >= GOAL_WALL),
        "step_ratio": target(step, f">= {GOAL_STEP:g}", step >= GOAL_STEP),
        "memory_ratio": target(memory, f"<= {GOAL_MEMORY:g}", memory <= GOAL_MEMORY),
        "holdout_loss_ratio": target(loss, f"1 ± {GOAL_LOSS:g}", abs(loss - 1) <= GOAL_LOSS),
    }


def run_pair(work: Path, pictures: int, seed: int, options: Any) -> list[Row]:
    folder, base = work / f"seed_{seed}", work / "base"
    folder.mkdir()
    steps, after = (50 if options.quick else 200), pictures // BATCH_SIZE
    runs = {
        "raylora": train_ours(folder, base, steps, pictures, seed, options.threads),
        "diffusers": train_peer(folder, base, work / "images", steps, seed, options),
    }
    return [
        row_of(who, seed, run, after, holdout_loss(run, base, folder / f"{who}.safetensors", options.threads))
        for who, run in runs.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one pair of runs of 50 steps")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--peer", type=Path, help="train_text_to_image_lora.py of diffusers")
    parser.add_argument("--peer-path", type=Path, nargs="*", help="folders with torchvision and datasets, for it alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="a pair of runs for each")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each, OMP_NUM_THREADS")
    options = parser.parse_args()
    if options.peer is None or not options.peer.is_file():
        print(
            "against_diffusers: --peer must name diffusers' examples/text_to_image/train_text_to_image_lora.py",
            file=sys.stderr,
        )
        raise SystemExit(2)
    options.peer = options.peer.resolve()
    options.peer_path = [path.resolve() for path in options.peer_path or []]
    with tempfile.TemporaryDirectory(prefix="raylora-peer-") as work:
        pictures = write_images(Path(work) / "images")
        write_base(Path(work) / "base")
        rows = [
            row
            for seed in options.seeds[: 1 if options.quick else None]
            for row in run_pair(Path(work), pictures, seed, options)
        ]
    report("against_diffusers", rows, compare(rows), options.json)


if __name__ == "__main__":
    main()
