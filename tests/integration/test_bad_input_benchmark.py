"""A few of the benchmark's kinds of bad input, run as it runs all of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
KINDS = (
    "odd place/a pipe|odd place/a link to outside|odd image/1x1|base/a part of a module in the working folder|rights/no"
    "|prepare, target/in the source by a link|prepare again/all pictures|check, damaged image/text"
    "|tagger/tags that are too few"
)


def test_a_few_kinds_meet_every_target(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.bad_input", "--only", KINDS, "--json", result],
        cwd=CHECKOUT, check=True, capture_output=True, timeout=900,
    )  # fmt: skip
    told = json.loads(result.read_text())
    lines = [line for group in told["rows"] for line in group["each"]]
    assert {key: target["value"] for key, target in told["targets"].items()} == {
        "tracebacks": 0, "hangs": 0, "wrong_status": 0, "memory": 0, "written_outside": 0, "secrets_told": 0,
        "kinds": 22,
    }, lines  # fmt: skip
    assert "odd image/1x1 | 0" in lines
    assert any("SANDBOX/work/pictures/bad.png: is no ordinary file" in line for line in lines)
    assert tempfile.gettempdir() not in result.read_text()
