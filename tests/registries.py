"""Finished searches as MLflow's registry gets to see them, written by hand; their LoRAs are real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raylora.config import Experiment, LoraConfig
from raylora.config_files import write_experiment
from raylora.dataset.folder import Picture
from raylora.dataset.split import Split, write_splits
from raylora.diffusion.adapters import Adapter
from raylora.diffusion.base import BaseModel
from raylora.diffusion.lora_file import LoraCard, write_diffusers, write_kohya
from raylora.execution.how_to import KOHYA_NAME
from raylora.execution.job import Job
from raylora.execution.outputs import OutFolder, write_json
from raylora.execution.registering import claim_of, describe, write_entry
from raylora.tracking.mlflow_runs import MlflowTracker
from tests.report_world import Made

IMAGES = 12
EFFECT = 0.3
"""Standard deviation of a LoRA's weights."""


def picture(number: int, caption: str = "") -> Picture:
    """One that is nowhere on a disk."""
    return Picture(
        Path(f"secret_{number:02d}.png"), caption or f"sks, look {number}", 1, "", f"{number:x}".ljust(64, "f")
    )


def job_of(experiment: Experiment, held_out: Sequence[int] = (0, 1, 2), **captions: str) -> Job:
    """A search on twelve pictures."""
    pictures = [picture(number, captions.get(f"p{number}", "")) for number in range(IMAGES)]
    held = tuple(pictures[number] for number in held_out)
    split = Split(tuple(one for one in pictures if one not in held), held)
    return Job(experiment, None, pictures, (split,), [])


def finished(
    root: Path,
    base: BaseModel,
    uri: str,
    score: float,
    job: Job | None = None,
    settings: Mapping[str, Any] | None = None,
) -> OutFolder:
    """What a finished search leaves of itself, with its run in a store, of which the LoRA is no part yet."""
    made = Made(root).with_settings(model__base_model=base.reference, dataset__resolution=64, sampling__steps=2)
    experiment = made.experiment.with_params(settings or {})
    job = job or job_of(experiment)
    out = made.write()
    adapter = trained(base)
    write_diffusers(adapter, out.best, "fp16", LoraCard(root.name, (64, 64), 8))
    write_kohya(adapter, out.best / KOHYA_NAME, LoraCard(root.name, (64, 64), 8))
    adapter.close()
    summary = made.summary()
    write_experiment(experiment.with_params(summary["best"]["params"]), out.best / "experiment.yaml")
    write_splits(job.splits, out.split)
    tracker = MlflowTracker(uri, "raylora")
    tracker.start(root.name, {}, {})
    tracker.finish({"best.score": score}, None)
    summary["best"] |= {"score": score}
    summary |= {"tracking_uri": uri, "parent_run_id": tracker.parent_run_id}
    write_json(out.summary, summary)
    out.write_state("finished", tracking_uri=uri, parent_run_id=tracker.parent_run_id)
    write_entry(out, describe(out, job, summary), claim_of(job, summary["best"], "weights", "encoder"))
    return out


def trained(base: BaseModel) -> Adapter:
    """A LoRA that does something: a new one has no effect."""
    adapter = Adapter(base, LoraConfig(rank=2, alpha=2), "a", train_text_encoder=True, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in adapter.peft_configs:
            for _, weight in adapter.parameters(part):
                weight.copy_(torch.randn(weight.shape, generator=generator) * EFFECT)
    return adapter


def send_trials(out: OutFolder, uri: str) -> str:
    """Have MLflow told of a search's trials, with their pictures, as the search would; returns its run."""
    state = out.read_state()
    tracker = MlflowTracker(uri, "raylora")
    tracker.start(out.root.name, {"space": "tiny", "search.trials": 4}, {}, run_id=state["parent_run_id"])
    tracker.look_through([out.trials])
    tracker.catch_up()
    tracker.finish({"best.score": 1.1}, out.best)
    return str(state["parent_run_id"])
