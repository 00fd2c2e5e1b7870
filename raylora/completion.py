"""What a shell proposes as somebody types: names that raylora knows, settings with their values, beside files.

Everything here is asked at each press of Tab, so nothing heavy is imported and nothing is read but one folder's names.
An answer of nothing leaves the word to the shell, which completes files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raylora.bundled import DEMO_NAME, search_spaces
from raylora.config import Experiment
from raylora.files import is_folder
from raylora.redaction import is_text

Complete = Callable[[str], list[str]]
KNOWN_MODELS = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0")
"""Hub ids as the README names them."""
UNSAFE = re.compile(r"[^\w@%+:,./-]")
"""A character that bash may take for something else than a part of a word."""


def one_of(*names: str) -> Complete:
    """Completes by one of a few words."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def or_files(*names: str) -> Complete:
    """Completes by one of a few words, or by what lies in this folder."""

    def complete(incomplete: str) -> list[str]:
        known = [name for name in names if name.startswith(incomplete)]
        return [*known, *_beside(incomplete)] if known else []

    return complete


def _beside(incomplete: str) -> list[str]:
    """The names in this folder that begin so, folders with a slash; hidden ones only where a dot was typed."""
    names = sorted(f"{path.name}/" if is_folder(path) else path.name for path in Path().iterdir())
    fitting = [name for name in names if name.startswith(incomplete) and (incomplete or not name.startswith("."))]
    return [_as_typed(name) for name in fitting if is_text(name)]


def _as_typed(name: str) -> str:
    """A file's name as the shell is to read it: bash puts words into the line as they are, zsh and fish quote them."""
    return UNSAFE.sub(r"\\\g<0>", name) if os.environ.get("_RAYLORA_COMPLETE") == "complete_bash" else name


datasets = or_files(DEMO_NAME)
base_models = or_files(DEMO_NAME, *KNOWN_MODELS)
addresses = one_of("auto", "local", "ray://")


def spaces(incomplete: str) -> list[str]:
    """Completes `--space`: a bundled one, or a file."""
    return or_files(*search_spaces())(incomplete)


def settings(incomplete: str) -> list[tuple[str, str]]:
    """Completes `--set section.field=value`, with what each is.

    Once one setting alone is meant, its values come along: its choices, or its default. So there are always two words
    that begin alike, and the shell puts no blank behind the `=`.
    """
    path, is_assigned, _ = incomplete.partition("=")
    fields = dict(_fields(Experiment))
    meant = [name for name in fields if (name == path if is_assigned else name.startswith(path))]
    if len(meant) == 1:
        return [(word, _told(fields[meant[0]])) for word in _assignments(meant[0], fields[meant[0]])]
    return [(f"{name}=", _told(fields[name])) for name in meant]


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _assignments(path: str, field: FieldInfo) -> list[str]:
    values = [*_choices(field.annotation), *(["null"] if NoneType in get_args(field.annotation) else [])]
    return [f"{path}=", *(f"{path}={value}" for value in values or _default(field))]


def _choices(annotation: Any) -> Sequence[str]:
    """All values of a setting that has few; empty of others."""
    if annotation is bool:
        return ("true", "false")
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    return [value for part in get_args(annotation) if get_origin(part) is Literal or part is bool
            for value in _choices(part)]  # fmt: skip


def _default(field: FieldInfo) -> list[str]:
    """The default as `--set` takes it; lists and sizes are left to whoever types."""
    default = field.get_default(call_default_factory=True)
    return [f"{default:g}" if isinstance(default, float) else str(default)] if not isinstance(default, tuple) else []


def _told(field: FieldInfo) -> str:
    """A description in which no bracket is taken for markup."""
    return (field.description or "").replace("[", r"\[")
