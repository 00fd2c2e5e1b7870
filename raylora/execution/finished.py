"""A finished search's folder, as a registry needs it; without torch and MLflow, so that a wrong one is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylora.config import Experiment
from raylora.config_files import read_experiment
from raylora.diffusion.places import DIFFUSERS_NAME
from raylora.errors import OutputError
from raylora.execution.outputs import EXPERIMENT_NAME, OutFolder
from raylora.files import is_file, is_folder, read_mapping, resolved
from raylora.tracking.names import REGISTRY, RUN_ID


@dataclass(frozen=True)
class FinishedSearch:
    """What a finished search's folder says of it."""

    out: OutFolder
    summary: Mapping[str, Any]
    experiment: Experiment
    """That of `best/`."""
    tracking_uri: str
    run_id: str


def output_named(target: str) -> OutFolder | None:
    """The output folder that a target names; None of a run's id or a registered LoRA."""
    if target.startswith(REGISTRY) or (RUN_ID.fullmatch(target) and not is_folder(Path(target))):
        return None
    return OutFolder(resolved(Path(target)))


def finished_search(out: OutFolder) -> FinishedSearch:
    """A search whose LoRA is there.

    Raises:
        UserError: there is none.
    """
    if not is_folder(out.root):
        raise OutputError(
            f"{out.root}: there is no such folder, and no run is called so; give a finished search's output folder, "
            "the id of its run in MLflow, or models:/NAME/VERSION"
        )
    state = out.read_state()
    if out.holds_training:
        raise OutputError(
            f"{out.root}: holds a training, which has no run in MLflow and no score beside others'; "
            "promote what `raylora tune` has found"
        )
    if state["state"] != "finished":
        raise OutputError(f"{out.root}: this search isn't finished; go on by `{out.how_to_resume}` first")
    uri, run_id = state.get("tracking_uri"), state.get("parent_run_id")
    if not isinstance(uri, str) or not isinstance(run_id, str):
        raise OutputError(
            f"{out.root}: its state.json doesn't say which run in MLflow is its own; put back a copy of it"
        )
    for file in (out.best / EXPERIMENT_NAME, out.best / DIFFUSERS_NAME):
        if not is_file(file):
            raise OutputError(lost(file, "is gone"))
    return FinishedSearch(out, _summary(out), read_experiment(out.best / EXPERIMENT_NAME), uri, run_id)


def lost(file: Path, how: str) -> str:
    """What is said of a file without which a LoRA can't be registered."""
    return f"{file}: {how}, and without it the LoRA can't be registered; put back a copy of it"


def _summary(out: OutFolder) -> dict[str, Any]:
    """The answer of a search, with all that a registry is told of it.

    Raises:
        OutputError: it is gone, or damaged.
    """
    try:
        summary = read_mapping(out.summary)
        best = summary["best"]
        is_one = isinstance(best["params"], dict) and "total" in summary["trials"]
        _ = [float(value) for value in (best["score"], *best["metrics"].values())]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        is_one = False
    if not is_one:
        raise OutputError(lost(out.summary, "is damaged" if is_file(out.summary) else "is gone"))
    return summary
