"""`raylora prepare` from end to end: pictures, captions, what lies in the prepared folder, and doing it again."""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raylora.dataset.folder import ReadOptions, read_folder
from raylora.preparation import sources
from tests.caption_models import make_blip, make_tagger
from tests.drawn import draw_set, drawn, put
from tests.photographs import ASTRONAUT
from tests.preparing import (
    Prepare,
    captions_in,
    command_line,
    files_of,
    make_colours,
    make_photos,
    manifest_in,
    run_in,
)
from tests.results import Result


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prepare:
    return command_line(monkeypatch, capsys, tmp_path)


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
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`models/blip` and `models/tagger`."""
    place = tmp_path_factory.mktemp("models")
    make_blip(place / "blip")
    make_tagger(place / "tagger")
    return place


# What is written.


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


def test_a_prepared_folder_is_read_as_it_was_written(run: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    assert run("prepare photos set --size 64x64 --trigger sks --repeats 7 --crop center").status == 0
    pictures = read_folder(tmp_path / "set", ReadOptions(trigger="sks", fewest=1))
    assert [(picture.path.stem, picture.repeats, picture.size) for picture in pictures] == [
        (name, 7, (64, 64)) for name in ("astronaut", "cat", "face", "flower")
    ]
    assert [picture.caption for picture in pictures][:2] == ["sks", "sks, a cat, green eyes"]


def test_the_search_that_is_named_next_can_be_planned(run: Prepare, tmp_path: Path, tiny_base_folder: Path) -> None:
    make_colours(tmp_path / "many", **dict.fromkeys(COLOURS, ""))
    told = run("prepare many 'a set' --size 64x64 --trigger on --json").stdout
    command = json.loads(told)["next"].replace("…", str(tiny_base_folder))
    planned = run(f"{shlex.join(shlex.split(command)[1:])} --set evaluation.encoder=demo")
    assert planned.status == 0, planned.stderr
    assert "10 images" in planned.stderr
    assert "dataset.trigger=on" not in command  # which is `true` in YAML


COLOURS = ("red", "blue", "lime", "white", "black", "yellow", "navy", "pink", "gold", "gray")


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


def test_each_picture_goes_to_the_size_of_its_shape(run: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    assert run("prepare photos set --size 64x64 --size 128x64 --trigger sks --crop center").status == 0
    sizes = {one["source"]: tuple(one["size"]) for one in manifest_in(tmp_path / "set")["images"]}
    assert sizes == {
        "astronaut.png": (64, 64),
        "cat.jpg": (128, 64),
        "face.png": (128, 64),
        "flower.png": (128, 64),
    }


def test_what_is_cut_is_what_the_box_says(run: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    assert run("prepare photos set --size 64x64 --trigger sks --crop center").status == 0
    one = next(one for one in manifest_in(tmp_path / "set")["images"] if one["source"] == "face.png")
    with Image.open(tmp_path / "photos" / "face.png") as source, Image.open(tmp_path / "set" / one["file"]) as image:
        expected = source.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS, box=one["box"])
        assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_names_that_would_collide_do_not(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r", blue="b")
    for name in ("Red.jpg", "red_2.webp", "red.bmp"):
        Image.new("RGB", (64, 64), "green").save(tmp_path / "in" / name)
    assert run("prepare in set --size 64x64 --trigger sks").status == 0
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
    source: str, options: str, expected: str, run: Prepare, tmp_path: Path
) -> None:
    make_colours(tmp_path / source, red="r")
    assert run(f"prepare '{source}' set --size 64x64 {options}").status == 0
    assert [path.name for path in (tmp_path / "set").glob("*_*") if path.name[0].isdigit()] == [expected]


def test_sub_folders_of_kohyas_keep_their_names_and_repeats(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in" / "4_sks man", red="r")
    make_colours(tmp_path / "in" / "2_sks dog", red="r")
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "top.png")
    assert run("prepare in set --size 64x64 --trigger sks").status == 0
    assert sorted(one["file"] for one in manifest_in(tmp_path / "set")["images"]) == [
        "10_in/top.png", "2_sks dog/red.png", "4_sks man/red.png",
    ]  # fmt: skip


def test_sub_folders_called_by_a_date_are_no_repeats(run: Prepare, tmp_path: Path) -> None:
    for name in ("2024_summer", "20240731_beach", "500_sks"):
        make_colours(tmp_path / "in" / name, red="r")
    done = run("prepare in set --size 64x64")
    assert {one["file"] for one in manifest_in(tmp_path / "set")["images"]} == {
        "10_2024_summer/red.png", "10_20240731_beach/red.png", "500_sks/red.png",
    }  # fmt: skip
    told = [line for line in done.stderr.splitlines() if "taken for a date" in line]
    assert [line.split(":")[1] for line in told] == [" 20240731_beach", " 2024_summer"]
    assert "taken for a date" not in run("prepare in named --size 64x64 --repeats 3").stderr


def test_images_in_folders_that_are_not_read_are_told(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r")
    make_colours(tmp_path / "in" / "more", red="r", blue="b")
    done = run("prepare in set --size 64x64")
    assert "not read: other images: 2 in more/: give that folder, or name it like 10_name" in done.stderr
    assert len(captions_in(tmp_path / "set")) == 1


def test_captions_of_an_imagefolder_are_taken(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="", blue="")
    Image.new("RGB", (64, 64), "lime").save(tmp_path / "in" / "lime.gif")
    files = ("red.png", "blue.png", "lime.gif")
    rows = [{"file_name": name, "text": f"a {name[:-4]} square"} for name in files]
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run("prepare in set --size 64x64").status == 0
    assert captions_in(tmp_path / "set") == {name: f"a {name} square\n" for name in ("red", "blue", "lime")}


def test_half_a_character_in_an_index_stops_nothing(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="")
    (tmp_path / "in" / "metadata.jsonl").write_text('{"file_name": "red.png", "text": "a \\ud83d square"}')
    done = run("prepare in set --size 64x64")
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "set") == {"red": "a square\n"}


def test_what_is_no_character_leaves_captions_and_names_stay_within_bounds(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / ("s" * 250), red="a\0b\x1b, hat")
    Image.new("RGB", (64, 64)).save(tmp_path / ("s" * 250) / f"{'é' * 120}.png")
    done = run(f"prepare {'s' * 250} set --size 64x64 --remove 'a b' --add grass")
    assert done.status == 0, done.stderr
    assert {*captions_in(tmp_path / "set").values()} == {"hat, grass\n", "grass\n"}


def test_a_picture_that_may_not_be_read_is_left_out(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read all, so the system's answer is made up."""
    make_colours(tmp_path / "in", red="r", blue="b")
    real = sources._digest

    def refused(path: Path) -> str:
        if path.name == "red.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(sources, "_digest", refused)
    done = run("prepare in set --size 64x64")
    assert done.status == 0
    assert "red.png: can't be read (Permission denied); left out" in done.stderr
    assert captions_in(tmp_path / "set") == {"blue": "b\n"}


