"""docs/settings.md says what the configuration says."""

from __future__ import annotations

from pathlib import Path

from raylora.config import field_paths
from tools.write_settings import reference

SETTINGS = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def test_the_reference_is_up_to_date() -> None:
    assert SETTINGS.read_text(encoding="utf-8") == reference(), "run python -m tools.write_settings"


def test_every_setting_has_a_row() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) == len(field_paths())
    for path in field_paths():
        assert sum(row.startswith(f"| `{path}` |") for row in rows) == 1


def test_a_row_tells_kind_default_and_advice() -> None:
    (row,) = (line for line in reference().splitlines() if line.startswith("| `lora.rank` |"))
    assert row.startswith("| `lora.rank` | whole number, 1 to 1024 | 16 | Rank of the update. Guide: ")
    (row,) = (line for line in reference().splitlines() if line.startswith("| `training.mixed_precision` |"))
    assert "| no, fp16 or bf16 | no |" in row
