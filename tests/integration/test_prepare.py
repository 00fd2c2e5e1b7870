"""`raylora prepare` from end to end: pictures, captions, what lies in the prepared folder, and doing it again."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raylora.dataset.folder import ReadOptions, read_folder
from raylora.preparation import sources
from tests.preparing import (
    COLOURS,
    Prepare,
    captions_in,
    files_of,
    make_colours,
    make_photos,
    manifest_in,
    run_in,
)
from tests.results import Result


@dataclass(frozen=True)
class Photos:
    """A folder with `photos` and what was made of them, `set`."""

    root: Path
    before: dict[str, str]
    result: Result

    @property
    def set(self) -> Path:
        return self.root / "set"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    """Four photographs, prepared by what the command does if nothing is said: around faces and subjects."""
    root = tmp_path_factory.mktemp("photos")
    before = files_of(make_photos(root / "photos"))
    return Photos(root, before, run_in(root, "prepare photos set --size 192x192 --trigger sks"))


def test_a_prepared_folder_holds_pictures_with_captions_and_the_record(photos: Photos) -> None:
    assert photos.result.status == 0, photos.result.stderr
    pictures = [
        f"10_photos/{name}.{kind}" for name in ("astronaut", "cat", "face", "flower") for kind in ("png", "txt")
    ]
    assert [*files_of(photos.set)] == [*pictures, "contact_sheet/page_1.png", "manifest.json", "tags.csv"]
    for path in (photos.set / "10_photos").glob("*.png"):
        with Image.open(path) as image:
            assert (image.size, image.mode, image.format) == ((192, 192), "RGB", "PNG")
    assert captions_in(photos.set)["cat"] == "sks, a cat, green eyes\n"
    assert captions_in(photos.set)["face"] == "sks\n"
    assert files_of(photos.root / "photos") == photos.before
    assert "4 images in" in photos.result.stdout
    assert "faces in 2 of them" in photos.result.stdout


def test_a_prepared_folder_is_read_as_it_was_written(run_here: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    assert run_here("prepare photos set --size 64x64 --trigger sks --repeats 7 --crop center").status == 0
    pictures = read_folder(tmp_path / "set", ReadOptions(trigger="sks", fewest=1))
    assert [(picture.path.stem, picture.repeats, picture.size) for picture in pictures] == [
        (name, 7, (64, 64)) for name in ("astronaut", "cat", "face", "flower")
    ]
    assert [picture.caption for picture in pictures][:2] == ["sks", "sks, a cat, green eyes"]


def test_the_search_that_is_named_next_can_be_planned(
    run_here: Prepare, tmp_path: Path, tiny_base_folder: Path
) -> None:
    make_colours(tmp_path / "many", **dict.fromkeys(COLOURS, ""))
    told = run_here("prepare many 'a set' --size 64x64 --trigger on --json").stdout
    command = json.loads(told)["next"].replace("…", str(tiny_base_folder))
    planned = run_here(f"{shlex.join(shlex.split(command)[1:])} --set evaluation.encoder=demo")
    assert planned.status == 0, planned.stderr
    assert "10 images" in planned.stderr
    assert "dataset.trigger=on" not in command  # which is `true` in YAML


def test_focus_keeps_faces_and_subjects_and_the_middle_does_not(photos: Photos) -> None:
    assert run_in(photos.root, "prepare photos center --size 192x192 --trigger sks --crop center").status == 0
    focus, center = (
        {one["source"]: one for one in manifest_in(photos.root / crop)["images"]} for crop in ("set", "center")
    )
    left, _, right, _ = focus["face.png"]["faces"][0]
    assert focus["face.png"]["box"][0] <= left < right <= focus["face.png"]["box"][2]
    assert left < center["face.png"]["box"][0]
    left, _, right, _ = focus["flower.png"]["subject"]
    assert left < center["flower.png"]["box"][0] == 130
    assert focus["flower.png"]["box"][0] <= left + 50  # which is wider than the cut
    assert center["face.png"]["faces"] == []


def test_each_picture_goes_to_the_size_of_its_shape(run_here: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    assert run_here("prepare photos set --size 64x64 --size 128x64 --trigger sks --crop center").status == 0
    sizes = {one["source"]: tuple(one["size"]) for one in manifest_in(tmp_path / "set")["images"]}
    assert sizes == {
        "astronaut.png": (64, 64),
        "cat.jpg": (128, 64),
        "face.png": (128, 64),
        "flower.png": (128, 64),
    }


def test_what_is_cut_is_what_the_box_says(run_here: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    assert run_here("prepare photos set --size 64x64 --trigger sks --crop center").status == 0
    one = next(one for one in manifest_in(tmp_path / "set")["images"] if one["source"] == "face.png")
    with Image.open(tmp_path / "photos" / "face.png") as source, Image.open(tmp_path / "set" / one["file"]) as image:
        expected = source.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS, box=one["box"])
        assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_names_that_would_collide_do_not(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r", blue="b")
    for name in ("Red.jpg", "red_2.webp", "red.bmp"):
        Image.new("RGB", (64, 64), "green").save(tmp_path / "in" / name)
    assert run_here("prepare in set --size 64x64 --trigger sks").status == 0
    names = [path.name.lower() for path in (tmp_path / "set" / "10_in").glob("*.png")]
    assert len(names) == len({*names}) == 5
    assert {one["source"] for one in manifest_in(tmp_path / "set")["images"]} == {
        "red.png", "blue.png", "Red.jpg", "red_2.webp", "red.bmp",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [
        ("in", "", "10_in"),
        ("in", "--repeats 3", "3_in"),
        ("in/4_sks man", "", "4_sks man"),
        ("in/4_sks man", "--repeats 3", "3_sks man"),
        ("20240731_holiday", "", "10_20240731_holiday"),
        ("2024_summer", "", "10_2024_summer"),
        ("2024_summer", "--repeats 3", "3_2024_summer"),
    ],
)
def test_the_folder_is_called_by_the_sources_name(
    source: str, options: str, expected: str, run_here: Prepare, tmp_path: Path
) -> None:
    make_colours(tmp_path / source, red="r")
    assert run_here(f"prepare '{source}' set --size 64x64 {options}").status == 0
    assert [path.name for path in (tmp_path / "set").glob("*_*") if path.name[0].isdigit()] == [expected]


def test_sub_folders_of_kohyas_keep_their_names_and_repeats(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in" / "4_sks man", red="r")
    make_colours(tmp_path / "in" / "2_sks dog", red="r")
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "top.png")
    assert run_here("prepare in set --size 64x64 --trigger sks").status == 0
    assert sorted(one["file"] for one in manifest_in(tmp_path / "set")["images"]) == [
        "10_in/top.png", "2_sks dog/red.png", "4_sks man/red.png",
    ]  # fmt: skip


def test_sub_folders_called_by_a_date_are_no_repeats(run_here: Prepare, tmp_path: Path) -> None:
    for name in ("2024_summer", "20240731_beach", "500_sks"):
        make_colours(tmp_path / "in" / name, red="r")
    done = run_here("prepare in set --size 64x64")
    assert {one["file"] for one in manifest_in(tmp_path / "set")["images"]} == {
        "10_2024_summer/red.png", "10_20240731_beach/red.png", "500_sks/red.png",
    }  # fmt: skip
    told = [line for line in done.stderr.splitlines() if "taken for a date" in line]
    assert [line.split(":")[1] for line in told] == [" 20240731_beach", " 2024_summer"]
    assert "taken for a date" not in run_here("prepare in named --size 64x64 --repeats 3").stderr


def test_images_in_folders_that_are_not_read_are_told(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r")
    make_colours(tmp_path / "in" / "more", red="r", blue="b")
    done = run_here("prepare in set --size 64x64")
    assert "not read: other images: 2 in more/: give that folder, or name it like 10_name" in done.stderr
    assert len(captions_in(tmp_path / "set")) == 1


def test_captions_of_an_imagefolder_are_taken(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="", blue="")
    Image.new("RGB", (64, 64), "lime").save(tmp_path / "in" / "lime.gif")
    files = ("red.png", "blue.png", "lime.gif")
    rows = [{"file_name": name, "text": f"a {name[:-4]} square"} for name in files]
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run_here("prepare in set --size 64x64").status == 0
    assert captions_in(tmp_path / "set") == {name: f"a {name} square\n" for name in ("red", "blue", "lime")}


def test_half_a_character_in_an_index_stops_nothing(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="")
    (tmp_path / "in" / "metadata.jsonl").write_text('{"file_name": "red.png", "text": "a \\ud83d square"}')
    done = run_here("prepare in set --size 64x64")
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "set") == {"red": "a square\n"}


def test_what_is_no_character_leaves_captions_and_names_stay_within_bounds(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / ("s" * 250), red="a\0b\x1b, hat")
    Image.new("RGB", (64, 64)).save(tmp_path / ("s" * 250) / f"{'é' * 120}.png")
    done = run_here(f"prepare {'s' * 250} set --size 64x64 --remove 'a b' --add grass")
    assert done.status == 0, done.stderr
    assert {*captions_in(tmp_path / "set").values()} == {"hat, grass\n", "grass\n"}


def test_a_picture_that_may_not_be_read_is_left_out(
    run_here: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read all, so the system's answer is made up."""
    make_colours(tmp_path / "in", red="r", blue="b")
    real = sources.sha256_of

    def refused(path: Path) -> str:
        if path.name == "red.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(sources, "sha256_of", refused)
    done = run_here("prepare in set --size 64x64")
    assert done.status == 0
    assert "red.png: can't be read (Permission denied); left out" in done.stderr
    assert captions_in(tmp_path / "set") == {"blue": "b\n"}


