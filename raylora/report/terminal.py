"""What a console can do."""

from __future__ import annotations

from rich.console import Console


def can_redraw(console: Console) -> bool:
    """Whether lines that were printed can be drawn over: on a terminal, unless it says that it can't (TERM=dumb).

    Not what Rich says of itself: FORCE_COLOR makes a terminal of a log file, which would be full of tables.
    """
    return console.file.isatty() and not console.is_dumb_terminal
