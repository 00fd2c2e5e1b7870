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
from raylora.diffusion.lora_file import webui_hash
from raylora.diffusion.lora_reading import family_of, read_tensors
from raylora.diffusion.places import DIFFUSERS_NAME, KOHYA_NAME, check_lora_place, lora_file_in
from raylora.diffusion.webui import tag_name
from raylora.errors import ConfigError, TrackingError
from raylora.execution.how_to import lora_name
from raylora.execution.outputs import EXPERIMENT_NAME, OutFolder
from raylora.execution.recipes import LEAST_SIDE_PX, MOST_SIDE_PX
from raylora.files import expanded, is_file, read_mapping, resolved
from raylora.redaction import is_text
from raylora.tracking.names import REGISTRY, URI_VARIABLE
from raylora.training.epoch_files import EPOCHS_FOLDER

USUAL_SIZE = {"sdxl": [1024, 1024]}
"""Width and height in px where a family was trained on others than `dataset.resolution`'s own default."""
SIZE = re.compile(r"(\d{2,4})x(\d{2,4})")


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


@dataclass(frozen=True)
class Home:
    """What raylora has left around one of its files."""

    name: str
    """For the file among others."""
    experiment_file: Path
    summary: Path | None = None
    """Of the search whose answer it is."""


def _on_disk(reference: str, path: Path) -> FoundLora:
    path = expanded(path)
    check_lora_place(path)
    place, file = _place(path), resolved(lora_file_in(path))
    family, layers = _told_by_file(file, reference)
    home = _home(place)
    strength, source = _measured_strength(home or _home(file))
    return FoundLora(
        reference, file, home.name if home else tag_name(place.stem), webui_hash(file), family, strength, source,
        experiment_beside(path), layers,
    )  # fmt: skip


def _place(path: Path) -> Path:
    """Where the LoRA of a path lies, under the name that it has there: the link's, as in the hub's cache."""
    given = lora_file_in(path)
    return resolved(given.parent) / given.name


def experiment_beside(path: Path) -> Path | None:
    """The settings of a LoRA of raylora's own: beside it, in its output folder, or around what a link leads to.

    Args:
        path: the file, or a folder that holds it.
    """
    place = _place(path)
    homes = [home for home in (_home(place), _home(resolved(place))) if home]
    candidates = [place.parent / EXPERIMENT_NAME, *(home.experiment_file for home in homes)]
    return next((settings for settings in candidates if is_file(settings)), None)


def _home(file: Path) -> Home | None:
    """What there is around a file of raylora's own; None of any other."""
    folder = file.parent
    if folder.name == EPOCHS_FOLDER:
        return _home_of_epochs(file)
    out = OutFolder(folder.parent)
    if file.name not in (KOHYA_NAME, DIFFUSERS_NAME) or folder.name != out.best.name:
        return None
    return Home(lora_name(out.root.name), folder / EXPERIMENT_NAME, out.summary)


def _home_of_epochs(file: Path) -> Home | None:
    """The same of a file after so many epochs, in `OUT/epochs`, `OUT/trials/t003/epochs` or one fold further down.

    A trial's own settings differ from its search's in what was searched, which pictures don't depend on.
    """
    parents = file.parent.parents
    is_search = is_file(OutFolder(parents[0]).state_file)  # and no trial, whatever it lies in
    above = [] if is_search else parents[1:3]
    trials = next((parent for parent in above if parent.name == OutFolder(parent).trials.name), None)
    out = OutFolder(trials.parent if trials else parents[0])
    candidates = [out.experiment] if trials else [out.best / EXPERIMENT_NAME, out.experiment]
    found = next((settings for settings in candidates if is_file(settings)), None)
    below = file.parent.relative_to(trials or out.root).parts[:-1]
    return Home(lora_name("_".join([out.root.name, *below, file.stem])), found) if found else None


def _registered(reference: str, uri: str, folder: Path) -> FoundLora:
    from raylora.tracking.registered import fetch  # MLflow takes seconds, and files need none

    found = fetch(reference, uri, folder)
    family, layers = _told_by_file(found.file, reference)
    told = Layer(reference, nest({"model.base_model": found.base_model, **found.settings}))
    source = "" if found.strength is None else f"by version {found.version}'s tags"
    strength = 1.0 if found.strength is None else found.strength
    digest, known = webui_hash(found.file), (*layers, told)
    return FoundLora(reference, found.file, tag_name(found.name), digest, family, strength, source, None, known)


def _told_by_file(file: Path, reference: str) -> tuple[str, tuple[Layer, ...]]:
    """The family that a LoRA is for, and what its metadata say of its use."""
    tensors, metadata = read_tensors(file)
    family = family_of(file, tensors, metadata)
    settings: dict[str, Any] = {"model.family": family}
    if size := _size(metadata) or USUAL_SIZE.get(family):
        settings["dataset.resolution"] = size
    if (trigger := metadata.get("modelspec.trigger_phrase", "").strip()) and is_text(trigger):
        settings["dataset.trigger"] = trigger
    if family == "sd15" and re.fullmatch(r"[1-9]\d?", layer := metadata.get("ss_clip_skip", "")):
        settings["model.clip_skip"] = int(layer)  # SDXL's is always its own, whatever kohya's scripts note down
    return family, (Layer(f"the metadata of {reference}", nest(settings)),)


def _size(metadata: Mapping[str, str]) -> list[int] | None:
    """Width and height in px that it was trained at, if it says so and such can be."""
    told = SIZE.fullmatch(metadata.get("modelspec.resolution", ""))
    sides = [int(side) for side in told.groups()] if told else []
    can_be = all(side % SIZE_STEP_PX == 0 and LEAST_SIDE_PX <= side <= MOST_SIDE_PX for side in sides)
    return sides if sides and can_be else None


def _measured_strength(home: Home | None) -> tuple[float, str]:
    """What a search found best for its winner; 1 where none did, or the summary can't be read."""
    if home is None or home.summary is None:
        return 1.0, ""
    try:
        strength = float(read_mapping(home.summary)["best"]["strength"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1.0, ""
    return (strength, f"measured by the search, {home.summary}") if math.isfinite(strength) else (1.0, "")
