"""What a check has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from raylora.redaction import redacted

Level = Literal["good", "warning", "bad", "not checked"]
LEVELS: tuple[Level, ...] = ("bad", "warning", "not checked", "good")
"""The worst first."""
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """How something stands, and the mend where it isn't good."""

    level: Level
    found: str
    mend: str | None = None


@dataclass(frozen=True)
class Row:
    """A finding, of what and where."""

    check: str
    level: Level
    found: str
    mend: str | None = None
    node: str | None = None
    """None of what is no node's."""

    def as_dict(self) -> dict[str, Any]:
        """In the order in which people read."""
        return {name: getattr(self, name) for name in ("check", "node", "level", "found", "mend")}


def row(check: str, finding: Finding, node: str | None = None) -> Row:
    """A finding as a row, without passwords and tokens: it goes into reports of faults, also as JSON."""
    return Row(check, finding.level, redacted(finding.found), finding.mend and redacted(finding.mend), node)


def good(found: str) -> Finding:
    return Finding("good", found)


def warning(found: str, mend: str) -> Finding:
    return Finding("warning", found, mend)


def bad(found: str, mend: str) -> Finding:
    return Finding("bad", found, mend)


def unchecked(reason: str, mend: str | None = None) -> Finding:
    return Finding("not checked", reason, mend)


def failed(fault: str, mend: str) -> Finding:
    """What went wrong, with the mend that its message has after a semicolon, as raylora's own have, or else this."""
    found, _, own = fault.partition("; ")
    return bad(found, own or mend)


def gib(amount: float) -> str:
    """Bytes in words."""
    return f"{amount / GIB:.1f} GiB"


def exit_status(rows: list[Row]) -> int:
    """1 if anything is bad, else 0: warnings are told and stop nothing."""
    return int(any(one.level == "bad" for one in rows))


def counted(rows: list[Row]) -> str:
    """`1 bad, 2 warnings, 1 not checked, 9 good`."""
    counts: Mapping[str, int] = {level: sum(one.level == level for one in rows) for level in LEVELS}
    plural = {level: "warnings" if level == "warning" and counts[level] != 1 else level for level in LEVELS}
    return ", ".join(f"{counts[level]} {plural[level]}" for level in LEVELS if counts[level])
