"""Preparing again: after a kill, over an earlier preparation, by a manifest; and what else lies in the folder."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from raylora.preparation import manifest, preparing
from raylora.preparation.captioning import CaptionModel
from tests.preparing import (
    CENTERED,
    TAGGED,
    Prepare,
    captions_in,
    files_of,
    make_colours,
    make_photos,
    make_squares,
    manifest_in,
)


@pytest.fixture
def run(run_here: Prepare, tmp_path: Path, tagger: Path) -> Prepare:
    shutil.copytree(tagger, tmp_path / "tagger")
    return run_here


def test_a_manifests_settings_give_the_same_bytes_anywhere(run: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "a" / "photos")
    for name in ("astronaut", "flower"):
        (tmp_path / "a" / "photos" / f"{name}.png").unlink()
    (tmp_path / "tags.txt").write_text("green eyes\n/.*background/\n")
    done = run(f"prepare a/photos first {TAGGED} --size 128x64 --remove @tags.txt --add grass --background gray "
               "--existing extend --repeats 3 --replace '>_<=shut eyes'")  # fmt: skip
    assert done.status == 0, done.stderr
    (tmp_path / "a" / "photos").rename(tmp_path / "photos")
    (tmp_path / "tags.txt").unlink()
    done = run("prepare photos elsewhere/second --like first/manifest.json")
    assert done.status == 0, done.stderr
    assert files_of(tmp_path / "elsewhere" / "second") == files_of(tmp_path / "first")
    assert "3_photos/cat.png" in files_of(tmp_path / "first")


def test_options_win_over_a_manifest(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat", blue="hat, grass")
    assert run("prepare in first --size 64x64 --trigger sks --remove hat --repeats 2").status == 0
    assert run("prepare in second --like first/manifest.json --trigger abc").status == 0
    assert captions_in(tmp_path / "second") == {"red": "abc\n", "blue": "abc, grass\n"}
    assert (tmp_path / "second" / "2_in").is_dir()


def test_another_captioner_takes_nothing_of_the_earlier_ones(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat")
    assert run("prepare in first --size 64x64 --caption tags --caption-model tagger --threshold 0.8").status == 0
    done = run("prepare in second --like first/manifest.json --caption none --trigger 'sks,'")
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "second") == {"red": "sks, hat\n"}
    assert run("prepare in third --like first/manifest.json --existing extend").status == 0
    done = run("prepare in fourth --like third/manifest.json --caption none --trigger sks")
    assert done.status == 0, done.stderr
    assert manifest_in(tmp_path / "fourth")["settings"]["existing"] == "keep"


def test_nothing_is_said_of_time_or_place(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat")
    assert run("prepare in set --size 64x64").status == 0
    assert str(tmp_path) not in (tmp_path / "set" / "manifest.json").read_text()


def test_the_record_tells_versions_digests_and_what_became_of_each_caption(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat, smile", blue="")
    assert (
        run("prepare in set --size 64x64 --trigger sks --caption tags --caption-model tagger --remove hat").status == 0
    )
    told = manifest_in(tmp_path / "set")
    assert {*told["libraries"]} == {"pillow", "numpy", "opencv-contrib-python-headless", "onnxruntime"}
    assert told["captioner"]["digest"] == files_of(tmp_path / "tagger")["model.onnx"]
    assert told["settings"]["caption_model"] == str(tmp_path / "tagger")
    blue, red = told["images"]
    assert (red["caption_before"], red["caption_found"], red["caption"]) == ("hat, smile", None, "sks, smile")
    assert blue["caption_before"] == ""
    assert blue["caption"] == f"sks, {blue['caption_found']}"
    files = files_of(tmp_path / "set")
    assert all(one["file_sha256"] == files[one["file"]] for one in (red, blue))
    assert red["source_sha256"] == files_of(tmp_path / "in")["red.png"]


# After a kill.


KILLED = """
import os, signal, sys
from raylora import cli
from raylora.preparation.work_folder import WorkFolder

keep, kept = WorkFolder.keep, []

