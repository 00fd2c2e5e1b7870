"""Runs and versions in MLflow by what a user calls them; what isn't there is told with the nearest that is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.validation import _validate_model_alias_name, _validate_model_alias_name_reserved
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from raylora.config_section import nearest
from raylora.errors import ConfigError, TrackingError, first_line
from raylora.files import is_file
from raylora.tracking.mlflow_store import check_reachable, reason_of, store_file

VERSION = re.compile(r"models:/(?P<name>[^/@:]+)(?:/(?P<version>\d{1,9})|@(?P<alias>[^/@]+))")
"""Databases take numbers of 32 bits."""
ORIGIN_TAG = "raylora.search_run"
"""On the run of a search's LoRA in another store than the search's own: the run that the search has there."""
MOST_LOOKED_AT = 1000
MOST_TOLD = 10
UNKNOWN = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
"""What MLflow's stores say of a thing that isn't there; the second of an alias that no version has."""

Answer = TypeVar("Answer")


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
    if (file := store_file(uri)) and not is_file(file):
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


def version_at(client: MlflowClient, reference: str) -> ModelVersion:
    """The version that `models:/NAME/VERSION` or `models:/NAME@ALIAS` names.

    Raises:
        ConfigError: there is no such name, version or alias; told with the nearest, and with what there is.
    """
    wanted = VERSION.fullmatch(reference)
    if wanted is None:
        raise ConfigError(f"{reference}: names no version; give models:/NAME/VERSION or models:/NAME@ALIAS")
    name, alias, number = wanted["name"], wanted["alias"], wanted["version"]
    model: RegisteredModel | None = or_none(lambda: client.get_registered_model(name))
    if model is None:
        names = [one.name for one in client.search_registered_models(max_results=MOST_LOOKED_AT)]
        raise ConfigError(f"{reference}: nothing is registered as {name}{_near(name, names)}")
    if alias is not None:
        version = holder_of(client, name, alias)
        why_not = f"{name} has no alias {alias}{_near(alias, sorted(model.aliases))}"
    else:
        version = or_none(lambda: client.get_model_version(name, number))
        why_not = f"{name} has no version {number}{_near(number, _versions(client, name))}"
    if version is None:
        raise ConfigError(f"{reference}: {why_not}")
    return version


def _versions(client: MlflowClient, name: str) -> list[str]:
    """A model's versions, the latest first."""
    quote = '"' if "'" in name else "'"
    found = client.search_model_versions(f"name={quote}{name}{quote}", max_results=MOST_LOOKED_AT)
    return [str(number) for number in sorted((int(one.version) for one in found), reverse=True)]


def holder_of(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that has an alias; None if none has."""
    return or_none(lambda: client.get_model_version_by_alias(name, alias))


def or_none(ask: Callable[[], Answer]) -> Answer | None:
    """What MLflow answers; None where it says that there is no such thing."""
    try:
        return ask()
    except MlflowException as error:
        if error.error_code in UNKNOWN:
            return None
        raise


def run_at(client: MlflowClient, run_id: str) -> Run:
    """The run of a whole search.

    Raises:
        ConfigError: there is none of that id, it was deleted, or it is a trial's.
    """
    run = _run(client, run_id)
    if run is None:
        known = [one.info.run_id for one in _searches(client)]
        raise ConfigError(f"{run_id}: MLflow has no such run{_near(run_id, known)}")
    parent = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
    if parent:
        raise ConfigError(
            f"{run_id}: is the run of a trial, whose LoRA is not kept in MLflow; give its search's, {parent}"
        )
    return run


def run_of_search(client: MlflowClient, run_id: str) -> str | None:
    """The run of a search's LoRA in this store: its own, or one that was opened for it; None if there is neither.

    Raises:
        ConfigError: its own was deleted.
    """
    if _run(client, run_id):
        return run_id
    found = client.search_runs(_experiments(client), f"tags.`{ORIGIN_TAG}` = '{run_id}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _run(client: MlflowClient, run_id: str) -> Run | None:
    """A run by its id, unless there is none; MLflow finds deleted ones too, but writes nothing to them."""
    run: Run | None = or_none(lambda: client.get_run(run_id))
    if run is not None and run.info.lifecycle_stage == LifecycleStage.DELETED:
        raise ConfigError(
            f"{run_id}: this run was deleted in MLflow; bring it back by `mlflow runs restore --run-id {run_id}`, or "
            "promote the search's output folder into another store by --tracking-uri"
        )
    return run


def _searches(client: MlflowClient) -> Sequence[Run]:
    """The latest runs of searches."""
    return list(client.search_runs(_experiments(client), "tags.`version.raylora` LIKE '%'", max_results=MOST_LOOKED_AT))


def _experiments(client: MlflowClient) -> list[str]:
    return [one.experiment_id for one in client.search_experiments()]


def _near(word: str, known: Sequence[str]) -> str:
    """The nearest of what there is, and what there is."""
    more = " and more" if len(known) > MOST_TOLD else ""
    there = f"there: {', '.join(known[:MOST_TOLD])}{more}" if known else "there is none yet"
    return f"{nearest(word, known)} ({there})"
