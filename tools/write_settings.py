"""Writes docs/settings.md, a row for each setting, from the configuration itself: `python -m tools.write_settings`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raylora.config import Experiment, Size

FILE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
HEAD = """# Settings

Every setting by its dotted path, as it stands in experiment files (`lora: {rank: 8}` or `lora.rank: 8`), in
`--set lora.rank=8` and in search spaces. `null` unsets one. Written by `python -m tools.write_settings` from
`raylora/config.py`; a test holds it up to date.
"""
KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def reference() -> str:
    """The whole file."""
    return "\n".join([HEAD, *_section(Experiment, "", "General")]) + "\n"


def _section(section: type[BaseModel], prefix: str, title: str) -> Iterator[str]:
    """The section's own settings as a table, then its sections."""
    below = {name: field.annotation for name, field in section.model_fields.items() if _is_section(field)}
    yield f"## {title}\n"
    yield "| setting | value | default | what it is |\n|---|---|---|---|"
    for name, field in section.model_fields.items():
        if name not in below:
            kind, default = _kind(field), _default(field)
            yield f"| `{prefix}{name}` | {kind} | {default} | {_cell(field.description or '')} |"
    yield ""
    for name, inner in below.items():
        assert isinstance(inner, type)
        yield from _section(inner, f"{prefix}{name}.", f"{prefix}{name}")


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _kind(field: FieldInfo) -> str:
    if field.annotation == get_args(Size)[0]:
        return "width and height"
    return _type(field.annotation) + _bounds(field)


def _type(annotation: Any) -> str:
    """The type in words."""
    parts = [part for part in get_args(annotation) if part is not NoneType and part is not Ellipsis]
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join([", ".join(map(str, parts[:-1])), str(parts[-1])])
    if origin in (Union, UnionType):
        return " or ".join(map(_type, parts))
    if origin is tuple:
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return "names and values"
    return _type(parts[0]) if parts else KINDS[annotation]


def _bounds(field: FieldInfo) -> str:
    """`, 1 to 1024`, as far as there are any."""
    limits: Mapping[str, Any] = {
        name: getattr(rule, name) for rule in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(rule, name)
    }
    if "ge" in limits and "le" in limits:
        return f", {limits['ge']} to {limits['le']}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return "".join(f", {words[name]} {limits[name]}" for name in words if name in limits)


def _default(field: FieldInfo) -> str:
    if field.annotation == get_args(Size)[0]:
        return "x".join(map(str, field.default))
    return _cell(_value(field.default))


def _value(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
