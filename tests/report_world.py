"""Output folders as searches and trainings leave them, written by hand: a page is made of files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raylora.config import Experiment
from raylora.config_files import write_experiment
from raylora.evaluation.grid import sample_grid
from raylora.execution.outputs import BASE_GRID_NAME, LOSSES_NAME, OutFolder, write_json, write_text, write_trials_csv
from raylora.tracking.recorder import TrialRecord

STEPS = (100, 200, 400)
HELD_OUT = 3
SIZE = 64
"""Of pictures, in px: the least that there can be."""
SPACE = """
name: tiny
parameters:
  optimizer.unet_lr: {low: 1.0e-5, high: 1.0e-2, log: true}
  lora.rank: {choices: [4, 8]}
  lr_scheduler.name: {choices: [cosine, constant]}
"""
STRENGTHS = ("0.4", "0.6", "0.8", "1", "1.2")


def colour(seed: int) -> np.ndarray[Any, Any]:
    """A picture that is told from others by its colour."""
    return np.full((SIZE, SIZE, 3), np.random.default_rng(seed).integers(20, 220, 3), np.uint8)


def grid(rows: int, seed: int, columns: int = HELD_OUT) -> np.ndarray[Any, Any]:
    """A grid of pictures, each of its own colour."""
    return sample_grid([[colour(seed + 100 * row + column) for column in range(columns)] for row in range(rows)])


def report_at(images: int, score: float, is_finished: bool = False) -> dict[str, Any]:
    """What a trial reports."""
    return {
        "score": score,
        "best_score": score,
        "holdout_loss": 0.1 * (1 - score / 20),
        "holdout_loss_ratio": 1 - score / 20,
        "train_probe_loss": 0.09 * (1 - score / 20),
        "sample_similarity": 0.5 + score / 10,
        "similarity_gain": score / 3,
        "diversity": 0.1,
        "copying": -0.05,
        "train_loss": 0.12 - score / 100,
        "images_seen": images,
        "is_finished": is_finished,
        "is_over": is_finished,
        "image_scores": [score] * HELD_OUT,
        "train_losses": [[seen, 0.14 - seen / 1e4] for seen in range(images - 90, images + 1, 10)],
        "train_s": images / 10,
        "peak_memory_gib": 1.5,
        "lora_mb": 4.75,
    }


@dataclass(frozen=True)
class Made:
    """A search to be written: what each trial reached at each step, and how it ended."""

    root: Path
    scores: Sequence[Sequence[float]] = ((0.3, 0.6, 0.8), (0.5, 0.9, 1.2), (0.1,), ())
    experiment: Experiment = field(
        default_factory=lambda: Experiment().with_params(
            {
                "dataset.path": "pictures",
                "dataset.trigger": "sks",
                "model.base_model": "some/base",
                "search.trials": 4,
                "search.grace_period": 100,
                "sampling.seeds": (0, 1),
            }
        )
    )
    captions: Sequence[str] = ("sks, a cat", "sks, a dog", "sks, a house")
    stop_reason: str = "forecast at 100 images"
    failure: str = "diverged: the loss is no number"

    @property
    def out(self) -> OutFolder:
        return OutFolder(self.root)

    def with_settings(self, **params: Any) -> Made:
        """The same with other settings, `a__b` for `a.b`."""
        return replace(
            self, experiment=self.experiment.with_params({k.replace("__", "."): v for k, v in params.items()})
        )

    def records(self) -> list[TrialRecord]:
        """The trials: finished, stopped early or failed by how far they came."""
        return [self._record(number, reached) for number, reached in enumerate(self.scores)]

    def _record(self, number: int, reached: Sequence[float]) -> TrialRecord:
        ended = "finished" if len(reached) == len(STEPS) else "stopped_early" if reached else "failed"
        reasons = {"finished": None, "stopped_early": self.stop_reason, "failed": self.failure}
        history = [report_at(STEPS[at], score, at == len(STEPS) - 1) for at, score in enumerate(reached)]
        params = {"optimizer.unet_lr": 10.0 ** -(number + 2), "lora.rank": (4, 8)[number % 2], "lora.alpha": 4.0}
        return TrialRecord(
            trial_id=f"t{number:03d}",
            number=number,
            params={**params, "lr_scheduler.name": ("cosine", "constant")[number % 2]},
            is_baseline=number == 0,
            folder=str(self.out.trials / f"t{number:03d}"),
            status=ended,  # type: ignore[arg-type]
            stop_reason=reasons[ended],
            history=history,
            report_times=list(range(len(history))),
        )

    def write(self, state: str = "finished", with_samples: bool = True, **more: Any) -> OutFolder:
        """All of it; a summary only where it is finished."""
        self.root.mkdir(parents=True, exist_ok=True)
        write_experiment(self.experiment, self.out.experiment)
        write_text(self.out.space, SPACE)
        searching = {"tracking_uri": "sqlite:///x", "parent_run_id": "1", "address": None}
        write_json(self.out.state_file, {**searching, "wall_s": 754.0, "state": state, **more})
        rows = [
            {"file": f"{place}.png", "digest": str(place), "caption": text} for place, text in enumerate(self.captions)
        ]
        write_json(self.out.split, {"holdout": rows, "train_images": 9})
        for record in self.records():
            record.write()
            if with_samples:
                self._samples(record)
        if with_samples and self.scores:
            self.out.cache.mkdir(exist_ok=True)
            rows = 1 + len(self.experiment.sampling.seeds)
            Image.fromarray(grid(rows, 3, len(self.captions))).save(self.out.cache / BASE_GRID_NAME)
        if state == "finished":
            self._finish(with_samples)
        return self.out

    def _samples(self, record: TrialRecord) -> None:
        folder = Path(record.folder) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        for report in record.history:
            rows = 1 + len(self.experiment.sampling.seeds)
            picture = Image.fromarray(grid(rows, record.number * 7 + report["images_seen"], len(self.captions)))
            picture.save(folder / f"images_{report['images_seen']:06d}.png")

    def _finish(self, with_samples: bool) -> None:
        write_trials_csv(self.out.trials_csv, self.records(), self.experiment)
        write_json(self.out.summary, self.summary())
        self.out.best.mkdir(exist_ok=True)
        (self.out.best / "lora.safetensors").write_bytes(b"")
        write_json(self.out.best / LOSSES_NAME, [[images, 0.2 - images / 1e4] for images in range(10, 410, 10)])
        if with_samples:
            folder = self.out.best / "samples"
            folder.mkdir(exist_ok=True)
            for place in range(len(self.captions)):
                Image.fromarray(colour(place)).save(folder / f"sample_{place:02d}.png")
            Image.fromarray(grid(4, 0, len(self.captions))).save(folder / "grid.png")
            Image.fromarray(grid(len(STRENGTHS), 50, len(self.captions))).save(folder / "strengths.png")

    def summary(self) -> dict[str, Any]:
        """The answer: t001 beats t000, the guide's own, on two new seeds each."""
        guide, winner, *_ = self.records()

        def entry(trial: TrialRecord, seeds: Sequence[float], spread: float) -> dict[str, Any]:
            return {
                "trial_id": trial.trial_id,
                "params": trial.params,
                "metrics": {k: v for k, v in (trial.best or {}).items() if isinstance(v, float)},
                "images_seen": 400,
                "score": sum(seeds) / len(seeds),
                "spread": spread,
                "new_seed_scores": list(seeds),
                "failed_seeds": 0,
                "selection_score": trial.score,
                "expected_score": None,
            }

        best, baseline = entry(winner, (1.15, 1.19), 0.028), entry(guide, (0.79, 0.83), 0.028)
        return {
            "best": {
                **best,
                "verdict": "good",
                "evidence": "the held-out loss ended at 0.940 times the base model's",
                "cure": "",
                "strength": 0.8,
                "strength_scores": dict(zip(STRENGTHS, (0.5, 0.8, 1.3, 1.2, 1.0), strict=True)),
                "lora_kohya": str(self.out.best / "lora.safetensors"),
                "lora_diffusers": str(self.out.best / "pytorch_lora_weights.safetensors"),
            },
            "baseline": {**baseline, "over_limits": ""},
            "confirmed": [best, baseline],
            "refit": True,
            "trials": {"finished": 2, "stopped_early": 1, "failed": 1, "total": len(self.scores)},
            "lost_workers": {"causes": {}, "trials": []},
            "tradeoffs": {
                "measures": ["score", "lora_mb"],
                "trials": [{"trial_id": "t001", "score": 1.2, "lora_mb": 4.75}],
            },
            "importance": [
                {"setting": "optimizer.unet_lr", "share": 0.62, "low": 0.4, "high": 0.8, "verdict": "matters",
                 "best": "0.001 to 0.01 in the best 2 trials"},
                {"setting": "lora.rank", "share": 0.1, "low": 0.0, "high": 0.3, "verdict": "can't tell", "best": ""},
            ],
            "images_seen": 900,
            "wall_s": 754.0,
            "registered": None,
            "tracking_uri": "sqlite:///x",
            "parent_run_id": "1",
        }  # fmt: skip


