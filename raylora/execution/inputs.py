"""What a job brought along, kept beside its output: `python -m raylora.execution.inputs OUT COMMAND …`, on the head.

Ray deletes a job's working directory with the job. Pictures and own code are needed again by `raylora resume`, and on
every node: so they are copied to `OUT.inputs`, which lies on shared storage as OUT does, and the command runs there.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from raylora.errors import OutputError
from raylora.execution.outputs import OutFolder
from raylora.execution.packing import MARK


def inputs_of(out: Path) -> Path:
    """Where the inputs of an output folder are kept."""
    return out.with_name(f"{out.name}.inputs")


def keep_inputs(package: Path, out: Path) -> Path:
    """Copy a job's package beside its output folder, unless that has begun; returns the folder to run in.

    Raises:
        OutputError: something else lies there.
    """
    folder = inputs_of(out)
    if (package / MARK).is_file() and not (out / "state.json").exists():
        if folder.exists() and not (folder / MARK).is_file():
            raise OutputError(f"{folder}: is in the way of what the job brings along; move it, or give another --out")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(package, folder)
    return folder if folder.is_dir() else package


def on_this_cluster(words: Sequence[str], out: Path) -> list[str]:
    """A command for the cluster that it runs on: a search goes on there, wherever it began; a training needs none."""
    is_told = any(word.startswith("--address") for word in words)
    if words[0] != "resume" or is_told or OutFolder(out).holds_training:
        return list(words)
    return [*words, "--address", "auto"]


def main() -> None:
    """Run the command where its inputs are."""
    out, words = Path(sys.argv[1]).expanduser(), sys.argv[2:]
    try:
        os.chdir(keep_inputs(Path.cwd(), out))
        words = on_this_cluster(words, out)
    except OutputError as error:
        print(f"raylora: error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    os.execv(sys.executable, [sys.executable, "-m", "raylora", *words])


if __name__ == "__main__":
    main()
