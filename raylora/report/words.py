"""Numbers and settings as people read them: few digits, with units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raylora.config import shown
from raylora.evaluation.words import MEASURES as MEASURES
from raylora.evaluation.words import NOTHING as NOTHING
from raylora.evaluation.words import measure as measure
from raylora.evaluation.words import typeset as typeset

SHORT_S, LONG_H = 120, 48
"""Below so many seconds, and from so many hours on, minutes say too little or too much."""


def duration(seconds: float | None) -> str:
    """`42 s`, `12 min`, `3 h 05 min`, `2 d 04 h`."""
    if seconds is None:
        return NOTHING
    if round(seconds) < SHORT_S:
        return f"{seconds:.0f} s"
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if hours < LONG_H else f"{hours // 24} d {hours % 24:02} h"


def setting_name(path: str) -> str:
    """`lr_scheduler` for `lr_scheduler.name`, `alpha / rank` for `lora.alpha / lora.rank`."""
    return " / ".join(part.removesuffix(".name").rpartition(".")[2] for part in path.split(" / "))


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each setting's last part, or all of its path where two would be called the same."""
    short = {path: setting_name(path) for path in paths}
    return {path: name if list(short.values()).count(name) == 1 else path for path, name in short.items()}


def setting_value(value: Any) -> str:
    """A setting's value, or a dash where a trial had no such setting."""
    return NOTHING if value is MISSING else shown(value)


class _Missing:
    """Told from null, which is a value."""


MISSING = _Missing()


def numbered(count: int, what: str) -> str:
    """`1 trial`, `12 trials`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def lost_workers(causes: Mapping[str, int], trials: Sequence[str]) -> str:
    """One line on what a search lost and did not lose: `2 with a node, 1 by itself (t002, t005); …`."""
    how = {"node": "with a node", "memory": "as memory ran out", "worker": "by itself"}
    told = ", ".join(f"{causes[cause]} {words}" for cause, words in how.items() if cause in causes)
    return f"{told} ({', '.join(trials)}); their trials went on from their last states"


def tells_verdict(best: Mapping[str, Any]) -> bool:
    """Whether a summary's winner has a verdict worth a line: where nothing was measured it is unknown."""
    return "verdict" in best and (best["verdict"] != "unknown" or best["score"] is not None)