def rewrite(path: Path, **changes: Any) -> None:
    """Change parts of a JSON file."""
    write_json(path, {**json.loads(path.read_text()), **changes})


def training(root: Path, holds_out: bool, prompts: Sequence[str] = (), **state: Mapping[str, Any]) -> OutFolder:
    """What `raylora train` leaves."""
    out = OutFolder(root)
    root.mkdir(parents=True)
    experiment = Experiment().with_params({"dataset.path": "p", "model.base_model": "b", "sampling.prompts": prompts})
    write_experiment(experiment, out.experiment)
    write_json(out.state_file, {"holds_out": holds_out, "digest": "x", "wall_s": 60.0, "state": "finished", **state})
    record = TrialRecord("train", 0, {}, is_baseline=True, folder=str(out.trials / "train"), status="finished")
    record.history = [report_at(images, images / 400, images == 400) for images in STEPS] if holds_out else []
    if not holds_out:
        record.params = {"train_loss": 0.11, "images_seen": 400}
    record.write()
    if holds_out:
        rows = [{"file": f"{place}.png", "digest": str(place), "caption": f"sks {place}"} for place in range(HELD_OUT)]
        write_json(out.split, {"holdout": rows, "train_images": 9})
        samples = out.trials / "train" / "samples"
        samples.mkdir()
        for images in STEPS:
            Image.fromarray(grid(1 + len(experiment.sampling.seeds), images)).save(samples / f"images_{images:06d}.png")
    metrics = {k: v for k, v in (record.best or {}).items() if isinstance(v, float)} or {"train_loss": 0.11}
    best = {"trial_id": "train", "score": 1.0 if holds_out else None, "params": {}, "metrics": metrics}
    told = {"verdict": "good" if holds_out else "unknown", "evidence": "no evaluation was reached", "cure": ""}
    write_json(
        out.summary,
        {"best": {**best, **told}, "baseline": None, "trials": {"total": 1}, "importance": [], "images_seen": 400,
         "wall_s": 60.0, "registered": None, "tracking_uri": None, "parent_run_id": None},
    )  # fmt: skip
    folder = out.best / "samples"
    folder.mkdir(parents=True)
    (out.best / "lora.safetensors").write_bytes(b"")
    rows = [[colour(100 * row + column) for column in range(3 if holds_out else 8)] for row in range(2 + holds_out)]
    rows[-1] = rows[-1][: len(prompts) or None]  # of prompts, which may be fewer than the pictures above
    for place, picture in enumerate(rows[-1]):
        Image.fromarray(picture).save(folder / f"sample_{place:02d}.png")
    Image.fromarray(sample_grid(rows)).save(folder / "grid.png")
    if not holds_out:
        write_json(out.best / LOSSES_NAME, [[images, 0.2 - images / 1e4] for images in range(10, 410, 10)])
    return out
