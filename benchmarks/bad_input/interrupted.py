"""A training and a search as a kill leaves them; paths in them say `OUT_FOLDER` where the folder itself is meant."""

from __future__ import annotations

import json
from pathlib import Path

from raylora.config import Experiment
from raylora.config_files import read_experiment, write_experiment
from raylora.dataset.folder import read_folder
from raylora.dataset.split import split_pictures, write_splits
from raylora.execution.alone import train_job
from raylora.execution.checked_job import checked_job
from raylora.execution.outputs import OutFolder, write_json
from raylora.search.space import load_space
from raylora.search.study import SearchStudy
from raylora.tracking.mlflow_runs import MlflowTracker
from raylora.tracking.recorder import TrialRecord

ROOT_WORD = "OUT_FOLDER"


def _experiment(root: Path) -> Experiment:
    paths = {
        "dataset.path": str(root / "pictures"),
        "training.epochs": 2,
        "training.max_images": None,
        "training.repeats": 1,
    }
    return read_experiment(root / "good.yaml").with_params(paths)


def make_training(root: Path) -> None:
    """Stopped after its first epoch."""
    job = checked_job(_experiment(root), None, None, lambda _: None, holds_out=False)

    def say(message: str) -> None:
        if "images: training loss" in message:
            raise KeyboardInterrupt

    try:
        train_job(job, OutFolder(root / "training"), False, say)
    except KeyboardInterrupt:
        return
    raise AssertionError("it wasn't stopped")


def make_search(root: Path) -> None:
    """Two trials wanted; one has come to its end, the other has not begun."""
    experiment, space, out = _experiment(root), load_space(str(root / "small.yaml")), OutFolder(root / "search")
    out.root.mkdir()
    write_experiment(experiment, out.experiment)
    out.space.write_text((root / "small.yaml").read_text())
    write_splits([split_pictures(read_folder(root / "pictures"), 0.25)], out.split)
    uri = f"sqlite:///{out.root}/mlflow.db"
    tracker = MlflowTracker(uri, "raylora")
    tracker.start("search", {}, {})
    state = {"state": "interrupted", "tracking_uri": f"sqlite:///{ROOT_WORD}/mlflow.db", "address": None, "wall_s": 1.0}
    write_json(out.state_file, {**state, "parent_run_id": tracker.parent_run_id})
    _one_trial(out, SearchStudy(out.study, space, experiment, lambda _: 8))


def _one_trial(out: OutFolder, study: SearchStudy) -> None:
    number, params = study.ask()
    folder = out.trials / "t000"
    folder.mkdir(parents=True)
    record = TrialRecord("t000", number, params, is_baseline=False, folder=str(folder))
    report = {
        "score": 0.5,
        "best_score": 0.5,
        "images_seen": 2,
        "is_finished": False,
        "train_losses": [],
        "image_scores": [],
    }
    report |= dict.fromkeys(
        ("holdout_loss", "holdout_loss_ratio", "sample_similarity", "similarity_gain", "train_loss"), 0.5
    )
    record.hear(report)
    study.report(number, 2, 0.5)
    record.write()
    record_file = folder / "trial.json"
    kept = json.loads(record_file.read_text())
    record_file.write_text(json.dumps({**kept, "folder": f"{ROOT_WORD}/trials/t000"}))
