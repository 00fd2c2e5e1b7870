"""`raylora promote`: a LoRA registered under a name, and given an alias if it is better than the one that has it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from raylora.config_files import read_experiment
from raylora.errors import ConfigError, OutputError
from raylora.execution.finished import FinishedSearch, finished_search, lost, output_named
from raylora.execution.model_card import CARD_NAME, Described, write_card
from raylora.execution.outputs import EXPERIMENT_NAME, OutFolder
from raylora.execution.registering import base_folder, entry_of, known_licence, loadable_base, log_winner
from raylora.execution.winner import GRID_NAME
from raylora.files import is_file, is_folder, read_mapping
from raylora.tracking.entry import ENTRY_NAME, Entry, read_entry
from raylora.tracking.names import REGISTRY, URI_VARIABLE

if TYPE_CHECKING:
    from raylora.tracking.registry import Found, Placed

NEW_STORE = "registry.db"
"""In an output folder, where its search's own store is gone."""
PRIVATE = (EXPERIMENT_NAME, f"samples/{GRID_NAME}")
"""What of `best/` is not sent to a store that the search didn't write to: paths, and real pictures."""


@dataclass(frozen=True)
class Promotion:
    """What is to be promoted, and to what."""

    target: str
    """An output folder, the id of a search's run, or `models:/NAME/VERSION`."""
    name: str | None
    alias: str
    tracking_uri: str | None
    force: bool = False
    usual_uri: str | None = None
    """The tracking URI of what lies in MLflow alone, where none is given."""


def promote(wanted: Promotion, say: Callable[[str], None]) -> Placed:
    """Register what isn't registered yet, and give it the alias if that may move.

    Raises:
        UserError: there is no such thing, or the store can't be used; nothing has changed.
    """
    from raylora.tracking.finding import check_alias

    check_alias(wanted.alias)
    if wanted.target.startswith(REGISTRY):
        return _promote_version(wanted)
    if out := output_named(wanted.target):
        return _promote_output(wanted, out, say)
    return _promote_run(wanted)


def _store(wanted: Promotion) -> str:
    """The tracking URI of something that lies in MLflow alone."""
    from raylora.tracking.finding import check_registry
    from raylora.tracking.mlflow_store import tracking_uri

    uri = wanted.tracking_uri or wanted.usual_uri
    if not uri:
        raise ConfigError(
            f"{wanted.target}: say where that is; give --tracking-uri (a search's is in its summary.json), or set "
            f"{URI_VARIABLE}"
        )
    found = tracking_uri(uri, Path())
    check_registry(found)
    return found


def _promote_version(wanted: Promotion) -> Placed:
    from raylora.tracking.finding import answering, version_at
    from raylora.tracking.registry import place, registry

    uri = _store(wanted)
    with answering(uri):
        with registry(uri) as client:
            found = version_at(client, wanted.target)
        if wanted.name not in (None, found.name):
            raise ConfigError(f"--name {wanted.name}: {wanted.target} is a version of {found.name}; leave --name out")
        return place(uri, found.name, str(found.version), wanted.alias, wanted.force)


def _promote_run(wanted: Promotion) -> Placed:
    from raylora.tracking.finding import answering, run_at
    from raylora.tracking.registry import loras_of, place, register, registry

    name, uri = _name(wanted), _store(wanted)
    with answering(uri):
        with registry(uri) as client:
            run_at(client, wanted.target)
            model = _served(wanted.target, list(loras_of(client, wanted.target)))
        return place(uri, name, register(uri, model.uri, name), wanted.alias, wanted.force)


def _served(run_id: str, found: list[Found]) -> Found:
    """The LoRA of a run that MLflow alone serves as it was trained; the newest of those that tell most.

    Raises:
        ConfigError: there is none.
    """
    served = [one for one in found if one.told.fault is None]
    if served:
        return max(served, key=lambda one: one.told.entry is not None)
    if found:
        raise ConfigError(
            f"{run_id}: MLflow alone can't serve this run's LoRA as it was trained: {found[0].told.fault}; give the "
            "search's output folder, from which it is logged anew"
        )
    raise ConfigError(
        f"{run_id}: this run has no LoRA; its search isn't finished, or is of another program: "
        "give the search's output folder"
    )


def _name(wanted: Promotion) -> str:
    if wanted.name is None:
        raise ConfigError(f"{wanted.target}: say under which name it is to be registered; give --name")
    return wanted.name


def _promote_output(wanted: Promotion, out: OutFolder, say: Callable[[str], None]) -> Placed:
    from raylora.tracking.finding import answering
    from raylora.tracking.registry import place, register

    name, search = _name(wanted), finished_search(out)
    uri = _store_of(wanted, search)
    with answering(uri):
        with out.locked():
            entry = _entry(search)
            version = register(uri, _logged(search, uri, entry, say), name, entry)
        return place(uri, name, version, wanted.alias, wanted.force)


