"""Numbers and settings as people read them: few digits, with units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raylora.config import shown

NOTHING = "–"
MEASURES = {
    "score": "score",
    "holdout_loss_ratio": "held-out loss, × base model’s",
    "holdout_loss": "held-out loss",
    "similarity_gain": "similarity gain",
    "sample_similarity": "similarity of samples",
    "prompt_alignment": "alignment with prompts",
    "diversity": "diversity of samples",
    "copying": "copying",
    "lora_mb": "LoRA file, MB",
    "train_s": "training time, s",
    "peak_memory_gib": "most memory, GiB",
}
"""What reports call measures and costs, and what they are called here."""
DIGITS = {"holdout_loss_ratio": 4, "holdout_loss": 4, "train_loss": 4, "lora_mb": 1, "train_s": 0, "peak_memory_gib": 1}
USUAL_DIGITS = 3
SHORT_S, LONG_H = 120, 48
"""Below so many seconds, and from so many hours on, minutes say too little or too much."""


def measure(name: str, value: float | None) -> str:
    """A measure with as many digits as it has anything to say with; without its unit, which its name has."""
    if value is None or not math.isfinite(value):
        return NOTHING
    digits = USUAL_DIGITS if name == "lora_mb" and value < 1 else DIGITS.get(name, USUAL_DIGITS)
    return typeset(f"{value:,.{digits}f}")


def typeset(number: str) -> str:
    """With a minus as wide as a plus, which stands in columns."""
    return number.replace("-", "−")


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
