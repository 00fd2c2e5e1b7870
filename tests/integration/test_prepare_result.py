"""What `raylora prepare` says: of what was written, before anything is, and for programs."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.drawn import draw_set, drawn, put
from tests.preparing import (
    Prepare,
    captions_in,
    files_of,
    make_colours,
    make_photos,
    manifest_in,
)

# What was written is looked at.


def test_the_data_set_check_looks_at_what_was_written(run_here: Prepare, tmp_path: Path) -> None:
    draw_set(tmp_path / "in", 16)
    put(tmp_path / "in", "again.png", drawn(3), "sks, again")
    done = run_here("prepare in set --size 128x128 --crop center")
    assert done.status == 0, done.stderr
    lines = done.stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("Check: "))
    assert lines[first] == "Check:         1 warning"
    assert lines[first + 1].startswith("  warning: 2 images are near-duplicates, in 1 group, ")
    assert lines[first + 2].startswith("Next: ")
    assert "--remove" not in done.stdout  # of sks, which begins all captions


def test_a_set_that_is_as_it_should_be_is_said_to_be(run_here: Prepare, tmp_path: Path) -> None:
    draw_set(tmp_path / "in", 16)
    assert "Check:         all is well" in run_here("prepare in set --size 128x128 --crop center").stdout


def test_of_many_findings_the_worst_are_told_and_where_the_rest_is(run_here: Prepare, tmp_path: Path) -> None:
    """Others' files are in the folder as well, and training would read them."""
    make_colours(tmp_path / "in", red="hat", blue="hat")
    (tmp_path / "set" / "2024_x").mkdir(parents=True)
    (tmp_path / "set" / "2024_x" / "bad.png").write_bytes(b"garbage")
    put(tmp_path / "set" / "2024_x", "good.png", drawn(1, (100, 200)))
    done = run_here("prepare in set --size 128x128 --trigger sks --upscale --force")
    assert done.status == 0, done.stderr
    lines = done.stdout.splitlines()
    first = lines.index("Check:         2 errors, 5 warnings")
    assert [line.split(":")[0] for line in lines[first + 1 : first + 5]] == ["  error"] * 2 + ["  warning"] * 2
    command = f"  the rest: raylora check {tmp_path / 'set'} --set dataset.resolution=128x128 --set dataset.trigger=sks"
    assert lines[first + 5] == command
    assert run_here(command.partition("raylora ")[2]).stdout.endswith("2 errors, 5 warnings, 1 note\n")


def test_a_folder_that_others_have_spoilt_is_told_after_the_work(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "metadata.jsonl").write_text("{")
    done = run_here("prepare in set --size 64x64 --force")
    assert done.status == 0, done.stderr
    assert "Check:         1 error\n  error: " in done.stdout
    assert "metadata.jsonl, line 1: expected" in done.stdout


# For programs, and before anything is done.


def test_a_dry_run_tells_the_differences_and_writes_nothing(run_here: Prepare, tmp_path: Path, models: Path) -> None:
    make_photos(tmp_path / "in")
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "tiny.png")
    before = files_of(tmp_path, hidden=True)
    done = run_here("prepare in set --size 192x192 --trigger sks --remove 'green eyes' --caption tags "
               f"--caption-model {models / 'tagger'} --dry-run")  # fmt: skip
    assert done.status == 0, done.stderr
    assert files_of(tmp_path, hidden=True) == before
    assert not (tmp_path / "set").exists()
    lines = done.stdout.splitlines()
    first = lines.index("  - a cat, green eyes")
    assert lines[first - 1].startswith("cat.jpg -> 10_in/cat.png: 451x300, cut to 300x300 at (")
    assert lines[first + 1] == "  + sks, a cat"
    assert any(line.startswith("face.png -> ") and "around 1 face" in line for line in lines)
    assert any(line.startswith("  + sks, some name (series)") for line in lines)
    assert any(line.startswith("tiny.png: left out, is 9x9 px") for line in lines)
    assert "tiny.png" not in done.stderr  # once is enough


def test_a_dry_run_tells_what_the_run_then_does(run_here: Prepare, tmp_path: Path, models: Path) -> None:
    make_photos(tmp_path / "in")
    line = f"prepare in set --size 64x64 --crop center --trigger sks --caption tags --caption-model {models / 'tagger'}"
    told, done = (json.loads(run_here(f"{line} --json {more}").stdout) for more in ("--dry-run", ""))
    assert told.pop("findings") is None
    assert [finding["check"] for finding in done.pop("findings")] == ["count"]
    assert (told.pop("written"), done.pop("written")) == (False, True)
    assert told.pop("contact_sheets") == []
    assert done.pop("contact_sheets") == [str(tmp_path / "set" / "contact_sheet" / "page_1.png")]
    assert told == done
    assert done["prepared"] == 4
    assert {key: done[key] for key in manifest_in(tmp_path / "set")} == manifest_in(tmp_path / "set")


def test_the_demos_pictures_can_be_prepared(run_here: Prepare, tmp_path: Path) -> None:
    done = run_here("prepare demo set --size 64x64 --crop center")
    assert done.status == 0, done.stderr
    assert len(captions_in(tmp_path / "set")) == 40
    assert (tmp_path / "set" / "10_sks").is_dir()
