"""What a command line names of this machine's files, and these in one package for a cluster; without Ray.

Relative paths are of the working directory here, and travel; absolute ones, and those on object storage, are the
cluster's. A package has the files at the places where they are here, so that the command line holds there as it stands.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylora.bundled import DEMO_NAME, search_spaces
from raylora.config import flatten
from raylora.config_files import parse_assignments, read_yaml
from raylora.errors import ConfigError
from raylora.own_code import OWN_NAME

MOST_BYTES = 100 * 2**20
"""Ray's dashboard takes no larger upload (`DASHBOARD_CLIENT_MAX_SIZE`, ray/_private/ray_constants.py)."""
SAME_TIME = (1980, 1, 1, 0, 0, 0)
"""The same files make the same package, which Ray then uploads once."""
MARK = ".raylora-package"
"""Lies in every package, so that a folder made of one is known."""
SETTINGS = ("dataset.path", "dataset.regularization", "model.base_model", "evaluation.encoder", "optimizer.name")
"""Settings that may name a file, a folder or own code."""
OPTIONS = {
    "experiment_file": "EXPERIMENT.yaml",
    "dataset": "--dataset",
    "train_dataset": "--train-dataset",
    "base_model": "--base-model",
    "space": "--space",
    "split": "--split",
    "lora": "LORA",
}
"""Parameters of commands that may name a file, a folder or own code."""
ALWAYS_PATHS = (
    "EXPERIMENT.yaml",
    "--dataset",
    "--train-dataset",
    "--split",
    "LORA",
    "dataset.path",
    "dataset.regularization",
)
"""Of these whatever is not there is missing; others may name what is on the hub or installed."""


@dataclass(frozen=True)
class Named:
    """Something that a command line names, and by what: an option, or a setting in a file."""

    by: str
    value: str

    @property
    def is_own_code(self) -> bool:
        return bool(OWN_NAME.fullmatch(self.value))

    @property
    def is_of_the_cluster(self) -> bool:
        """Absolute there, on object storage, or bundled with raylora."""
        is_bundled = self.value == DEMO_NAME or (self.by == "--space" and self.value in search_spaces())
        return is_bundled or "://" in self.value or self.value.startswith(("/", "~"))


def named_by(params: Mapping[str, Any], working_dir: Path) -> list[Named]:
    """All that a command line names, also by the files that it names, which must be in the working directory.

    Args:
        params: of the command, as it parsed them.

    Raises:
        ConfigError: an experiment file or a space that lies here can't be read.
    """
    named = [Named(option, str(params[name])) for name, option in OPTIONS.items() if params.get(name) is not None]
    layers = {"--set": parse_assignments(params.get("settings") or ()).flat}
    for one in named:
        if one.by in ("EXPERIMENT.yaml", "--space") and not one.is_of_the_cluster and not one.is_own_code:
            content = read_yaml(working_dir / one.value)
            layers[one.value] = flatten(content.get("experiment") or {} if one.by == "--space" else content)
            if one.by == "--space" and content.get("function"):
                named.append(Named(f"{one.value}: function", str(content["function"])))
    named += [
        Named(path if source == "--set" else f"{source}: {path}", str(values[path]))
        for source, values in layers.items() for path in SETTINGS if isinstance(values.get(path), str)
    ]  # fmt: skip
    return list(dict.fromkeys(named))


def files_of(named: Sequence[Named], working_dir: Path) -> list[Path]:
    """The files here that the cluster needs, relative to the working directory.

    Raises:
        ConfigError: something isn't there, or lies outside.
    """
    found: dict[Path, None] = {}
    for one in named:
        if not one.is_of_the_cluster:
            found |= dict.fromkeys(_code_of(one, working_dir) if one.is_own_code else _files_at(one, working_dir))
    return sorted(found)


def _files_at(named: Named, working_dir: Path) -> list[Path]:
    """A file, or all of a folder."""
    path = working_dir / named.value
    if not path.exists():
        if named.by.rpartition(": ")[2] in ALWAYS_PATHS or named.value.endswith((".yaml", ".safetensors")):
            raise ConfigError(
                f"{named.by} {named.value}: is not in {working_dir}; name what lies here relative to --working-dir, "
                "and what lies on the cluster's shared storage by its absolute path"
            )
        return []  # on the hub, or a name that raylora knows
    if not path.resolve().is_relative_to(working_dir.resolve()):
        raise ConfigError(
            f"{named.by} {named.value}: lies outside {working_dir}; give a --working-dir above it, or put it on "
            "storage that the cluster shares, and name it by its absolute path"
        )
    return [file.relative_to(working_dir) for file in ([path] if path.is_file() else _below(path))]


def _below(folder: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones and compiled Python."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        if path.is_dir():
            yield from _below(path)
        else:
            yield path


def _code_of(named: Named, working_dir: Path) -> list[Path]:
    """The package of a user's code; of a single module all modules beside it too, which it may import.

    What isn't here is taken to be installed on the cluster.
    """
    top = named.value.partition(":")[0].partition(".")[0]
    if (working_dir / top).is_dir():
        return [file.relative_to(working_dir) for file in _below(working_dir / top)]
    if (working_dir / f"{top}.py").is_file():
        return [file.relative_to(working_dir) for file in sorted(working_dir.glob("*.py"))]
    return []


def pack(files: Sequence[Path], working_dir: Path, target: Path) -> None:
    """Write the files into a zip, the same ones always byte by byte the same.

    Raises:
        ConfigError: they are too large to be sent.
    """
    sizes = {file: (working_dir / file).stat().st_size for file in files}
    if sum(sizes.values()) > MOST_BYTES:
        large = max(sizes, key=lambda file: sizes[file])
        raise ConfigError(
            f"{len(files)} files of {working_dir} would have to be sent, {sum(sizes.values()) / 2**20:.0f} MiB, the "
            f"largest {large}; Ray takes {MOST_BYTES / 2**20:.0f} MiB: put pictures and models on storage that the "
            "cluster shares, and name them by their absolute paths"
        )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr(zipfile.ZipInfo(MARK, SAME_TIME), "")
        for file in files:
            package.writestr(_entry(file), (working_dir / file).read_bytes(), zipfile.ZIP_DEFLATED)


def _entry(file: Path) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(file.as_posix(), SAME_TIME)
    entry.external_attr = 0o644 << 16  # Unix permissions
    return entry
