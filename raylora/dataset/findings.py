"""What a look at a data set has found: what, how bad, what it does to a LoRA, and the mend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raylora.dataset.folder import Picture
from raylora.redaction import one_line

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""The worst first."""
MOST_NAMED = 3
"""Files in a line; a program gets all."""
MOST_TOLD = 4
"""Findings beside something else that is told; `raylora check` has all of them."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set, or worth knowing."""

    level: Level
    check: str
    """What was looked at, such as `sharpness`; docs/dataset-check.md has a section on each."""
    found: str
    effect: str
    """What it does to a LoRA."""
    mend: str
    files: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    """Which of them are alike, or each with the other set's image that it is like."""

    @property
    def line(self) -> str:
        """In one line, as a plan has it."""
        such = f", such as {self.files[0]}" if self.files else ""
        return f"{self.found}{such}: {self.effect}; {self.mend}"

    @property
    def short(self) -> str:
        """The same without what it does to a LoRA."""
        such = f", such as {self.files[0]}" if self.files else ""
        return f"{self.found}{such}; {self.mend}"

    @property
    def named(self) -> str:
        """A few of the files, or of the groups of those that are alike, and how many more there are."""
        if self.groups:
            return _a_few([_equal(group) for group in self.groups])
        return _a_few(self.files)

    def as_dict(self) -> dict[str, Any]:
        """For programs, with all files."""
        return {
            "level": self.level,
            "check": self.check,
            "found": self.found,
            "effect": self.effect,
            "mend": self.mend,
            "count": len(self.files),
            "files": list(self.files),
            "groups": [list(group) for group in self.groups],
        }


def _equal(group: Sequence[str]) -> str:
    return " = ".join([*group[:MOST_NAMED], *["…"] * (len(group) > MOST_NAMED)])


def _a_few(named: Sequence[str]) -> str:
    more = len(named) - MOST_NAMED
    return ", ".join(named[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def by_level(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, else in the order in which they were found."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def counted(findings: Sequence[Finding]) -> str:
    """`1 error, 2 warnings`, or that there is none of anything."""
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    return (
        ", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts.items() if count) or "all is well"
    )


def names(pictures: Iterable[Picture], root: Path) -> tuple[str, ...]:
    """What may be shown of the names that pictures have below their data set's folder."""
    return tuple(name_below(picture.path, root) for picture in pictures)


def name_below(path: Path, root: Path) -> str:
    """The same of one file's name."""
    return one_line(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name)
