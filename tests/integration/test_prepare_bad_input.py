"""What `raylora prepare` refuses: one message, status 2, and nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.caption_models import make_blip, make_tagger
from tests.preparing import Prepare, command_line, files_of, make_colours
from tests.results import Result


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_colours(root / "in", red="hat", blue="hat, grass")
    make_colours(root / "bare", red="", blue="")
    make_colours(root / "deep" / "below", red="hat")
    make_colours(root / "latin", red="hat")
    (root / "latin" / "red.txt").write_bytes("h\xe9".encode("latin-1"))
    make_colours(root / "all_bad", red="hat")
    (root / "all_bad" / "red.png").write_bytes(b"garbage")
    make_colours(root / "taken" / "10_x", red="hat")
    (root / "empty").mkdir()
    (root / "file.png").write_bytes((root / "in" / "red.png").read_bytes())
    (root / "tags.txt").write_bytes("h\xe9".encode("latin-1"))
    (root / "patterns.txt").write_text("hat\n/(/\n")
    make_blip(root / "blip")
    make_tagger(root / "tagger")
    make_tagger(root / "bare_tagger")
    (root / "bare_tagger" / "model.onnx").unlink()
    shutil.copytree(root / "blip", root / "bare_blip")
    (root / "bare_blip" / "model.safetensors").unlink()
    (root / "no_manifest.json").write_text("[]")
    (root / "bad_manifest.json").write_text(json.dumps({"settings": {"crop": "middle", "colour": 1}}))
    (root / "newer_manifest.json").write_text(json.dumps({"raylora": "99.0", "settings": {"colour": 1}}))
    (root / "circle").symlink_to(root / "circle")
    (root / "by_link").symlink_to(root / "in")
    make_colours(root / "slow", red="a" * 40)
    make_colours(root / "leads_out", red="hat")
    (root / "leads_out" / "10_bad").symlink_to(root / "bare")
    return root


@pytest.fixture
def run(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prepare:
    return command_line(monkeypatch, capsys, world)


def assert_refused(result: Result, *fragments: str) -> None:
    """Status 2 and one message that holds every fragment; nothing on stdout."""
    assert result.status == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("raylora: error: ") == 1, result.stderr
    message = result.stderr[result.stderr.index("raylora: error: ") :]
    for fragment in fragments:
        assert fragment in message
    assert result.stdout == ""


REFUSED = [
    ("missing out", "missing: there is no such folder", "give a folder"),
    ("file.png out", "file.png: is a file"),
    ("empty out", "empty: no images found", ".png"),
    ("deep out", "deep: no images found", "1 in below/", "give that folder"),
    ("s3://bucket/in out", "s3://bucket/in: lies on object storage"),
    ("latin out", "red.txt: is not UTF-8"),
    ("all_bad out", "all_bad: none of its images can be used", "red.png can't be read as an image"),
    ("bare out", "blue.png: has no caption (2 such images); have", "--caption tags", "--trigger WORD"),
    ("in out --existing replace", "loses its caption by --existing replace"),
    ("in in", "is the source folder itself", "give another folder"),
    ("in in/../in", "is the source folder itself"),
    ("in by_link", "is the source folder itself"),
    ("in in/out", "it lies inside the source"),
    ("in by_link/out", "it lies inside the source"),
    ("by_link in/out", "it lies inside the source"),
    ("leads_out out", "10_bad: is a link that leads out of the folder"),
    ("slow out --remove '/(a+)+b/'", "/(a+)+b/: takes over 1 s", "without repeats within repeats"),
    ("deep/below deep", "the source lies inside it"),
    ("in file.png", "file.png: is a file; give a folder"),
    ("in taken", "taken: is not empty", "--force"),
    ("in circle/out", "goes through a link that leads nowhere"),
    ("in s3://bucket/out", "s3:/bucket/out: is no folder of a file system"),
    ("in out --crop middle", "--crop: must be 'focus', 'center' or 'none'", "'middle'"),
    ("in out --size 500x512", "--size: both sides must be multiples of 64; use 512x512"),
    ("in out --size 64x64 --size huge", "--size:", "'huge'"),
    ("in out --size 0x64", "--size:"),
    ("in out --size 64x64x64", "--size:"),
    ("in out --background pinkish", "--background: must be a colour such as white", "'pinkish'"),
    ("in out --background #00000000", "--background: must be a colour"),
    ("in out --caption clip", "--caption: must be 'blip', 'tags' or 'none'", "'clip'"),
    ("in out --caption-model blip", "--caption-model: needs a captioner; add --caption blip"),
    ("in out --threshold 0.5", "--threshold: only a tagger has one", "--caption tags"),
    ("in out --caption blip --threshold 0.5", "--threshold: only a tagger has one"),
    ("in out --caption tags --threshold 1.5", "--threshold: must be at most 1", "1.5"),
    ("in out --caption tags --threshold -0.1", "--threshold: must be at least 0", "-0.1"),
    ("in out --caption tags --threshold nan", "--threshold:", "finite"),
    ("in out --caption tags --character-threshold 7", "--character-threshold: must be at most 1"),
    ("in out --caption tags --caption-model bare_tagger", "bare_tagger: has no model.onnx; download the model again"),
    ("in out --caption blip --caption-model bare_blip", "bare_blip: holds no model.safetensors; download"),
    ("in out --caption blip --caption-model tagger", "tagger: has no config.json"),
    ("in out --caption tags --caption-model blip", "blip: has no model.onnx"),
    ("in out --caption tags --caption-model ./nowhere", "./nowhere: there is no such folder"),
    ("in out --caption blip --caption-model nobody/nothing", "nobody/nothing: there is no such path", "HF_HUB_OFFLINE"),
    ("in out --caption tags", "SmilingWolf/wd-vit-tagger-v3: there is no such path", "HF_HUB_OFFLINE"),
    ("in out --existing merge", "--existing: must be 'keep', 'replace' or 'extend'"),
    ("in out --existing extend", "--existing: extend adds a captioner's words"),
    ("in out --remove '/(/'", "--remove: '/(/' is no pattern of Python's re"),
    ("in out --remove @patterns.txt", "patterns.txt, line 2: '/(/' is no pattern of Python's re"),
    ("in out --remove @nowhere.txt", "nowhere.txt: can't be read"),
    ("in out --remove @tags.txt", "tags.txt: is not UTF-8"),
    ("in out --remove 'a, b'", "--remove: 'a, b' must be one tag, or a /pattern/"),
    ("in out --replace hat", "--replace: 'hat' must be OLD=NEW"),
    ("in out --replace '/*/=hat'", "--replace: '/*/' is no pattern of Python's re"),
    ("in out --replace '/(.*)/=\\2 hat'", "--replace: '/(.*)/=\\2 hat': invalid group reference 2"),
    ("in out --add grass --add 'a, b'", "--add: 'a, b' must be one tag, without commas"),
    ("in out --add '\udcff'", "--add: must be lines of text in UTF-8"),
    ("in out --trigger ''", "--trigger: must not be empty"),
    ("in out --trigger 'a, b'", "--trigger: 'a, b' must be one tag, without commas"),
    ("in out --trigger $'a\\nb'", "--trigger: must be a line of text"),
    ("in out --repeats 0", "--repeats: must be at least 1"),
    ("in out --repeats 9999999", "--repeats: must be at most 1000000"),
    ("in out --like nowhere.json", "nowhere.json: there is no such file"),
    ("in out --like no_manifest.json", "no_manifest.json: is no manifest"),
    (
        "in out --like bad_manifest.json",
        "bad_manifest.json: settings.crop: must be",
        "settings.colour: there is no such setting",
    ),
    ("in out --like newer_manifest.json", "settings.colour: there is no", "is of raylora 99.0, and this is"),
    ("in out --like in", "in: is no manifest; give the manifest.json"),
    ("in out --size 65x64 --trigger 'a, b'", "--size:", "--trigger:"),
]


@pytest.mark.parametrize(("line", "fragments"), [pytest.param(line, rest, id=line) for line, *rest in REFUSED])
def test_it_is_refused(line: str, fragments: list[str], run: Prepare, world: Path) -> None:
    line = line.replace("$'a\\nb'", "'a\nb'")
    size = "" if "--size" in line else "--size 64x64"
    before = files_of(world, hidden=True)
    assert_refused(run(f"prepare {line} {size}"), *fragments)
    after = files_of(world, hidden=True)
    assert after == before
    assert not (world / "out").exists()


@pytest.mark.parametrize("option", ["--threshold high", "--repeats many", "--nonsense"])
def test_what_no_option_takes_is_refused(option: str, run: Prepare) -> None:
    told = run(f"prepare in out {option}")
    assert told.status == 2
    assert "Traceback" not in told.stderr
