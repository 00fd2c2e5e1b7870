"""Output folders that something has been at, given to `raylora report`."""

from __future__ import annotations

import shutil

from benchmarks.bad_input.edits import Edit
from benchmarks.bad_input.kinds import FAILED, FINE, REFUSED, Kind, both, mode, nothing, writes
from benchmarks.bad_input.resumes import SEARCHES, copied, references


def _picture(name: str, content: bytes) -> Edit:
    return writes(f"trials/t000/samples/{name}", content)


NO_SEARCH = (
    "state: broken",
    "state: deep",
    "state: a list",
    "state: a pipe",
    "state: a link that loops",
    "state: an unknown word",
    "state: a store of no kind",
    "state: a run of no kind",
    "state: an address of no kind",
    "state: seconds of no kind",
    "space: gone",
    "space: a pipe",
)
"""What leaves no search; of the rest a page tells what there is."""
MORE: dict[str, tuple[Edit, int]] = {
    "summary: broken": (writes("summary.json", "{"), FINE),
    "summary: a list": (writes("summary.json", "[]"), FINE),
    "summary: of no kind": (writes("summary.json", '{"best": 5, "trials": [], "importance": {}}'), FINE),
    "summary: deep": (writes("summary.json", "[" * 100_000), FINE),
    "best: losses that are none": (writes("best/losses.json", '{"a": [null, "b"]}'), FINE),
    "samples: no picture": (_picture("step_000002.png", b"no picture"), FINE),
    "samples: a name of no kind": (_picture("bad\n<script>.png", b"no picture"), FINE),
    "trials: a folder of no kind": (writes("trials/bad/trial.json", "{"), FINE),
    "trials: gone": (lambda out: shutil.rmtree(out / "trials"), FINE),
    "page: a folder": (lambda out: (out / "report.html").mkdir(), REFUSED),
}


def kinds() -> list[Kind]:
    """Searches as interrupted ones are left, and what is no output folder."""
    found = [
        Kind(f"report/{what}", "report out", copied("search", edit), REFUSED if what in NO_SEARCH else FINE)
        for what, edit in SEARCHES.items()
    ]
    found += [
        Kind(f"report/{what}", "report out", copied("search", edit), status) for what, (edit, status) in MORE.items()
    ]
    found += [
        Kind(kind.name.replace("resume", "report"), kind.command.replace("resume", "report")) for kind in references()
    ]
    closed = both(copied("search", nothing), mode("out", 0o555))
    return [*found, Kind("report/no right to write", "report out", closed, FAILED, as_nobody=True)]
