"""Trials as `trials.csv` has them, where their own folder is gone: their measures, and no curves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from raylora.config import field_paths
from raylora.files import MOST_JSON_BYTES, read_ordinary
from raylora.tracking.recorder import Status, TrialRecord

UNKNOWN = {"verdict": "unknown", "evidence": "", "cure": ""}
LIMIT = "limit: "
"""Begins the reason of a trial that broke one: `limit: train_s 912 > 600, lora_mb 9 > 5`."""


@dataclass(frozen=True)
class Table:
    """What the rows say."""

    trials: list[TrialRecord]
    verdicts: dict[str, Mapping[str, str]]


def read_table(path: Path) -> Table:
    """The rows of `trials.csv`.

    Raises:
        OSError: it can't be read.
        KeyError, ValueError: a row lacks something, or holds what can't be there.
    """
    rows = list(csv.DictReader(io.StringIO(read_ordinary(path, MOST_JSON_BYTES).decode(), newline="")))
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a row has more or fewer cells than there are columns")
    verdicts: dict[str, Mapping[str, str]] = {row["trial_id"]: {key: row[key] for key in UNKNOWN} for row in rows}
    return Table([_record(row, place) for place, row in enumerate(rows)], verdicts)


def _record(row: Mapping[str, str], number: int) -> TrialRecord:
    """A row as a record: of its reports the best and the last, and of the best not when it was."""
    known, status = set(field_paths()), row["status"]
    if status not in get_args(Status):
        raise ValueError(f"a trial can't end as {status}")
    best, last = (_measures(row, which) for which in ("best.", "last."))
    seen = int(row["images_seen"])
    reports = [best, last] if last and last != best else [best] if best else []
    return TrialRecord(
        trial_id=row["trial_id"],
        number=number,
        params={path: _value(cell) for path, cell in row.items() if path in known and cell},
        is_baseline=row["is_baseline"] == "True",
        folder="",
        status=status,  # type: ignore[arg-type]  # looked up above
        stop_reason=row["stop_reason"] or None,
        history=[{**report, "images_seen": seen} for report in reports],
        over_limits=_over_limits(row["stop_reason"]),
    )


def _measures(row: Mapping[str, str], which: str) -> dict[str, float]:
    """The numbers of one of its reports.

    Raises:
        KeyError: there are some, and no score.
    """
    found = {key.removeprefix(which): float(value) for key, value in row.items() if key.startswith(which) and value}
    return {**found, "score": found["score"]} if found else {}


def _over_limits(reason: str) -> dict[str, float]:
    """Costs beyond their limits, from why the trial was stopped."""
    if not reason.startswith(LIMIT):
        return {}
    words = [part.split(" ") for part in reason.removeprefix(LIMIT).split(", ")]
    return {name: float(cost) for name, cost, *_ in words}


def _value(cell: str) -> Any:
    """A setting from its cell: see `outputs._cell`."""
    if cell in ("True", "False"):
        return cell == "True"
    try:
        return json.loads(cell)
    except ValueError:
        return cell
