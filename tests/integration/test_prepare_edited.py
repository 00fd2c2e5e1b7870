"""Captions that somebody corrects by hand in a prepared folder stay when it is prepared again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from raylora.preparation.work_folder import WorkFolder
from tests.caption_models import make_tagger
from tests.preparing import Prepare, captions_in, make_colours, manifest_in

LINE = "prepare in set --size 64x64 --crop center --trigger sks"


@pytest.fixture
def run(run_here: Prepare, tmp_path: Path) -> Prepare:
    make_colours(tmp_path / "in", red="hat, smile", blue="hat, grass")
    return run_here


def edit(folder: Path, text: str = "sks, my own words") -> Path:
    file = folder / "red.txt"
    file.write_text(f"{text}\n")
    return file


def test_an_edited_caption_stays_and_is_told_and_recorded(run: Prepare, tmp_path: Path) -> None:
    assert run(LINE).status == 0
    edit(tmp_path / "set" / "10_in")
    for more in ("--remove hat", "--remove hat --remove grass"):  # the second time the record has it
        done = run(f"{LINE} {more} --force")
        assert done.status == 0, done.stderr
        assert "1 caption (10_in/red.txt): changed by hand, and kept so; remove a file" in done.stderr
        assert captions_in(tmp_path / "set")["red"] == "sks, my own words\n"
    assert captions_in(tmp_path / "set")["blue"] == "sks\n"
    blue, red = manifest_in(tmp_path / "set")["images"]
    assert (blue["caption"], blue["caption_edited"]) == ("sks", False)
    assert (red["caption"], red["caption_edited"]) == ("sks, my own words", True)
    assert "1 changed by hand" in done.stdout
    assert "my own words" in (tmp_path / "set" / "tags.csv").read_text()


def test_no_option_drops_them_and_one_whose_file_is_removed_is_written_anew(run: Prepare, tmp_path: Path) -> None:
    assert run(f"{LINE} --existing replace").status == 0
    file = edit(tmp_path / "set" / "10_in")
    for line in ("prepare in set --like set/manifest.json", f"{LINE} --existing replace"):
        assert run(f"{line} --force").status == 0
        assert captions_in(tmp_path / "set")["red"] == "sks, my own words\n"
    file.unlink()
    assert run(f"{LINE} --existing replace --force").status == 0
    assert captions_in(tmp_path / "set")["red"] == "sks\n"
    assert not any(one["caption_edited"] for one in manifest_in(tmp_path / "set")["images"])


def test_one_is_no_caption_of_another_picture_by_that_name(run: Prepare, tmp_path: Path) -> None:
    assert run(LINE).status == 0
    edit(tmp_path / "set" / "10_in")
    shutil.copy(tmp_path / "in" / "blue.png", tmp_path / "in" / "red.png")
    done = run(f"{LINE} --force")
    assert "10_in/red.txt: what was written there by hand, 'sks, my own words', was of another picture" in done.stderr
    assert captions_in(tmp_path / "set")["red"] == "sks, hat, smile\n"
    assert not any(one["caption_edited"] for one in manifest_in(tmp_path / "set")["images"])


def test_a_dry_run_tells_that_they_stay(run: Prepare, tmp_path: Path) -> None:
    assert run(LINE).status == 0
    edit(tmp_path / "set" / "10_in")
    done = run(f"{LINE} --remove hat --force --dry-run")
    assert "changed by hand, and kept so" in done.stderr
    assert "  + sks, my own words" in done.stdout.splitlines()


def test_they_go_with_their_pictures_to_another_folder(run: Prepare, tmp_path: Path) -> None:
    assert run(LINE).status == 0
    edit(tmp_path / "set" / "10_in", "")
    assert run(f"{LINE} --repeats 5 --force").status == 0
    assert [*(tmp_path / "set").glob("10_in")] == []
    assert (tmp_path / "set" / "5_in" / "red.txt").read_text() == "\n"


def test_one_whose_picture_is_gone_stays_where_it_is(run: Prepare, tmp_path: Path) -> None:
    assert run(LINE).status == 0
    file = edit(tmp_path / "set" / "10_in")
    (tmp_path / "in" / "red.png").unlink()
    done = run(f"{LINE} --force")
    assert "1 caption (10_in/red.txt): changed by hand, so they stay" in done.stderr
    assert file.read_text() == "sks, my own words\n"
    assert not file.with_suffix(".png").exists()


def test_blanks_and_line_ends_are_no_edits_and_what_is_deleted_is_written_anew(run: Prepare, tmp_path: Path) -> None:
    assert run(LINE).status == 0
    edit(tmp_path / "set" / "10_in", "sks,  hat,\r\n smile\n")
    (tmp_path / "set" / "10_in" / "blue.txt").unlink()
    done = run(f"{LINE} --remove hat --force")
    assert "by hand" not in done.stderr
    assert captions_in(tmp_path / "set") == {"red": "sks, smile\n", "blue": "sks, grass\n"}


def test_a_record_that_names_other_captions_has_none_of_them_read(run: Prepare, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("hunter2")
    assert run(LINE).status == 0
    manifest, state = tmp_path / "set" / "manifest.json", tmp_path / "set" / ".prepare" / "state.json"
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        told = json.loads(manifest.read_text())
        told["images"][1]["file"] = name
        manifest.write_text(json.dumps(told))
        assert run(f"{LINE} --force").status == 0
        assert captions_in(tmp_path / "set")["red"] == "sks, hat, smile\n"
    manifest.unlink()
    digest = told["images"][1]["source_sha256"]
    record = {"source": "red.png", "digest": digest, "file": "../secret.txt", "caption": "sks, kept"}
    state.write_text(json.dumps({**json.loads(state.read_text()), "edited": [record]}))
    assert run(LINE).status == 0
    assert captions_in(tmp_path / "set")["red"] == "sks, kept\n"


@pytest.mark.parametrize("step", ["begin", "finish"])
def test_a_kill_in_between_loses_none(step: str, run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest, which alone told them from the others, goes first."""
    assert run(LINE).status == 0
    edit(tmp_path / "set" / "10_in")
    real = getattr(WorkFolder, step)

    def interrupted(*arguments: object) -> None:
        real(*arguments)
        (tmp_path / "set" / "manifest.json").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, step, interrupted)
        assert run(f"{LINE} --repeats 5 --force").status == 130
    assert not (tmp_path / "set" / "manifest.json").exists()
    done = run(f"{LINE} --repeats 5")
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "set")["red"] == "sks, my own words\n"


