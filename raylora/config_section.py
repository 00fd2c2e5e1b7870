"""What every part of the configuration has in common."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from raylora.redaction import is_text

DESCRIPTION = "description"
"""What a search space is for, in any number of lines."""
LONGEST_NAME = 100
"""Characters of what may be a slip of the pen."""


class Section(BaseModel):
    """A part of the configuration: it can't be changed, and it knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic reads true as 1."""
        if isinstance(value, bool):
            kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
            if kinds & {int, float} and bool not in kinds:
                raise ValueError(f"must be a {'number' if float in kinds else 'whole number'}")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _one_line_of_text(cls, value: Any, info: ValidationInfo) -> Any:
        """No name or path needs more, and messages, logs and file systems can't do with it."""
        lines = str(value).split() if info.field_name == DESCRIPTION else [value]
        if isinstance(value, str) and not all(is_text(line) for line in lines):
            raise ValueError("must be a line of text in UTF-8, without control characters")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """All types that an annotation mentions."""
    return {annotation}.union(*(_kinds(part) for part in get_args(annotation) if not isinstance(part, str)))


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean X?` or nothing. Paths are compared whole, then by their last part."""
    if len(word) > LONGEST_NAME:
        return ""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not close:
        last = word.rpartition(".")[2]
        tails = {path.rpartition(".")[2]: path for path in reversed(known)}
        close = [tails[tail] for tail in difflib.get_close_matches(last, list(tails), n=1, cutoff=0.6)]
    return f"; did you mean {close[0]}?" if close else ""
