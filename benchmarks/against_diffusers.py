"""How long does a whole run take against diffusers' own LoRA script, and is what it learns as good?

`raylora train` and the peer, `examples/text_to_image/train_text_to_image_lora.py` of diffusers, by turns, each in a
process of its own, on the same base model and pictures (`peer_cases.py`): same captions, steps, batch, rank, rate,
format, threads and target modules (attention; the text encoder is not trained). From process start to saved file; steps
are told apart from start-up by the progress that each prints. Both files are judged by `raylora evaluate` on pictures
that neither saw.
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
from threading import Thread

from benchmarks.common import Row, Target, report, target
from benchmarks.peer_cases import CASES, Case, write_case

RANK = 8
PEAK_EVERY_S = 0.05
GOAL_WALL, GOAL_STEP, GOAL_MEMORY, GOAL_LOSS = 1.3, 1.05, 1.0, 0.01
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
    """Up to the saved file."""
    exit_peak_mib: float
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
    peak = PeakUntil(child.pid, lora)
    peak.start()
    while chunk := os.read(child.stderr.fileno(), 65536):
        said += chunk
        found = progress.findall(chunk)
        marks += [(int(number) // unit, time.perf_counter() - began) for number in found if int(number)]
    _, status, usage = os.wait4(child.pid, 0)
    exit_s = time.perf_counter() - began
    if status or not lora.is_file():
        raise SystemExit(f"{' '.join(command)} failed:\n{said[-3000:].decode(errors='replace')}")
    return Run(
        saved_s=lora.stat().st_mtime - began_at,
        exit_s=exit_s,
        processor_s=usage.ru_utime + usage.ru_stime,
        peak_mib=peak.mib,
        exit_peak_mib=usage.ru_maxrss / 1024,
        marks=marks,
        lora=lora,
    )


class PeakUntil(Thread):
    """Reads a process's peak resident memory until a file is there, or the process is gone."""

    def __init__(self, pid: int, file: Path):
        super().__init__(daemon=True)
        self._status, self._file, self.mib = Path(f"/proc/{pid}/status"), file, float("nan")

    def run(self) -> None:
        while not self._file.exists():
            try:
                peak = re.search(r"VmHWM:\s*(\d+) kB", self._status.read_text())
            except OSError:
                return
            if peak is None:  # it has ended
                return
            self.mib = int(peak[1]) / 1024
            time.sleep(PEAK_EVERY_S)


