"""What was asked for: settings in layers, later ones winning, and what they leave to search."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.bundled import DEMO_NAME, search_spaces
from raylora.config import DatasetConfig, Experiment, nest
from raylora.config_files import Layer, build_experiment, check_complete, parse_assignments, read_yaml
from raylora.errors import ConfigError, OutputError
from raylora.files import resolved
from raylora.redaction import is_text

if TYPE_CHECKING:
    from raylora.search.space import SearchSpace

OPTIONS = {
    "dataset.path": "--dataset",
    "dataset.skip_bad_images": "--skip-bad-images",
    "model.base_model": "--base-model",
    "search.trials": "--trials",
    "search.gpus_per_trial": "--gpus-per-trial",
    "sampling.negative_prompt": "--negative-prompt",
    "sampling.steps": "--steps",
    "sampling.guidance_scale": "--guidance-scale",
    "tracking.uri": "--tracking-uri",
    "tracking.register_name": "--register",
}
"""The options that are short for a setting."""
SCHEME = re.compile(r"[A-Za-z][\w+.-]+:/")
"""Begins a URI; a path has lost one of two slashes. A single letter is a drive of Windows'."""
FRACTION = "dataset.holdout_fraction"
RATE, PART_RATES = "optimizer.learning_rate", ("optimizer.unet_lr", "optimizer.text_encoder_lr")
TRAINS_TEXT = "model.train_text_encoder"


@dataclass(frozen=True)
class Request:
    """Where settings come from beside a search space."""

    file: Path | None
    options: Mapping[str, Any]
    """By the paths of `OPTIONS`; None where nothing was said."""
    assignments: Sequence[str]
    """As `--set` has them."""

    @cached_property
    def by_hand(self) -> list[Layer]:
        """The layers that set single settings on purpose: the file and `--set`."""
        assigned = parse_assignments(self.assignments)  # first: of `--set lora.rank 8` the 8 is taken for the file
        file = [Layer(str(self.file), read_yaml(self.file))] if self.file else []
        return [*file, assigned]

    def layers(self) -> list[Layer]:
        """All layers, later ones winning: the file's, the options', `--set`."""
        *file, assigned = self.by_hand
        options = [
            Layer(OPTIONS[path], nest({path: value})) for path, value in self.options.items() if value is not None
        ]
        return [*file, *options, assigned]


def out_place(path: Path, mend: str = "give another folder with --out") -> Path:
    """An output folder's place, from wherever it is named: Ray's workers run in other folders.

    Args:
        mend: what to do where it can't be one.

    Raises:
        OutputError: it names none on this machine's file systems, or not in characters that all programs can read.
    """
    text = str(path)
    if SCHEME.match(text):
        raise OutputError(f"{text}: is no folder of a file system; give one, which several machines may share")
    if not is_text(text):
        raise OutputError(f"{text}: has control characters or is no UTF-8; {mend}")
    with suppress(RuntimeError):
        return resolved(path.expanduser())
    raise OutputError(f"{text}: there is no such user; {mend}")


def default_space(request: Request) -> str:
    """The bundled space for who names none: the demo's for the demo's model, else the general one for SD1.5.

    Raises:
        ConfigError: the family has several and none is general.
    """
    flat = {path: value for layer in request.layers() for path, value in layer.flat.items()}
    if flat.get("model.base_model") == DEMO_NAME:
        return DEMO_NAME
    family = flat.get("model.family", "sd15")
    if family != "sd15":
        spaces = " or ".join(f"--space {name}" for name in search_spaces() if name.startswith(f"{family}-"))
        raise ConfigError(f"model.family {family}: say what is to be searched; give {spaces or '--space FILE.yaml'}")
    return "realistic"


@dataclass(frozen=True)
class Wanted:
    """What a command is to do."""

    experiment: Experiment
    space: SearchSpace | None
    warnings: list[str]


def read_request(request: Request, space: SearchSpace | None = None) -> Experiment:
    """The settings that hold for all trials; the space's own are the lowest layer."""
    return build_experiment([*_own_layer(space), *request.layers()])


def search_wanted(request: Request, space: SearchSpace) -> Wanted:
    """A search of whatever was not set by hand.

    Raises:
        ConfigError: a setting is wrong, or nothing is left to search.
    """
    from raylora.search.pinning import pin

    experiment = read_request(request, space)
    check_complete(experiment)
    space = pin(space, _pins(request), experiment)
    unheard = _unheard_rate(request, experiment, space.searched(experiment)) + _unheard_fraction(request, experiment)
    return Wanted(experiment, space, unheard)


def training_wanted(request: Request, space: SearchSpace | None) -> Wanted:
    """One configuration: with a space, its first point, whose ratios hold for what was set by hand too."""
    experiment = read_request(request, space)
    check_complete(experiment)
    if space is not None:
        from raylora.search.pinning import first_point

        point = Layer(f"search space {space.name}, first point", nest(first_point(space, _pins(request), experiment)))
        experiment = build_experiment([*_own_layer(space), point, *request.layers()])
    return Wanted(experiment, None, _unheard_rate(request, experiment, []))


def _own_layer(space: SearchSpace | None) -> list[Layer]:
    return [Layer(f"search space {space.name}", space.experiment)] if space else []


def _pins(request: Request) -> dict[str, str]:
    """What was set by hand, and where."""
    return {path: layer.source for layer in request.by_hand for path in layer.flat}


def _unheard_rate(request: Request, experiment: Experiment, searched: Sequence[str]) -> list[str]:
    """A general rate that was set by hand, where every part has a rate of its own from somewhere else.

    A layer that sets both is left in peace: the settings of a winner name every rate.
    """
    speaking = [layer for layer in request.by_hand if RATE in layer.flat]
    if not speaking or PART_RATES[0] in speaking[-1].flat:
        return []
    trains_text = experiment.model.train_text_encoder or TRAINS_TEXT in searched
    parts = PART_RATES if trains_text else PART_RATES[:1]
    set_rates = {path: getattr(experiment.optimizer, path.rpartition(".")[2]) is not None for path in parts}
    if not all(path in searched or is_set for path, is_set in set_rates.items()):
        return []
    names, verb = " and ".join(parts), "is" if len(parts) == 1 else "are"
    return [
        f"{speaking[-1].source}: {RATE} has no effect, since {names} {verb} "
        f"{'searched' if set(parts) & set(searched) else 'set'}; set {names} instead"
    ]


def _unheard_fraction(request: Request, experiment: Experiment) -> list[str]:
    """A share of images to hold out that was set by hand, where folds hold out all by turns.

    Its default is left in peace: the settings of a winner name it.
    """
    folds, default = experiment.dataset.folds, DatasetConfig().holdout_fraction
    speaking = [layer.source for layer in request.by_hand if layer.flat.get(FRACTION, default) != default]
    if folds == 1 or not speaking:
        return []
    return [f"{speaking[-1]}: {FRACTION} has no effect, since each of dataset.folds {folds} holds out 1/{folds}"]
