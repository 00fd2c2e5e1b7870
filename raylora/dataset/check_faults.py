"""Files that can't be read, in the words of the data set check: each kind of fault once, with all its files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from raylora.dataset.findings import Finding, name_below
from raylora.dataset.survey import Fault

NUMBER = re.compile(r"\d[\d,.]*")


def tell_faults(faults: Sequence[Fault], root: Path, left_out: bool) -> list[Finding]:
    """Pictures that can't be read.

    Args:
        left_out: as `dataset.skip_bad_images` wants it.
    """
    found = []
    for reason, those in _by_kind(faults):
        files = tuple(name_below(fault.path, root) for fault in those)
        said = f"{_of_each('file', len(files), reason)} {reason}"
        if left_out:
            found.append(Finding("warning", "readable", said, "they are left out", "mend or remove them", files))
        else:
            found.append(Finding("error", "readable", said, "no training begins with them", those[0].mend, files))
    return found


def tell_caption_faults(faults: Sequence[Fault], root: Path) -> list[Finding]:
    """Captions that can't be read."""
    found = []
    for reason, those in _by_kind(faults):
        files = tuple(name_below(fault.path, root) for fault in those)
        said = f"{_of_each('caption', len(files), reason)} {reason}"
        found.append(Finding("error", "captions", said, "no training begins with them", those[0].mend, files))
    return found


def _of_each(what: str, count: int, reason: str) -> str:
    """What a reason begins with, which speaks of one file."""
    if count == 1:
        return f"1 {what}"
    return f"{'each of ' * reason.startswith(('is ', 'has '))}{count} {what}s"


def _by_kind(faults: Sequence[Fault]) -> list[tuple[str, list[Fault]]]:
    """Reasons that differ in their numbers alone are one, as of files that are cut off here or there."""
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(NUMBER.sub("…", fault.reason), []).append(fault)
    return [
        (those[0].reason if len({fault.reason for fault in those}) == 1 else kind, those)
        for kind, those in kinds.items()
    ]