def keep_and_die(work, kind, key, content):
    keep(work, kind, key, content)
    kept.append(kind)
    if kept.count("cuts") == 3:
        os.kill(os.getpid(), signal.SIGKILL)

WorkFolder.keep = keep_and_die
cli.main()
"""


def test_what_was_done_before_a_kill_is_not_done_again(run: Prepare, tmp_path: Path) -> None:
    """A real kill, in the middle of the pictures."""
    make_squares(tmp_path / "in", 12)
    words = "--size 64x64 --trigger sks --crop center"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "prepare", "in", "set", *words.split()],
        cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    begun = {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "10_in").glob("*.png")}
    recorded = len(list((tmp_path / "set").glob(".prepare/cuts/*.json")))
    assert 3 <= recorded < 12
    assert not (tmp_path / "set" / "manifest.json").exists()
    done = run(f"prepare in set {words}")
    assert done.status == 0, done.stderr
    kept = [path for path, when in begun.items() if path.stat().st_mtime_ns == when]
    assert len(kept) >= recorded
    assert run(f"prepare in whole {words}").status == 0
    assert files_of(tmp_path / "set") == files_of(tmp_path / "whole")


def test_captions_that_were_found_before_a_stop_are_not_asked_for_again(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_squares(tmp_path / "in", 20)
    real, seen = CaptionModel.load, []

    class Stopping:
        """The real captioner, stopped by its user after a batch."""

        def __init__(self, model: CaptionModel):
            self._real = real(model)

        def captions(self, pictures: list[Image.Image]) -> list[str]:
            if len(seen) == 2:  # it is tried on one before
                raise KeyboardInterrupt
            seen.append(len(pictures))
            return self._real.captions(pictures)

    monkeypatch.setattr(CaptionModel, "load", lambda model: Stopping(model))
    stopped = run(f"prepare in set {CENTERED}")
    assert stopped.status == 130
    assert stopped.stderr.endswith("interrupted; the same command goes on\n")
    seen[:] = [0, 0, 0]
    done = run(f"prepare in set {CENTERED}")
    assert done.status == 0, done.stderr
    assert seen == [0, 0, 0, 1, 8, 4]


def test_halves_that_a_kill_left_are_swept_away_and_a_spoilt_picture_is_made_again(
    run: Prepare, tmp_path: Path
) -> None:
    make_squares(tmp_path / "in", 3)
    assert run(f"prepare in whole {CENTERED}").status == 0
    assert run(f"prepare in set {CENTERED}").status == 0
    (tmp_path / "set" / "manifest.json").unlink()
    half = tmp_path / "set" / "10_in" / ".00.png.123.abcdef01"
    half.write_bytes(b"half")
    (tmp_path / "set" / "10_in" / "01.png").write_bytes(b"half")
    record = next((tmp_path / "set" / ".prepare" / "cuts").glob("*.json"))
    record.write_text("{")
    assert run(f"prepare in set {CENTERED}").status == 0
    assert files_of(tmp_path / "set") == files_of(tmp_path / "whole")


def test_other_settings_do_not_go_on_with_a_beginning(run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 3)
    assert run(f"prepare in set {CENTERED}").status == 0
    (tmp_path / "set" / "manifest.json").unlink()
    done = run(f"prepare in set {CENTERED} --add grass")
    assert done.status == 2
    assert "holds the beginning of another preparation" in done.stderr
    assert run(f"prepare in set {CENTERED} --add grass --force").status == 0
    assert captions_in(tmp_path / "set")["00"].endswith(", grass\n")


def test_one_folder_belongs_to_one_process_at_a_time(run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 1)
    (tmp_path / "set" / ".prepare").mkdir(parents=True)
    with FileLock(tmp_path / "set" / ".prepare" / "lock"):
        done = run(f"prepare in set {CENTERED}")
    assert done.status == 2
    assert "another raylora works in it" in done.stderr
    assert run(f"prepare in set {CENTERED}").status == 0


# Over an earlier preparation.


def test_other_edits_need_neither_cuts_nor_captions_again(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_squares(tmp_path / "in", 3)
    assert run(f"prepare in set {CENTERED}").status == 0

    def fail(*_: object) -> None:
        raise AssertionError("was done again")

    monkeypatch.setattr(CaptionModel, "load", fail)
    monkeypatch.setattr(preparing, "plan_cut", fail)
    done = run(f"prepare in set {CENTERED} --remove '/some name.*/' --force")
    assert done.status == 0, done.stderr
    assert "some name" not in captions_in(tmp_path / "set")["00"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run(f"prepare in whole {CENTERED} --remove '/some name.*/'").status == 0
    assert files_of(tmp_path / "set") == files_of(tmp_path / "whole")


def test_a_dry_run_uses_what_was_done_before(run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_squares(tmp_path / "in", 3)
    assert run(f"prepare in set {CENTERED}").status == 0
    before = files_of(tmp_path / "set", hidden=True)

    def fail(*_: object) -> None:
        raise AssertionError("was done again")

    monkeypatch.setattr(CaptionModel, "load", fail)
    monkeypatch.setattr(preparing, "plan_cut", fail)
    done = run(f"prepare in set {CENTERED} --remove '/some name.*/' --force --dry-run")
    assert done.status == 0, done.stderr
    assert "Would be prepared: 3 images" in done.stdout
    assert "some name" not in done.stdout
    assert files_of(tmp_path / "set", hidden=True) == before


def test_the_same_command_on_what_it_has_finished_says_the_same_again(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_squares(tmp_path / "in", 3)
    (tmp_path / "in" / "more").mkdir()
    (tmp_path / "in" / "more" / "a.heic").write_bytes(b"picture")
    first, as_json = run(f"prepare in set {CENTERED}"), run(f"prepare in other {CENTERED} --json")
    before = files_of(tmp_path / "set", hidden=True)
    monkeypatch.setattr(CaptionModel, "load", None)
    again = run(f"prepare in set {CENTERED}")
    assert again.status == 0, again.stderr
    assert "set: is prepared so already, and nothing was done again" in again.stderr
    assert again.stdout == first.stdout
    assert files_of(tmp_path / "set", hidden=True) == before
    assert run(f"prepare in other {CENTERED} --json").stdout == as_json.stdout
    (tmp_path / "set" / "10_in" / "00.txt").write_text("mine")
    assert "1 caption (10_in/00.txt): changed by hand since" in run(f"prepare in set {CENTERED}").stderr
    (tmp_path / "set" / "10_in" / "01.png").unlink()
    done = run(f"prepare in set {CENTERED}")
    assert done.status == 2
    assert "holds prepared images; do it anew with --force" in done.stderr


def test_a_finished_folder_whose_record_is_spoilt_is_told(run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 1)
    assert run(f"prepare in set {CENTERED}").status == 0
    (tmp_path / "set" / "manifest.json").write_text("{}")
    done = run(f"prepare in set {CENTERED}")
    assert done.status == 2
    assert "manifest.json: can't be read; make it anew with --force" in done.stderr


def test_other_versions_of_libraries_do_all_of_it_again(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_squares(tmp_path / "in", 3)
    assert run(f"prepare in set {CENTERED}").status == 0
    kept = {kind: len([*(tmp_path / "set" / ".prepare" / kind).iterdir()]) for kind in ("cuts", "captions")}
    monkeypatch.setattr(manifest, "_version", lambda _: "99")
    assert run(f"prepare in set {CENTERED} --force").status == 0
    assert manifest_in(tmp_path / "set")["libraries"]["pillow"] == "99"
    for kind, count in kept.items():
        assert len([*(tmp_path / "set" / ".prepare" / kind).iterdir()]) == 2 * count


def test_force_takes_away_what_was_prepared_before_and_nothing_else(run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 3)
    assert run(f"prepare in set {CENTERED}").status == 0
    (tmp_path / "set" / "10_in" / "own.txt").write_text("mine")
    (tmp_path / "in" / "00.png").unlink()
    assert "holds prepared images; do it anew with --force" in run(f"prepare in set {CENTERED}").stderr
    done = run(f"prepare in set {CENTERED} --repeats 5 --force")
    assert done.status == 0, done.stderr
    assert [*files_of(tmp_path / "set")] == [
        "10_in/own.txt", "5_in/01.png", "5_in/01.txt", "5_in/02.png", "5_in/02.txt", "contact_sheet/page_1.png",
        "manifest.json", "tags.csv",
    ]  # fmt: skip


def test_others_files_stay_and_are_not_written_over(run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 1)
    (tmp_path / "set" / "10_in").mkdir(parents=True)
    (tmp_path / "set" / "10_in" / "00.txt").write_text("mine")
    done = run(f"prepare in set {CENTERED}")
    assert done.status == 2
    assert "set: is not empty" in done.stderr
    done = run(f"prepare in set {CENTERED} --force")
    assert done.status == 2
    assert "00.txt: is in the way, and no earlier preparation's" in done.stderr
    assert files_of(tmp_path / "set", hidden=True).keys() == {"10_in/00.txt"}
    (tmp_path / "set" / "10_in" / "00.txt").rename(tmp_path / "set" / "10_in" / "other.txt")
    assert run(f"prepare in set {CENTERED} --force").status == 0
    assert (tmp_path / "set" / "10_in" / "other.txt").read_text() == "mine"


def test_a_link_in_the_prepared_folder_leads_nothing_out_of_it(run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 1)
    (tmp_path / "set").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set" / "10_in").symlink_to(tmp_path / "elsewhere")
    done = run(f"prepare in set {CENTERED} --force")
    assert done.status == 2
    assert "is a link that leads out of" in done.stderr
    assert [*(tmp_path / "elsewhere").iterdir()] == []


@pytest.mark.parametrize("name", ["10_in", "contact_sheet"])
def test_a_file_where_a_folder_has_to_be_is_told(name: str, run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_text("mine")
    done = run(f"prepare in set {CENTERED} --force")
    assert done.status == 2
    assert f"{name}: is a file where a folder has to be" in done.stderr
    assert files_of(tmp_path / "set", hidden=True).keys() == {name}


def test_a_record_that_names_files_elsewhere_has_none_of_them_removed(run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 1)
    (tmp_path / "elsewhere").mkdir()
    names = ("stranger.txt", "elsewhere/a.png", "elsewhere/.b.png.1.abcdef01")
    strangers = [tmp_path / name for name in names]
    for path in strangers:
        path.write_text("mine")
    assert run(f"prepare in set {CENTERED}").status == 0
    (tmp_path / "set" / "9_in").symlink_to(tmp_path / "elsewhere")
    record = tmp_path / "set" / ".prepare" / "state.json"
    told = json.loads(record.read_text())
    named = ["../stranger.txt", str(strangers[0]), "9_in/a.png", "9_in/b.png", "..", "contact_sheet", "\0", "a" * 999,
             "tags.csv/below", f"{'a' * 300}/below"]  # fmt: skip
    record.write_text(json.dumps({**told, "files": [*told["files"], *named]}))
    done = run(f"prepare in set {CENTERED} --add grass --force")
    assert done.status == 0, done.stderr
    assert all(path.read_text() == "mine" for path in strangers)
    assert (tmp_path / "set" / "contact_sheet" / "page_1.png").exists()


def test_spoilt_notes_on_earlier_work_are_made_again(run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 3)
    assert run(f"prepare in set {CENTERED}").status == 0
    before = files_of(tmp_path / "set")
    kept = tmp_path / "set" / ".prepare"
    next((kept / "thumbnails").iterdir()).write_bytes(b"garbage")
    record = next((kept / "cuts").iterdir())
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "cut": {**told["cut"], "original": [0, 0]}}))
    assert run(f"prepare in set {CENTERED} --force").status == 0
    assert files_of(tmp_path / "set") == before


def test_progress_goes_to_stderr_and_json_to_stdout(run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 25)
    done = run(f"prepare in set {CENTERED} --json")
    assert json.loads(done.stdout)["prepared"] == 25
    assert "cut 25 of 25" in done.stderr
    assert "captioned 25 of 25" in done.stderr
    assert done.stderr.count("cut ") == 10