def test_one_that_can_not_be_read_is_refused_and_nothing_is_lost(run: Prepare, tmp_path: Path) -> None:
    assert run(LINE).status == 0
    (tmp_path / "set" / "10_in" / "red.txt").write_bytes("señora".encode("latin-1"))
    done = run(f"{LINE} --add grass --force")
    assert done.status == 2
    assert "red.txt: is not UTF-8 text; save it as UTF-8, or remove it to have it written anew" in done.stderr
    assert (tmp_path / "set" / "manifest.json").exists()
    (tmp_path / "set" / "10_in" / "red.txt").unlink()
    assert run(f"{LINE} --force").status == 0


def test_a_captioner_is_not_asked_for_what_somebody_has_written(run: Prepare, tmp_path: Path) -> None:
    make_tagger(tmp_path / "tagger")
    (tmp_path / "in" / "red.txt").unlink()
    line = f"{LINE} --caption tags --caption-model tagger"
    assert run(line).status == 0
    edit(tmp_path / "set" / "10_in")
    shutil.rmtree(tmp_path / "set" / ".prepare" / "captions")
    done = run(f"{line} --add grass --force")
    assert done.status == 0, done.stderr
    assert "captioned" not in done.stderr
    assert captions_in(tmp_path / "set")["red"] == "sks, my own words\n"
