"""Makes the pictures in docs/pictures from a finished search: `python -m tools.draw_pictures out/demo`.

All three are the program's own: the grid of samples as a search leaves it, the top of its report in a headless
Chromium, and the terminal's view in the middle of it, drawn again from the trials' records.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from raylora.config_files import read_experiment
from raylora.execution.outputs import OutFolder
from raylora.report.live import TableView
from raylora.report.page import write_report
from raylora.report.standing import Standing
from raylora.tracking.recorder import TrialRecord, read_records

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
COLUMNS = 118
SHARE_OF_REPORTS = 0.62
"""How far the search is in the picture of the terminal."""
PAGE_PX = {"width": 1120, "height": 760}
COLOURS = 200
"""Of a picture's palette."""


def main(out: Path) -> None:
    folder = OutFolder(out.resolve())
    PICTURES.mkdir(exist_ok=True)
    _keep(Image.open(folder.root / "best" / "samples" / "grid.png"), PICTURES / "samples.png")
    (PICTURES / "terminal.svg").write_text(terminal(folder), encoding="utf-8")
    photograph(write_report(folder), PICTURES / "report.png")


def terminal(folder: OutFolder) -> str:
    """The view of a search that is under way, as SVG without any font from elsewhere."""
    records = [record for record in read_records(folder.trials) if record.confirms is None]
    times = sorted(time for record in records for time in record.report_times)
    began, now = times[0], times[int(len(times) * SHARE_OF_REPORTS)]
    seconds = iter([0.0])
    standing = Standing(
        read_experiment(folder.experiment).search.trials, clock=lambda: next(seconds, (now - began) / 1000)
    )
    for record in records:
        _tell(standing, record, now)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(TableView(standing, lambda: "").picture())
    plain = re.sub(r"@font-face \{\{.*?\}\}\s*(?=@font-face|\.)", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="raylora tune --demo", code_format=plain)


def _tell(standing: Standing, record: TrialRecord, now: int) -> None:
    """What was known of a trial at a time, in ms since 1970."""
    heard = sum(time <= now for time in record.report_times)
    if not heard:
        return
    is_over = heard == len(record.history)
    record.history = record.history[:heard]
    if is_over:
        standing.end(record)
        return
    record.status, record.stop_reason = "running", None
    standing.hear(record)


def photograph(page_file: Path, picture: Path) -> None:
    """The top of a page, in light colours, at the size in which a README shows it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=PAGE_PX, color_scheme="light")  # type: ignore[arg-type]
        page.goto(page_file.as_uri())
        page.screenshot(path=picture)
        browser.close()
    _keep(Image.open(picture), picture)


def _keep(picture: Image.Image, file: Path) -> None:
    """Writes a picture small enough for a README."""
    picture.convert("RGB").quantize(COLOURS).save(file, optimize=True)


def paths(words: Sequence[str]) -> Path:
    """The output folder from the command line; the demo's without one."""
    return Path(words[0]) if words else Path("out/demo")


if __name__ == "__main__":
    main(paths(sys.argv[1:]))
