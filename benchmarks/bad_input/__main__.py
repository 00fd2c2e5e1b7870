"""`python -m benchmarks.bad_input`: every kind of bad input, counted by what went wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

AT_ONCE = 2
FAULTS = {
    "tracebacks": "traceback",
    "hangs": "hang",
    "wrong_status": "status",
    "memory": "memory",
    "written_outside": "outside",
    "secrets_told": "secret",
}
INTERRUPTED = ("resume", "warm start", "report")
"""Groups of kinds that begin with interrupted work."""
FEWEST_KINDS = 200


def _settle_in() -> Path:
    """A folder of the run's own, as home too: libraries read some of the environment when they are imported."""
    root = Path(tempfile.mkdtemp(prefix="bad-"))
    root.chmod(0o755)
    (root / "home").mkdir()
    os.environ.update(HOME=str(root / "home"), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="all kinds too: they take minutes, and none can be left out"
    )
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--only", default="", help="kinds whose names hold this; `|` between several")
    options = parser.parse_args()
    root = _settle_in()
    try:
        run(root, options.only.split("|"), options.json)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def run(root: Path, wanted: Sequence[str], json_file: Path | None) -> None:
    """Run the kinds, two at a time, and report."""
    from benchmarks.bad_input.collect import all_kinds, run_kinds
    from benchmarks.bad_input.world import make_shared
    from benchmarks.common import report, target

    began = time.monotonic()
    kinds = [kind for kind in all_kinds() if any(part in kind.name for part in wanted)]
    shared = make_shared(root / "shared", any(kind.group.startswith(INTERRUPTED) for kind in kinds))
    outcomes = run_kinds(kinds, root, shared, AT_ONCE)
    faults = Counter(fault.partition(":")[0] for outcome in outcomes for fault in outcome.faults)
    groups = Counter(outcome.kind.group for outcome in outcomes)
    rows = [
        {
            "table": "groups",
            "group": group,
            "kinds": count,
            "refused": sum(o.kind.group == group and o.status == 2 for o in outcomes),
            "handled": sum(o.kind.group == group and o.status == 0 for o in outcomes),
            "failed": sum(o.kind.group == group and o.status == 1 for o in outcomes),
            "faults": sum(o.kind.group == group and bool(o.faults) for o in outcomes),
            "slowest_s": max(o.wall_s for o in outcomes if o.kind.group == group),
            "peak_mib": max(o.peak_mib for o in outcomes if o.kind.group == group),
            "each": [o.in_a_line for o in outcomes if o.kind.group == group],
        }
        for group, count in groups.items()
    ]
    targets = {key: target(faults[word], "= 0", faults[word] == 0) for key, word in FAULTS.items()}
    targets["kinds"] = target(len(kinds), f">= {FEWEST_KINDS}", len(kinds) >= FEWEST_KINDS)
    report("bad_input", rows, targets, json_file)
    print(f"{len(kinds)} kinds in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
