"""Models on the Hugging Face hub: what is a hub id, and whether there is such a model."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from raylora.errors import ModelError, UnreachableError, first_line
from raylora.files import is_folder, read_mapping

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
REACH_S = 10


def is_hub_id(reference: str) -> bool:
    """Whether a reference can be a hub id and is not meant as a path."""
    return bool(HUB_ID.fullmatch(reference)) and not is_meant_as_path(reference)


def is_meant_as_path(reference: str) -> bool:
    """Whether a reference names a place on disk, there or not: `models/mine` where there is a folder `models`."""
    first, slash, _ = reference.partition("/")
    return reference.startswith((".", "/", "~")) or reference.endswith(".safetensors") or (
        bool(slash) and is_folder(Path(first))
    )  # fmt: skip


def read_hub_config(reference: str, name: str) -> dict[str, Any]:
    """A JSON file of a model on the hub: the cached one, else the hub's; a few kB.

    Raises:
        UnreachableError: not cached, and the hub doesn't answer.
        ModelError: no such model, none that may be read, or one without such a file.
    """
    file = hub_file(reference, name)
    try:
        return read_mapping(file)
    except (OSError, ValueError):
        raise ModelError(f"{reference}: {name} on the hub can't be read; choose another model") from None


def hub_file(reference: str, name: str) -> Path:
    """This machine's copy of a file of a model on the hub; brought, if it isn't there.

    Raises:
        UnreachableError: not cached, and the hub doesn't answer.
        ModelError: no such model, none that may be read, or one without such a file.
    """
    try:
        return _copy_here(reference, name)
    except HFValidationError:
        raise ModelError(f"{reference}: can't be a hub id; give owner/name, or the path of a folder") from None
    except LocalEntryNotFoundError:
        return Path(_download(reference, name))


def _copy_here(reference: str, name: str) -> Path:
    """A file that was downloaded before. No token is looked for: that may ask a server, and write."""
    return Path(hf_hub_download(reference, name, local_files_only=True, token=False))


def is_cached(reference: str, name: str, weights: Sequence[str]) -> bool:
    """Whether a model was downloaded before, with its weights; see `cached_folder`."""
    return cached_folder(reference, name, weights) is not None


def cached_folder(reference: str, name: str, weights: Sequence[str]) -> Path | None:
    """Where a model lies that was downloaded before, with its weights; the hub is not asked.

    Args:
        name: a small file that every such model has.
        weights: what its weights may be called: patterns below its folder.
    """
    try:
        file = _copy_here(reference, name)
    except (HFValidationError, LocalEntryNotFoundError):
        return None
    folder = file.parents[name.count("/")]
    is_whole = any(path.is_file() for pattern in weights for path in folder.glob(pattern))
    return folder if is_whole else None  # a download that broke off: none


def cached_revision(reference: str, name: str) -> str | None:
    """The commit of a model that was downloaded before, whose files are loaded here; None where there is none.

    Args:
        name: a small file that every such model has.
    """
    try:
        folder = _copy_here(reference, name).parents[name.count("/")]
    except (HFValidationError, LocalEntryNotFoundError):
        return None
    return folder.name


def why_silent() -> str | None:
    """Why the hub can't be asked, if so: huggingface_hub itself tries for half a minute, and says so on stderr."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    place = urlsplit(constants.ENDPOINT)
    try:
        if not getproxies():
            socket.create_connection((place.hostname or "", place.port or 443), timeout=REACH_S).close()
    except OSError as error:
        return f"{place.hostname} can't be reached ({error.strerror or error})"
    return None


def _download(reference: str, name: str) -> str:
    reason = why_silent()
    if reason is not None:
        raise _unreachable(reference, reason)
    try:
        return hf_hub_download(reference, name, etag_timeout=REACH_S)
    except GatedRepoError:
        raise ModelError(
            f"{reference}: its owner gives it only to those who asked; accept its terms at "
            f"https://huggingface.co/{reference} and log in with `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{reference}: there is no such path here and no such model on the Hugging Face hub (or it is private: "
            "log in with `hf auth login`); mend the name"
        ) from None
    except LocalEntryNotFoundError as error:
        raise _unreachable(reference, f"the hub can't be asked ({first_line(error)})") from None
    except EntryNotFoundError:
        raise ModelError(f"{reference}: is on the hub, but without {name}; is it a model of another kind?") from None
    except Exception as error:  # huggingface_hub and httpx raise many kinds
        raise _unreachable(reference, f"the hub can't be asked ({first_line(error)})") from None


def _unreachable(reference: str, reason: str) -> UnreachableError:
    return UnreachableError(
        f"{reference}: there is no such path here, it was not downloaded before, and {reason}; mend the name, "
        "go online, or give the path of a folder"
    )