def test_names_that_steer_a_terminal_are_told_as_escapes(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r")
    (tmp_path / "in" / "bad\nname\x1b[31m.png").write_bytes((tmp_path / "in" / "red.png").read_bytes())
    for more in ("--dry-run", ""):
        done = run(f"prepare in set --size 64x64 {more}")
        assert done.status == 0
        assert "bad\\x0aname\\x1b[31m.png: has a name with control characters" in done.stderr
        assert "\x1b" not in done.stdout + done.stderr


# Pictures of all kinds.


def make_kind(kind: str, folder: Path) -> None:
    """One picture whose left half is red and whose right half is something else, 128 x 64 px once it is upright."""
    folder.mkdir()
    image = Image.new("RGB", (128, 64), "red")
    image.paste("blue", (64, 0, 128, 64))
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "a.jpg", exif=exif, quality=100, subsampling=0)
    elif kind == "cmyk":
        image.convert("CMYK").save(folder / "a.jpg", quality=100, subsampling=0)
    elif kind == "palette":
        image.quantize(4).save(folder / "a.png")
    elif kind == "animated":
        image.save(folder / "a.gif", save_all=True, append_images=[Image.new("RGB", (128, 64), "green")])
    elif kind in ("alpha", "greyscale alpha"):
        clear = Image.new("L", (128, 64), 255)
        clear.paste(0, (64, 0, 128, 64))
        image = image if kind == "alpha" else Image.new("L", (128, 64), 0)
        image.putalpha(clear)
        image.save(folder / "a.png")
    elif kind == "clear palette":
        flat = image.quantize(4)
        flat.save(folder / "a.png", transparency=flat.getpixel((127, 0)))
    else:
        grey = np.full((64, 128), 40000 if kind == "16 bits" else 150, np.uint16 if kind == "16 bits" else np.uint8)
        grey[:, :64] = 0
        Image.fromarray(grey).save(folder / "a.png")


