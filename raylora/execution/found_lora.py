"""The LoRA that pictures are made with, wherever it is: a file, an output folder, MLflow's registry."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylora.config import SIZE_STEP_PX, nest
from raylora.config_files import Layer
from raylora.diffusion.lora_file import DIFFUSERS_NAME, KOHYA_NAME, lora_file_in, webui_hash
from raylora.diffusion.lora_reading import family_of, read_tensors
from raylora.errors import ConfigError, TrackingError
from raylora.execution.assess import check_place
from raylora.execution.outputs import OutFolder
from raylora.execution.winner import EXPERIMENT_NAME
from raylora.files import is_file, read_mapping, resolved

REGISTRY = "models:/"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
USUAL_SIZE = {"sdxl": [1024, 1024]}
"""Width and height in px where a family was trained on others than `dataset.resolution`'s own default."""
SIZE = re.compile(r"(\d{2,4})x(\d{2,4})")
UNSAFE = re.compile(r"[<>:,\"\s\x00-\x1f]+")
"""What a name in `<lora:NAME:1>` can't hold."""
FOREIGN = re.compile(r"[^A-Za-z0-9_-]+")
"""What the report leaves out of the name that it tells to give an output folder's LoRA (`report/usage.py`)."""


@dataclass(frozen=True)
class FoundLora:
    """A LoRA's file, and all that is known of its use."""

    reference: str
    """As it was given."""
    file: Path
    name: str
    """What a webui would call it."""
    digest: str
    """See `lora_file.webui_hash`."""
    family: str
    strength: float
    """The one to use it at."""
    strength_source: str
    """Who says so; empty where nobody does."""
    experiment_file: Path | None
    """The settings that it was trained with, if they lie beside it."""
    layers: tuple[Layer, ...]
    """What its file and its registry say: settings for who gives none."""


@contextmanager
def found_lora(reference: str, tracking_uri: str | None, variables: Mapping[str, str]) -> Iterator[FoundLora]:
    """The LoRA while the block lasts; one from a registry is brought into a temporary folder.

    Args:
        reference: a file, a folder or `models:/…`.
        tracking_uri: of the registry; `MLFLOW_TRACKING_URI` among the environment's `variables` by default.

    Raises:
        UserError: there is no such LoRA, or it can't be read.
    """
    if not reference.startswith(REGISTRY):
        if tracking_uri is not None:
            raise ConfigError(f"--tracking-uri: is for a LoRA of a registry (models:/…), and {reference} is a path; "
                              "leave it out")  # fmt: skip
        yield _on_disk(reference, Path(reference))
        return
    uri = tracking_uri or variables.get(URI_VARIABLE)
    if not uri:
        raise TrackingError(f"{reference}: no registry: give --tracking-uri, such as sqlite:///OUT/mlflow.db of the "
                            f"search that registered it, or set {URI_VARIABLE}")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="raylora-") as folder:
        yield _registered(reference, uri, Path(folder))


def _on_disk(reference: str, path: Path) -> FoundLora:
    check_place(path)
    file = resolved(lora_file_in(path))
    beside = file.parent / EXPERIMENT_NAME
    family, layers = _told_by_file(file, reference)
    is_best = file.name in (KOHYA_NAME, DIFFUSERS_NAME) and file.parent.name == OutFolder(file.parent.parent).best.name
    name = FOREIGN.sub("_", file.parent.parent.name) if is_best else UNSAFE.sub("_", file.stem)
    strength, source = _measured_strength(OutFolder(file.parent.parent).summary) if is_best else (1.0, "")
    return FoundLora(
        reference, file, _name(name), webui_hash(file), family, strength, source,
        beside if is_file(beside) else None, layers,
    )  # fmt: skip


def _registered(reference: str, uri: str, folder: Path) -> FoundLora:
    from raylora.tracking.registered import fetch  # MLflow takes seconds, and files need none

    found = fetch(reference, uri, folder)
    family, layers = _told_by_file(found.file, reference)
    told = Layer(reference, nest({"model.base_model": found.base_model, **found.settings}))
    source = "" if found.strength is None else f"by version {found.version}'s tags"
    strength = 1.0 if found.strength is None else found.strength
    name = _name(UNSAFE.sub("_", found.name))
    return FoundLora(
        reference, found.file, name, webui_hash(found.file), family, strength, source, None, (*layers, told)
    )  # fmt: skip


def _told_by_file(file: Path, reference: str) -> tuple[str, tuple[Layer, ...]]:
    """The family that a LoRA is for, and what its metadata say of its use."""
    tensors, metadata = read_tensors(file)
    family = family_of(file, tensors, metadata)
    settings: dict[str, Any] = {"model.family": family}
    if size := _size(metadata) or USUAL_SIZE.get(family):
        settings["dataset.resolution"] = size
    if trigger := metadata.get("modelspec.trigger_phrase", "").strip():
        settings["dataset.trigger"] = trigger
    if family == "sd15" and re.fullmatch(r"[1-9]\d?", layer := metadata.get("ss_clip_skip", "")):
        settings["model.clip_skip"] = int(layer)  # SDXL's is always its own, whatever kohya's scripts note down
    return family, (Layer(f"the metadata of {reference}", nest(settings)),)


def _size(metadata: Mapping[str, str]) -> list[int] | None:
    """Width and height in px that it was trained at, if it says so."""
    told = SIZE.fullmatch(metadata.get("modelspec.resolution", ""))
    sides = [int(side) for side in told.groups()] if told else [1]
    return None if any(side % SIZE_STEP_PX for side in sides) else sides


def _measured_strength(summary: Path) -> tuple[float, str]:
    """What a search found best for its winner; 1 where none did, or the summary can't be read."""
    try:
        strength = float(read_mapping(summary)["best"]["strength"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1.0, ""
    return (strength, f"measured by the search, {summary}") if math.isfinite(strength) else (1.0, "")


def _name(name: str) -> str:
    return name.strip("_") or "lora"
