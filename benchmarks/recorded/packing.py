"""The table of recordings, as one compressed file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from benchmarks.recorded.configurations import trainings

TABLE = Path(__file__).with_name("table.json.gz")


def pack(work: Path, table: Path) -> int:
    """All recordings as one compressed file, the same for the same recordings; how many there are."""
    done = [work / f"{training.name}.json" for training in trainings()]
    rows = [json.loads(file.read_text()) for file in done if file.is_file()]
    content = "\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n"
    table.write_bytes(gzip.compress(content.encode(), mtime=0))
    return len(rows)


def unpack(table: Path) -> list[dict[str, Any]]:
    """The recordings of a table that came to their end."""
    rows = [json.loads(line) for line in gzip.decompress(table.read_bytes()).decode().splitlines()]
    return [row for row in rows if not row["failed"]]
