"""Record the table that simulated searches replay.

`python -m benchmarks.recorded --work DIR --minutes M` goes on recording for about so long, two trainings side by side;
what is done is kept. `--pack` gathers all that lies in DIR into the table that the repository ships.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.recorded.configurations import trainings
from benchmarks.recorded.packing import TABLE, pack
from benchmarks.recorded.record import record_all

AT_ONCE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="keep recordings here and go on from them")
    parser.add_argument("--minutes", type=float, default=60, help="begin no more trainings after so long")
    parser.add_argument("--pack", action="store_true", help=f"write what is there to {TABLE.name}")
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.pack:
        print(f"{pack(options.work, TABLE)} recordings")
    elif options.share is not None:
        mine = list(trainings())[options.share :: AT_ONCE]
        left = [training for training in mine if not (options.work / f"{training.name}.json").is_file()]
        record_all(options.work, left, time.monotonic() + 60 * options.minutes)
    else:
        command = [sys.executable, "-m", "benchmarks.recorded", "--work", str(options.work)]
        command += ["--minutes", str(options.minutes)]
        children = [subprocess.Popen([*command, "--share", str(share)]) for share in range(AT_ONCE)]
        raise SystemExit(max(child.wait() for child in children))


if __name__ == "__main__":
    main()
