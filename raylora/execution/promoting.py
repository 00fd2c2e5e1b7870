"""`raylora promote`: a LoRA registered under a name, and given an alias if it is better than the one that has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.config_files import read_experiment
from raylora.errors import ConfigError, OutputError
from raylora.execution.model_card import Described
from raylora.execution.outputs import OutFolder
from raylora.execution.registering import base_folder, known_licence, log_winner, needs_folder
from raylora.execution.winner import EXPERIMENT_NAME
from raylora.files import is_file, is_folder, read_mapping, resolved
from raylora.tracking.entry import ENTRY_NAME, Entry, read_entry

if TYPE_CHECKING:
    from raylora.tracking.registry import Placed

MODEL_SCHEME = "models:/"


@dataclass(frozen=True)
class Promotion:
    """What is to be promoted, and to what."""

    target: str
    """An output folder, the id of a search's run, or `models:/NAME/VERSION`."""
    name: str | None
    alias: str
    tracking_uri: str | None
    force: bool = False


def promote(wanted: Promotion, say: Callable[[str], None]) -> Placed:
    """Register what isn't registered yet, and give it the alias if that may move.

    Raises:
        UserError: there is no such thing, or the store can't be used; nothing has changed.
    """
    from raylora.tracking.finding import RUN_ID, answering, check_alias

    check_alias(wanted.alias)
    with answering(wanted.tracking_uri or f"of {wanted.target}"):
        if wanted.target.startswith(MODEL_SCHEME):
            return _promote_version(wanted)
        if is_folder(Path(wanted.target)) or not RUN_ID.fullmatch(wanted.target):
            return _promote_output(wanted, OutFolder(resolved(Path(wanted.target))), say)
        return _promote_run(wanted)


def _store(uri: str | None, target: str) -> str:
    """The tracking URI of something that lies in MLflow alone."""
    from raylora.tracking.finding import check_registry
    from raylora.tracking.mlflow_store import tracking_uri

    if uri is None:
        raise ConfigError(f"{target}: say where that is; give --tracking-uri (a search's is in its summary.json)")
    found = tracking_uri(uri, Path())
    check_registry(found)
    return found


def _promote_version(wanted: Promotion) -> Placed:
    from raylora.tracking.finding import version_at
    from raylora.tracking.registry import place, registry

    uri = _store(wanted.tracking_uri, wanted.target)
    with registry(uri) as client:
        found = version_at(client, wanted.target)
    if wanted.name not in (None, found.name):
        raise ConfigError(f"--name {wanted.name}: {wanted.target} is a version of {found.name}; leave --name out")
    return place(uri, found.name, found.version, wanted.alias, wanted.force)


def _promote_run(wanted: Promotion) -> Placed:
    from raylora.tracking.finding import run_at
    from raylora.tracking.registry import model_of, place, register, registry

    name, uri = _name(wanted), _store(wanted.tracking_uri, wanted.target)
    with registry(uri) as client:
        run_at(client, wanted.target)
        model_uri = model_of(uri, wanted.target) or model_of(uri, wanted.target, whole=False)
    if model_uri is None:
        raise ConfigError(
            f"{wanted.target}: this run has no LoRA; its search isn't finished, or is of another program: "
            "give the search's output folder"
        )
    return place(uri, name, register(uri, model_uri, name), wanted.alias, wanted.force)


def _name(wanted: Promotion) -> str:
    if wanted.name is None:
        raise ConfigError(f"{wanted.target}: say under which name it is to be registered; give --name")
    return wanted.name


def _promote_output(wanted: Promotion, out: OutFolder, say: Callable[[str], None]) -> Placed:
    from raylora.tracking.finding import check_registry
    from raylora.tracking.mlflow_store import check_reachable, tracking_uri
    from raylora.tracking.registry import place, register

    name, state = _name(wanted), _finished_search(out)
    if wanted.tracking_uri is None:
        uri = str(state["tracking_uri"])
        check_registry(uri)
    else:
        uri = tracking_uri(wanted.tracking_uri, out.root)
        check_reachable(uri)
    with out.locked():
        entry = _entry(out)
        model_uri = _logged(out, uri, str(state["parent_run_id"]), entry, say)
        version = register(uri, model_uri, name, entry)
    return place(uri, name, version, wanted.alias, wanted.force)


def _finished_search(out: OutFolder) -> dict[str, Any]:
    """The state of a search whose LoRA is there.

    Raises:
        OutputError: there is none.
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
        raise OutputError(f"{out.root}: this search isn't finished; go on by `raylora resume {out.root}` first")
    if not all(isinstance(state.get(part), str) for part in ("tracking_uri", "parent_run_id")):
        raise OutputError(
            f"{out.root}: its state.json doesn't say which run in MLflow is its own; put back a copy of it"
        )
    for file in (out.summary, out.best / EXPERIMENT_NAME):
        if not is_file(file):
            raise OutputError(f"{file}: is gone, and without it the LoRA can't be registered; put back a copy of it")
    return state


def _entry(out: OutFolder) -> Entry:
    """What the registry is to be told, as the search has left it; of searches from before that, less."""
    file = out.root / ENTRY_NAME
    try:
        return read_entry(file) if is_file(file) else _entry_without_claim(out)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise OutputError(
            f"{file}: is damaged; put back a copy of it, or remove it to register without scores"
        ) from None


def _entry_without_claim(out: OutFolder) -> Entry:
    """Of a folder that doesn't say what its score is worth."""
    from raylora.execution.registering import write_entry

    summary, split = read_mapping(out.summary), read_mapping(out.split)
    first = split["folds"][0] if "folds" in split else split
    experiment = read_experiment(out.best / EXPERIMENT_NAME)
    held_out = len(first["holdout"])
    told = Described(
        name=out.root.name,
        experiment=experiment,
        summary=summary,
        images=held_out + int(first["train_images"]),
        digest="",
        held_out=held_out,
        prompts=[str(row.get("caption", "")) for row in first["holdout"]][: experiment.evaluation.max_images],
        licence=known_licence(experiment),
    )
    return write_entry(out, told, None)


def _logged(out: OutFolder, uri: str, search_run: str, entry: Entry, say: Callable[[str], None]) -> str:
    """The search's LoRA as a model in a store: the one that is there, else logged now."""
    from raylora.tracking.finding import run_of_search
    from raylora.tracking.registry import model_of, registry

    experiment = read_experiment(out.best / EXPERIMENT_NAME)
    with registry(uri) as client:
        run_id = run_of_search(client, search_run)
        is_loadable = not needs_folder(experiment) or is_folder(base_folder(out))
        there = model_of(uri, run_id) if run_id and is_loadable else None
    if there:
        return there
    say("Writing the LoRA to MLflow …")
    return log_winner(out, uri, run_id or _open_run(out, uri, search_run), entry, as_folder=True)


def _open_run(out: OutFolder, uri: str, search_run: str) -> str:
    """A run for a search's LoRA in another store than its own, with what it found and the files of `best/`."""
    from raylora.tracking.finding import ORIGIN_TAG
    from raylora.tracking.mlflow_runs import MlflowTracker

    summary = read_mapping(out.summary)
    tracker = MlflowTracker(uri, read_experiment(out.experiment).tracking.experiment)
    tracker.start(out.root.name, summary["best"]["params"], {ORIGIN_TAG: search_run})
    measured = {**summary["best"]["metrics"], "score": summary["best"]["score"]}
    tracker.finish({f"best.{key}": float(value) for key, value in measured.items()}, out.best)
    return tracker.parent_run_id