@pytest.mark.parametrize(
    ("kind", "left", "right"),
    [
        ("turned", (255, 0, 0), (0, 0, 255)),
        ("cmyk", (255, 0, 0), (0, 0, 255)),
        ("palette", (255, 0, 0), (0, 0, 255)),
        ("animated", (255, 0, 0), (0, 0, 255)),
        ("alpha", (255, 0, 0), (32, 160, 255)),
        ("clear palette", (255, 0, 0), (32, 160, 255)),
        ("greyscale alpha", (0, 0, 0), (32, 160, 255)),
        ("16 bits", (0, 0, 0), (156, 156, 156)),
        ("greyscale", (0, 0, 0), (150, 150, 150)),
    ],
)
def test_pictures_of_all_kinds_become_rgb(
    kind: str, left: tuple[int, ...], right: tuple[int, ...], run: Prepare, tmp_path: Path
) -> None:
    make_kind(kind, tmp_path / "in")
    done = run("prepare in set --size 128x64 --trigger sks --background #20a0ff")
    assert done.status == 0, done.stderr
    assert ("has several frames; the first is taken" in done.stderr) == (kind == "animated")
    with Image.open(tmp_path / "set" / "10_in" / "a.png") as image:
        assert image.size == (128, 64)
        for x, expected in ((10, left), (117, right)):
            assert np.allclose(image.getpixel((x, 32)), expected, atol=3)


def test_transparent_parts_are_white_if_nothing_is_said(run: Prepare, tmp_path: Path) -> None:
    make_kind("alpha", tmp_path / "in")
    assert run("prepare in set --size 128x64 --trigger sks").status == 0
    with Image.open(tmp_path / "set" / "10_in" / "a.png") as image:
        assert image.getpixel((117, 32)) == (255, 255, 255)


