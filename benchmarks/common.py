"""What every benchmark shares: the machine's name, the table, the JSON."""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
Target = dict[str, Any]


def machine() -> str:
    """CPU model and core count, and the GPU's name where there is one."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = f"{models[0]}, {len(models)} cores" if models else name
    return f"{name}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else name


def commit() -> str:
    """The commit of the checkout that this runs from, `+` where files differ from it."""
    run = ["git", "describe", "--always", "--dirty=+", "--abbrev=10"]
    result = subprocess.run(run, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return result.stdout.strip() or "unknown"


def target(value: float | None, goal: str, met: bool | None) -> Target:
    """One promise: what was measured, what was promised, and whether it holds."""
    return {"value": value, "goal": goal, "met": met}


def report(name: str, rows: list[Row], targets: dict[str, Target], json_file: Path | None) -> None:
    """Print rows and targets as tables; write the JSON where asked. Rows of different kinds say theirs in `table`."""
    console = Console()
    console.print(f"{name} on {machine()}, commit {commit()}")
    for kind in dict.fromkeys(row.get("table") for row in rows):
        console.print(_table([row for row in rows if row.get("table") == kind]))
    console.print(_table([{"target": key, **row} for key, row in targets.items()]))
    if json_file:
        content = {
            "name": name,
            "machine": machine(),
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "rows": rows,
            "targets": targets,
        }
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _table(rows: list[Row]) -> Table:
    """Nested values are for the JSON alone."""
    table = Table()
    flat = [column for row in rows for column, value in row.items() if not isinstance(value, dict | list)]
    columns = list(dict.fromkeys(flat))
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
