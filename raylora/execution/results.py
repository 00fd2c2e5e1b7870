"""What Ray Tune is told of a trial's reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.search.limits import COSTS
from raylora.search.stopping import IS_OVER

METRIC, MODE, TIME_ATTR = "best_score", "max", "images_seen"
REPORT = "report"
"""A list with the whole report."""


def as_result(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report for Tune: the numbers that searcher and scheduler go by, and all in a list, which Tune passes on unread.

    Of every bare number Tune keeps statistics and their JSON, for each trial, as long as a search lasts.
    """
    bare = (METRIC, TIME_ATTR, IS_OVER, *COSTS)
    return {key: report[key] for key in bare if key in report} | {REPORT: [report]}