def test_what_is_no_picture_is_left_out_and_told(run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_colours(tmp_path / "in", red="r")
    whole = ASTRONAUT.read_bytes()
    (tmp_path / "in" / "cut_off.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "garbage.jpg").write_bytes(b"garbage")
    (tmp_path / "in" / "outside.png").symlink_to(ASTRONAUT)
    Image.fromarray(np.ones((64, 64), np.float32)).save(tmp_path / "in" / "floats.tif")
    Image.new("RGB", (200, 200)).save(tmp_path / "in" / "large.png")
    monkeypatch.setattr("raylora.dataset.pixels.MOST_PIXELS", 200 * 200 - 1)
    done = run("prepare in set --size 64x64 --trigger sks")
    assert done.status == 0
    reasons = {one["source"]: one["reason"] for one in manifest_in(tmp_path / "set")["left_out"]}
    assert {*reasons} == {"cut_off.png", "garbage.jpg", "outside.png", "floats.tif", "large.png"}
    assert "is a link that leads out of the folder" in reasons["outside.png"]
    assert "fractions" in reasons["floats.tif"]
    assert "200x200 px are" in reasons["large.png"]
    assert str(tmp_path) not in json.dumps(reasons)
    assert all(f"{name}: {reason}; left out" in done.stderr for name, reason in reasons.items())
    assert "1 image in" in done.stdout
    assert "5 left out" in done.stdout


def test_a_picture_that_is_too_small_is_left_out_or_enlarged_on_demand(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="r")
    Image.new("RGB", (200, 128)).save(tmp_path / "in" / "large.png")
    (tmp_path / "in" / "large.txt").write_text("large")
    done = run("prepare in set --size 128x128")
    assert "red.png: is 64x64 px, smaller than 128x128 px; --upscale enlarges it; left out" in done.stderr
    assert [*captions_in(tmp_path / "set")] == ["large"]
    done = run("prepare in grown --size 128x128 --upscale")
    assert "red.png: is 64x64 px, enlarged for 128x128 px" in done.stderr
    with Image.open(tmp_path / "grown" / "10_in" / "red.png") as image:
        assert image.size == (128, 128)


def test_without_a_crop_pictures_are_whole_and_none_grows_unasked(run: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "in")
    Image.new("RGB", (100, 80)).save(tmp_path / "in" / "small.png")
    Image.new("RGB", (3000, 80)).save(tmp_path / "in" / "strip.png")
    done = run("prepare in set --crop none --size 256x256 --trigger sks")
    sizes = {one["source"]: one["size"] for one in manifest_in(tmp_path / "set")["images"]}
    assert sizes["small.png"] == [100, 80]
    assert sizes["cat.jpg"] == [313, 208]
    assert "small.png: is 100x80 px, fewer px than 256x256 px; kept so" in done.stderr
    assert "strip.png: is 3000x80 px: its short side comes to 41 px, and 64 are the fewest; left out" in done.stderr
    assert "dataset.buckets=true" in done.stdout
    run("prepare in grown --crop none --size 256x256 --trigger sks --upscale")
    grown = {one["source"]: one["size"] for one in manifest_in(tmp_path / "grown")["images"]}
    assert grown["small.png"] == [286, 228]


def test_sheets_show_every_picture_with_its_boxes(photos: Photos, run: Prepare, tmp_path: Path) -> None:
    make_photos(tmp_path / "in")
    for number in range(28):
        Image.new("RGB", (64, 64), "navy").save(tmp_path / "in" / f"plain_{number}.png")
    done = run("prepare in set --size 64x64 --trigger sks --crop center")
    pages = [tmp_path / "set" / "contact_sheet" / f"page_{number}.png" for number in (1, 2)]
    assert all(str(path) in done.stdout for path in pages)
    with Image.open(photos.set / "contact_sheet" / "page_1.png") as image:
        astronaut = image.convert("RGB").crop((0, 45, 252, 330))
    colours = {colour for _, colour in astronaut.getcolors(2**24) or ()}
    assert {(0, 0xD0, 0x60), (255, 0x30, 0x30)} <= colours
    with Image.open(pages[0]) as first, Image.open(pages[1]) as second:
        assert second.width == first.width
        assert second.height < first.height


# Captions.


@pytest.mark.parametrize(
    ("options", "red", "blue"),
    [
        ("", "old words, red background", ""),
        ("--caption tags --threshold 0.8", "old words, red background", "some name (series), blue background, >_<"),
        ("--caption tags --threshold 0.8 --existing replace", "some name (series), red background, >_<",
         "some name (series), blue background, >_<"),
        ("--caption tags --threshold 0.8 --existing extend", "old words, red background, some name (series), >_<",
         "some name (series), blue background, >_<"),
        ("--existing replace", "", ""),
        ("--caption tags --threshold 0.95 --character-threshold 1 --existing replace", "red background",
         "blue background"),
    ],
)  # fmt: skip
def test_captions_that_are_there_and_those_that_are_found(
    options: str, red: str, blue: str, run: Prepare, tmp_path: Path, models: Path
) -> None:
    make_colours(tmp_path / "in", red="old words, red background", blue="")
    model = f"--caption-model {models / 'tagger'}" if "tags" in options else ""
    done = run(f"prepare in set --size 64x64 --trigger sks {options} {model}")
    assert done.status == 0, done.stderr
    expected = {"red": f"sks, {red}", "blue": f"sks, {blue}"}
    assert captions_in(tmp_path / "set") == {name: f"{text.rstrip(', ')}\n" for name, text in expected.items()}


def test_sentences_are_written_by_blip(run: Prepare, tmp_path: Path, models: Path) -> None:
    make_colours(tmp_path / "in", **dict.fromkeys(COLOURS, ""))
    done = run(f"prepare in set --size 64x64 --caption blip --caption-model {models / 'blip'} --trigger sks")
    assert done.status == 0, done.stderr
    captions = captions_in(tmp_path / "set")
    assert len(captions) == len(COLOURS) > 8  # more than one batch
    images = manifest_in(tmp_path / "set")["images"]
    found = {Path(one["source"]).stem: one["caption_found"] for one in images}
    assert captions == {name: f"sks, {text}\n" if text else "sks\n" for name, text in found.items()}
    assert len({*captions.values()}) > 3
    assert manifest_in(tmp_path / "set")["captioner"]["captioner"] == "blip"


def test_captions_are_of_what_is_cut_and_not_of_what_is_cut_off(run: Prepare, tmp_path: Path, models: Path) -> None:
    (tmp_path / "in").mkdir()
    image = Image.new("RGB", (256, 64), "blue")
    image.paste("red", (96, 0, 160, 64))
    image.save(tmp_path / "in" / "a.png")
    run(f"prepare in set --size 64x64 --crop center --caption tags --caption-model {models / 'tagger'}")
    assert "red background" in captions_in(tmp_path / "set")["a"]
    assert "blue" not in captions_in(tmp_path / "set")["a"]


def test_tags_are_edited_by_name_list_and_pattern(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="1girl, blue_eyes, long hair, red hair, smile, hat", blue="1girl, hat")
    (tmp_path / "unwanted.txt").write_text("Blue Eyes\n/.* hair/\n")
    done = run("prepare in set --size 64x64 --trigger sks --remove @unwanted.txt --remove smile --add grass "
               "--replace 1girl=woman")  # fmt: skip
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "set") == {"red": "sks, woman, hat, grass\n", "blue": "sks, woman, hat, grass\n"}
    assert manifest_in(tmp_path / "set")["settings"]["remove"] == ["Blue Eyes", "/.* hair/", "smile"]


def test_tags_are_counted_and_fixed_traits_proposed(run: Prepare, tmp_path: Path) -> None:
    captions = {colour: f"1girl, blue eyes, {colour}" for colour in COLOURS[:5]}
    make_colours(tmp_path / "in", **captions)
    done = run("prepare in set --size 64x64 --trigger sks --add grass")
    with (tmp_path / "set" / "tags.csv").open() as file:
        rows = {row["tag"]: row for row in csv.DictReader(file)}
    assert rows["blue eyes"] == {"tag": "blue eyes", "images": "5", "share": "1.000", "proposal": "remove"}
    assert [rows[tag]["proposal"] for tag in ("sks", "grass", "red")] == ["", "", ""]
    assert "again with --force --remove 1girl --remove 'blue eyes'" in done.stdout
    done = run("prepare in set --size 64x64 --trigger sks --add grass --remove 1girl --remove 'blue eyes' --force")
    assert done.status == 0, done.stderr
    assert captions_in(tmp_path / "set")["red"] == "sks, red, grass\n"
    assert "--remove" not in done.stdout


def test_a_caption_that_comes_to_nothing_is_told(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat", blue="hat, grass")
    done = run("prepare in set --size 64x64 --remove hat")
    assert "1 caption is empty, such as red.png's" in done.stderr
    assert "2 captions are empty" in run("prepare in bare --size 64x64 --remove hat --remove grass").stderr


# What was written is looked at.


def test_the_data_set_check_looks_at_what_was_written(run: Prepare, tmp_path: Path) -> None:
    draw_set(tmp_path / "in", 16)
    put(tmp_path / "in", "again.png", drawn(3), "sks, again")
    done = run("prepare in set --size 128x128 --crop center")
    assert done.status == 0, done.stderr
    lines = done.stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("Check: "))
    assert lines[first] == "Check:         1 warning"
    assert lines[first + 1].startswith("  warning: 2 images are near-duplicates, in 1 group, ")
    assert lines[first + 2].startswith("Next: ")
    assert "--remove" not in done.stdout  # of sks, which begins all captions


def test_a_set_that_is_as_it_should_be_is_said_to_be(run: Prepare, tmp_path: Path) -> None:
    draw_set(tmp_path / "in", 16)
    assert "Check:         all is well" in run("prepare in set --size 128x128 --crop center").stdout


def test_of_many_findings_the_worst_are_told_and_where_the_rest_is(run: Prepare, tmp_path: Path) -> None:
    """Others' files are in the folder as well, and training would read them."""
    make_colours(tmp_path / "in", red="hat", blue="hat")
    (tmp_path / "set" / "2024_x").mkdir(parents=True)
    (tmp_path / "set" / "2024_x" / "bad.png").write_bytes(b"garbage")
    put(tmp_path / "set" / "2024_x", "good.png", drawn(1, (100, 200)))
    done = run("prepare in set --size 128x128 --trigger sks --upscale --force")
    assert done.status == 0, done.stderr
    lines = done.stdout.splitlines()
    first = lines.index("Check:         2 errors, 5 warnings")
    assert [line.split(":")[0] for line in lines[first + 1 : first + 5]] == ["  error"] * 2 + ["  warning"] * 2
    command = f"  the rest: raylora check {tmp_path / 'set'} --set dataset.resolution=128x128 --set dataset.trigger=sks"
    assert lines[first + 5] == command
    assert run(command.partition("raylora ")[2]).stdout.endswith("2 errors, 5 warnings, 1 note\n")


def test_a_folder_that_others_have_spoilt_is_told_after_the_work(run: Prepare, tmp_path: Path) -> None:
    make_colours(tmp_path / "in", red="hat")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "metadata.jsonl").write_text("{")
    done = run("prepare in set --size 64x64 --force")
    assert done.status == 0, done.stderr
    assert "Check:         1 error\n  error: " in done.stdout
    assert "metadata.jsonl, line 1: expected" in done.stdout


