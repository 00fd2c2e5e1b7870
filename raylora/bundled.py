"""Where the files that ship with raylora lie: the demo world, the search spaces and the font."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
DEMO = PACKAGE / "demo"
DEMO_BASE = DEMO / "base"
DEMO_DATASET = DEMO / "dataset"
DEMO_JUDGE = DEMO / "judge"
DEMO_ENCODER = DEMO / "image_encoder"
FONT = PACKAGE / "fonts" / "DejaVuSans.ttf"
"""Latin, Greek, Cyrillic and more; its licence lies beside it."""

DEMO_NAME = "demo"
"""Names the bundled model, data set, encoder or search space wherever such a thing is asked for."""


def search_spaces() -> dict[str, Path]:
    """The bundled search spaces, by name: inside the wheel, or beside the package in a checkout."""
    inside, beside = PACKAGE / "search_spaces", PACKAGE.parent / "search_spaces"
    folder = inside if inside.is_dir() else beside
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