def _store_of(wanted: Promotion, search: FinishedSearch) -> str:
    """The tracking URI that is given, else the search's own.

    Raises:
        UserError: there is no such store.
    """
    from raylora.tracking.finding import check_registry
    from raylora.tracking.mlflow_store import check_reachable, store_file, tracking_uri

    root, uri = search.out.root, search.tracking_uri
    if wanted.tracking_uri is not None:
        uri = tracking_uri(wanted.tracking_uri, root)
        check_reachable(uri)
    elif (file := store_file(uri)) and not is_file(file):
        words = ["raylora", "promote", str(root), "--name", _name(wanted), "--tracking-uri"]
        how = shlex.join([*words, f"sqlite:///{root / NEW_STORE}"])
        raise OutputError(
            f"{root}: the MLflow store of this search, {file}, is gone; was the folder moved or copied? "
            f"Move it back, or register the LoRA in a new store: `{how}`"
        )
    else:
        check_registry(uri)
    return uri


def _entry(search: FinishedSearch) -> Entry:
    """What the registry is to be told, as the search has left it; of searches from before that, less.

    A card that is there is left as it is: it tells more.
    """
    file = search.out.root / ENTRY_NAME
    if not is_file(search.out.best / CARD_NAME):
        write_card(search.out, _described(search))
    if not is_file(file):
        return entry_of(_described(search), None)
    try:
        return read_entry(file)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise OutputError(
            f"{file}: is damaged; put back a copy of it, or remove it to register without scores"
        ) from None


def _described(search: FinishedSearch) -> Described:
    """What can be told of a search's LoRA without its pictures.

    Raises:
        OutputError: the record of who was held out is gone or damaged.
    """
    out, experiment = search.out, search.experiment
    try:
        split = read_mapping(out.split)
        first = split["folds"][0] if "folds" in split else split
        held_out, learned = len(first["holdout"]), int(first["train_images"])
        captions = [str(row.get("caption", "")) for row in first["holdout"]]
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise OutputError(lost(out.split, "is damaged" if is_file(out.split) else "is gone")) from None
    return Described(
        name=out.root.name,
        experiment=experiment,
        summary=search.summary,
        images=held_out + learned,
        learned=held_out + learned if search.summary.get("refit") else learned,
        digest="",
        held_out=held_out,
        prompts=captions[: experiment.evaluation.max_images],
        licence=known_licence(experiment),
    )


def _logged(search: FinishedSearch, uri: str, entry: Entry, say: Callable[[str], None]) -> str:
    """The search's LoRA as a model in a store: the one that is there and can be served, else logged now."""
    from raylora.tracking.finding import run_of_search
    from raylora.tracking.registry import loras_of, registry

    with registry(uri) as client:
        run_id = run_of_search(client, search.run_id)
        there = (
            next((one.uri for one in loras_of(client, run_id) if _is_whole(one, search.out)), None) if run_id else None
        )
    if there:
        return there
    say("Writing the LoRA to MLflow …")
    loadable_base(read_experiment(search.out.best / EXPERIMENT_NAME), base_folder(search.out))  # before a run is opened
    return log_winner(search.out, uri, run_id or _open_run(search, uri), entry, as_folder=True)


def _is_whole(found: Found, out: OutFolder) -> bool:
    """Whether a logged LoRA is served as it was trained and tells what it is, and a base model made for it is there."""
    told = found.told
    base = Path(told.base_model)  # one of the user's own may lie where it is served, and not here
    has_base = base.name != base_folder(out).name or is_folder(base)
    return told.fault is None and told.entry is not None and has_base


def _open_run(search: FinishedSearch, uri: str) -> str:
    """A run for a search's LoRA in another store than its own, with what it found and the files of `best/`."""
    from raylora.tracking.finding import ORIGIN_TAG
    from raylora.tracking.mlflow_runs import MlflowTracker

    out, best = search.out, search.summary["best"]
    tracker = MlflowTracker(uri, read_experiment(out.experiment).tracking.experiment)
    tracker.start(out.root.name, best["params"], {ORIGIN_TAG: search.run_id})
    measured = {**best["metrics"], "score": best["score"]}
    with _without_private(out.best) as folder:
        tracker.finish({f"best.{key}": float(value) for key, value in measured.items()}, folder)
    return tracker.parent_run_id


@contextmanager
def _without_private(best: Path) -> Iterator[Path]:
    """The files of `best/` that others may see, in a folder of links while the block lasts."""
    with TemporaryDirectory(prefix="raylora-") as made:
        for file in sorted(path for path in best.rglob("*") if path.is_file()):
            name = file.relative_to(best)
            if name.as_posix() not in PRIVATE:
                (Path(made) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(made) / name).symlink_to(file)
        yield Path(made)