def test_names_that_steer_a_terminal_are_told_as_escapes(run_here: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r")
    (tmp_path / "in" / "bad\nname\x1b[31m.png").write_bytes((tmp_path / "in" / "red.png").read_bytes())
    for more, before in (("--dry-run", "left out, "), ("", "")):
        done = run_here(f"prepare in set --size 64x64 {more}")
        assert done.status == 0
        told = f"bad\\x0aname\\x1b[31m.png: {before}has a name with control characters"
        assert told in (done.stdout if more else done.stderr)
        assert "\x1b" not in done.stdout + done.stderr


def test_sheets_show_every_picture_with_its_boxes(photos: Photos, run_here: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "in")
    for number in range(28):
        Image.new("RGB", (64, 64), "navy").save(tmp_path / "in" / f"plain_{number}.png")
    done = run_here("prepare in set --size 64x64 --trigger sks --crop center")
    pages = [tmp_path / "set" / "contact_sheet" / f"page_{number}.png" for number in (1, 2)]
    assert all(str(path) in done.stdout for path in pages)
    with Image.open(photos.set / "contact_sheet" / "page_1.png") as image:
        astronaut = image.convert("RGB").crop((0, 45, 252, 330))
    colours = {colour for _, colour in astronaut.getcolors(2**24) or ()}
    assert {(0, 0xD0, 0x60), (255, 0x30, 0x30)} <= colours
    with Image.open(pages[0]) as first, Image.open(pages[1]) as second:
        assert second.width == first.width
        assert second.height < first.height