# For programs, and before anything is done.


def test_a_dry_run_tells_the_differences_and_writes_nothing(run: Prepare, tmp_path: Path, models: Path) -> None:
    make_photos(tmp_path / "in")
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "tiny.png")
    before = files_of(tmp_path, hidden=True)
    done = run("prepare in set --size 192x192 --trigger sks --remove 'green eyes' --caption tags "
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


def test_a_dry_run_tells_what_the_run_then_does(run: Prepare, tmp_path: Path, models: Path) -> None:
    make_photos(tmp_path / "in")
    line = f"prepare in set --size 64x64 --crop center --trigger sks --caption tags --caption-model {models / 'tagger'}"
    told, done = (json.loads(run(f"{line} --json {more}").stdout) for more in ("--dry-run", ""))
    assert told.pop("findings") is None
    assert [finding["check"] for finding in done.pop("findings")] == ["count"]
    assert (told.pop("written"), done.pop("written")) == (False, True)
    assert told.pop("contact_sheets") == []
    assert done.pop("contact_sheets") == [str(tmp_path / "set" / "contact_sheet" / "page_1.png")]
    assert told == done
    assert done["prepared"] == 4
    assert {key: done[key] for key in manifest_in(tmp_path / "set")} == manifest_in(tmp_path / "set")


def test_the_demos_pictures_can_be_prepared(run: Prepare, tmp_path: Path) -> None:
    done = run("prepare demo set --size 64x64 --crop center")
    assert done.status == 0, done.stderr
    assert len(captions_in(tmp_path / "set")) == 40
    assert (tmp_path / "set" / "10_sks").is_dir()
