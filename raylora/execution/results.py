"""What Ray Tune is told of a trial's reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.search.limits import COSTS
from raylora.search.stopping import IS_OVER

METRIC, MODE, TIME_ATTR = "best_score", "max", "images_seen"
REPORT = "report"
"""A list with the whole report."""
FAILED, BREAKS_OFF = "failed_because", "breaks_off"
"""In the last report of a trial that failed: why, in a line; and whether the search had better stop for it."""


def as_result(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report for Tune: the numbers that searcher and scheduler go by, and all in a list, which Tune passes on unread.

    Of every bare number Tune keeps statistics and their JSON, for each trial, as long as a search lasts.
    """
    bare = (METRIC, TIME_ATTR, IS_OVER, *COSTS)
    return {key: report[key] for key in bare if key in report} | {REPORT: [report]}


def failure(reason: str, breaks_off: bool) -> dict[str, Any]:
    """The report of a trial that failed. One that raised instead would be taken for lost, and tried again by Tune."""
    return {METRIC: float("-inf"), TIME_ATTR: 0, FAILED: reason, BREAKS_OFF: breaks_off}


def failure_in(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The report of a failure in a result, if it is one."""
    report: dict[str, Any] = result.get(REPORT, [{}])[0]
    return report if FAILED in report else None
