"""What the dataset check finds in a folder of 128 px pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raylora.config import Experiment
from raylora.dataset.check import check_dataset
from raylora.dataset.findings import Finding


def look(folder: Path, against: Sequence[Path] = (), split: Path | None = None, **settings: object) -> list[Finding]:
    """What is found at 128 px."""
    params = {"resolution": 128, **settings}
    experiment = Experiment().with_params({f"dataset.{name}": value for name, value in params.items()})
    return check_dataset(str(folder), experiment, [str(one) for one in against], split)


def only(findings: Sequence[Finding], check: str) -> Finding:
    """The one that there is, of this kind."""
    assert [finding.check for finding in findings] == [check], findings
    return findings[0]
