"""Makes the pictures in docs/pictures from a finished search: `python -m tools.draw_pictures out/demo`.

All three are the program's own: the grid of samples as a search leaves it, the top of its report in a headless
Chromium, and the terminal's view in the middle of it, drawn again from the trials' records.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from raylora.config_files import read_experiment
from raylora.execution.outputs import OutFolder
from raylora.report.live import TableView
from raylora.report.page import write_report
from raylora.report.standing import After, Standing
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
    photograph(Path(write_report(folder)), PICTURES / "report.png")


def terminal(folder: OutFolder) -> str:
    """The view of a search that is under way, as SVG without any font from elsewhere."""
    records = [record for record in read_records(folder.trials) if record.confirms is None]
    search = read_experiment(folder.experiment).search
    reports = sorted((time, place) for place, record in enumerate(records) for time in record.report_times)
    now_s = reports[0][0] / 1000
    standing = Standing(search.trials, clock=lambda: now_s, after=After.of(search))
    for record in records[: search.max_concurrent or 2]:
        standing.hear(at_report(record, 0))
    told = Counter[int]()
    for time, place in reports[: int(len(reports) * SHARE_OF_REPORTS)]:
        now_s, told[place] = time / 1000, told[place] + 1
        record = at_report(records[place], told[place])
        (standing.hear if record.status == "running" else standing.end)(record)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(TableView(console, standing, lambda: "").picture())
    plain = re.sub(r"@font-face \{\{.*?\}\}\s*(?=@font-face|\.)", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="raylora tune --demo", code_format=plain)


def at_report(record: TrialRecord, count: int) -> TrialRecord:
    """What was known of a trial once it had reported so often."""
    if count == len(record.history):
        return record
    return replace(record, history=record.history[:count], status="running", stop_reason=None)


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
