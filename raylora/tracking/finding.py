"""Runs and versions in MLflow by what a user calls them; what isn't there is told with the nearest that is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.validation import _validate_model_alias_name, _validate_model_alias_name_reserved
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from raylora.config_section import nearest
from raylora.errors import ConfigError, TrackingError, first_line
from raylora.files import is_file
from raylora.tracking.mlflow_store import check_reachable, reason_of

RUN_ID = re.compile(r"[0-9a-f]{32}")
VERSION = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")
ORIGIN_TAG = "raylora.search_run"
"""On the run of a search's LoRA in another store than the search's own: the run that the search has there."""
MOST_LOOKED_AT = 1000


@dataclass(frozen=True)
class Found:
    """A version in the registry."""

    name: str
    version: str


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """What MLflow, its databases and servers raise within the block, in one message.

    Raises:
        TrackingError: one of them did.
    """
    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        raise TrackingError(
            f"tracking URI {uri}: MLflow doesn't do what it is asked ({reason_of(error)}); start the server, or let "
            "your user write runs, models and artifacts there, and try again"
        ) from None


def check_registry(uri: str) -> None:
    """Whether there is something at a tracking URI: asking for a sqlite file would make it.

    Raises:
        TrackingError: there isn't, or it doesn't answer.
    """
    if uri.startswith("sqlite:///") and not is_file(Path(uri.removeprefix("sqlite:///"))):
        raise TrackingError(
            f"tracking URI {uri}: there is no such file; a search's own is in its summary.json (tracking_uri)"
        )
    check_reachable(uri)


def check_alias(alias: str) -> None:
    """Whether MLflow takes an alias: it would tell after all else is done.

    Raises:
        ConfigError: it doesn't.
    """
    try:
        _validate_model_alias_name(alias)
        _validate_model_alias_name_reserved(alias)
    except MlflowException as error:
        reason = first_line(error).rstrip(".")
        raise ConfigError(f"--alias {alias}: is none that MLflow takes ({reason}); give another, as champion") from None


def version_at(client: MlflowClient, reference: str) -> Found:
    """The version that `models:/NAME/VERSION` or `models:/NAME@ALIAS` names.

    Raises:
        ConfigError: there is no such name, version or alias.
    """
    told = VERSION.fullmatch(reference)
    if told is None:
        raise ConfigError(f"{reference}: names no version; give models:/NAME/VERSION or models:/NAME@ALIAS")
    name = told["name"]
    model = next((one for one in client.search_registered_models() if one.name == name), None)
    if model is None:
        known = [one.name for one in client.search_registered_models()]
        raise ConfigError(f"{reference}: nothing is registered as {name}{_near(name, known)}")
    if told["alias"] is not None:
        if told["alias"] not in model.aliases:
            raise ConfigError(
                f"{reference}: {name} has no alias {told['alias']}{_near(told['alias'], [*model.aliases])}"
            )
        return Found(name, str(model.aliases[told["alias"]]))
    known = [str(one.version) for one in client.search_model_versions(f"name = '{_quoted(name)}'")]
    if told["version"] not in known:
        raise ConfigError(
            f"{reference}: {name} has no version {told['version']}; it has {', '.join(sorted(known, key=int))}"
        )
    return Found(name, told["version"])


def run_at(client: MlflowClient, run_id: str) -> Run:
    """The run of a whole search.

    Raises:
        ConfigError: there is none of that id, or it is a trial's.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException:
        known = [one.info.run_id for one in _searches(client)]
        raise ConfigError(f"{run_id}: MLflow has no such run{_near(run_id, known)}") from None
    parent = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
    if parent:
        raise ConfigError(
            f"{run_id}: is the run of a trial, whose LoRA is not kept in MLflow; give its search's, {parent}"
        )
    return run


def run_of_search(client: MlflowClient, run_id: str) -> str | None:
    """The run of a search's LoRA in this store: its own, or one that was opened for it; None if there is neither."""
    try:
        return str(client.get_run(run_id).info.run_id)
    except MlflowException:
        found = client.search_runs(_experiments(client), f"tags.`{ORIGIN_TAG}` = '{run_id}'", max_results=1)
        return str(found[0].info.run_id) if found else None


def _searches(client: MlflowClient) -> Sequence[Run]:
    """The latest runs of searches."""
    return list(client.search_runs(_experiments(client), "tags.`version.raylora` LIKE '%'", max_results=MOST_LOOKED_AT))


def _experiments(client: MlflowClient) -> list[str]:
    return [one.experiment_id for one in client.search_experiments()]


def _near(word: str, known: Sequence[str]) -> str:
    """The nearest, else what there is."""
    if told := nearest(word, known):
        return told
    return f"; there {'is' if len(known) == 1 else 'are'} {', '.join(known[:5])}" if known else "; there is none yet"


def _quoted(name: str) -> str:
    return name.replace("'", "\\'")