def environment_of(threads: int, path: list[Path] | None = None) -> dict[str, str]:
    """The same for both, offline; the peer also gets folders of packages that raylora doesn't need."""
    folders = [str(Path(__file__).resolve().parents[1]), *map(str, path or [])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    return environment | {"PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])}


def train_ours(case: Case, folder: Path, epochs: int, seed: int, options: argparse.Namespace) -> Run:
    settings = {
        "seed": seed, "model.train_text_encoder": "false", "lora.rank": RANK, "lora.alpha": RANK,
        "lora.targets": "[attention]", "lora.init": "gaussian",
        "optimizer.unet_lr": case.rate, "lr_scheduler.name": "constant",
        "dataset.resolution": case.resolution, "dataset.trigger": "sks", "training.batch_size": case.batch_size,
        "training.repeats": 1, "training.epochs": epochs, "training.mixed_precision": "no",
        "training.save_precision": "fp32", "sampling.steps": 1, "sampling.seeds": "[0]",
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "raylora", "train", "--base-model", str(folder.parent / "base")]
    command += ["--dataset", str(folder.parent / "images"), "--out", str(folder / "ours"), *words]
    lora = folder / "ours" / "best" / LORA_NAME
    return watch(command, environment_of(options.threads), OUR_PROGRESS, lora, case.batch_size)


def train_peer(case: Case, folder: Path, epochs: int, seed: int, options: argparse.Namespace) -> Run:
    steps = epochs * case.steps_per_epoch
    arguments = {
        "pretrained_model_name_or_path": folder.parent / "base", "train_data_dir": folder.parent / "images",
        "image_column": "image", "caption_column": "text", "resolution": case.resolution,
        "train_batch_size": case.batch_size, "max_train_steps": steps, "learning_rate": case.rate,
        "lr_scheduler": "constant", "lr_warmup_steps": 0, "rank": RANK, "seed": seed, "mixed_precision": "no",
        "checkpointing_steps": 10 * steps, "output_dir": folder / "peer", "cache_dir": folder / "peer_cache",
    }  # fmt: skip
    words = [word for key, value in arguments.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, str(Path(__file__).with_name("run_peer.py")), str(options.peer), *words]
    environment = environment_of(options.threads, options.peer_path)
    return watch(command, environment, PEER_PROGRESS, folder / "peer" / LORA_NAME, 1)


def holdout_loss(case: Case, run: Run, folder: Path, copy: Path, threads: int) -> float:
    """On the judging pictures, 5 timesteps and the case's noises of each, the same for both."""
    shutil.copy(run.lora, copy)  # away from the settings that lie beside ours
    settings = {
        "dataset.resolution": case.resolution, "dataset.trigger": "sks", "evaluation.encoder": "demo",
        "evaluation.noises": case.noises, "evaluation.max_images": case.judged, "sampling.steps": 1,
        "sampling.seeds": "[0]",
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "raylora", "evaluate", str(copy), "--dataset", str(folder.parent / "judge")]
    command += ["--base-model", str(folder.parent / "base"), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment_of(threads))
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout)["metrics"]["holdout_loss"])


def row_of(case: Case, who: str, seed: int, run: Run, loss: float) -> Row:
    return {
        "case": case.name,
        "who": who,
        "seed": seed,
        "saved_s": run.saved_s,
        "exit_s": run.exit_s,
        "processor_s": run.processor_s,
        "start_s": run.start_s(case.steps_per_epoch),
        "step_ms": 1000 * run.step_s(case.steps_per_epoch),
        "peak_mib": run.peak_mib,
        "exit_peak_mib": run.exit_peak_mib,
        "holdout_loss": loss,
    }


def compare(rows: list[Row]) -> dict[str, Target]:
    """A case's targets from rows of ours and the peer's by turns; medians over the pairs, for the loss means."""
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


def run_pair(case: Case, work: Path, seed: int, options: argparse.Namespace) -> list[Row]:
    folder = work / f"seed_{seed}"
    folder.mkdir()
    epochs = case.quick_epochs if options.quick else case.epochs
    runs = {
        "raylora": train_ours(case, folder, epochs, seed, options),
        "diffusers": train_peer(case, folder, epochs, seed, options),
    }
    losses = {
        who: holdout_loss(case, run, folder, folder / f"{who}.safetensors", options.threads)
        for who, run in runs.items()
    }
    return [row_of(case, who, seed, run, losses[who]) for who, run in runs.items()]


def run_case(case: Case, options: argparse.Namespace) -> tuple[list[Row], dict[str, Target]]:
    seeds = (options.seeds or case.seeds)[: 1 if options.quick else None]
    with tempfile.TemporaryDirectory(prefix="raylora-peer-") as work:
        write_case(case, Path(work))
        rows = [row for seed in seeds for row in run_pair(case, Path(work), seed, options)]
    return rows, {f"{case.name}_{key}": promise for key, promise in compare(rows).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short pair of runs of each case")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--peer", type=Path, help="train_text_to_image_lora.py of diffusers")
    parser.add_argument("--peer-path", type=Path, nargs="*", help="folders with torchvision and datasets, for it alone")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", help="a pair of runs for each; the case's own if unset")
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
    rows: list[Row] = []
    targets: dict[str, Target] = {}
    for name in options.cases:
        found, promises = run_case(CASES[name], options)
        rows, targets = rows + found, targets | promises
    report("against_diffusers", rows, targets, options.json)


if __name__ == "__main__":
    main()
