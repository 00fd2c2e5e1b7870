"""The dataset check as a whole: nothing in a sound set, the worst first, and files that can't be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ImageFilter

from raylora.config import Experiment
from raylora.dataset.check import check_dataset, check_training
from raylora.dataset.findings import counted
from raylora.dataset.folder import ReadOptions, read_folder
from raylora.errors import DatasetError
from tests.dataset_checks import look, only
from tests.drawn import draw_set, drawn, put


def test_nothing_is_found_in_a_set_as_it_should_be(drawn_set: Path) -> None:
    assert look(drawn_set) == []
    assert counted([]) == "all is well"


def test_nor_in_kohyas_layout_with_buckets_and_a_regularization_set(tmp_path: Path) -> None:
    draw_set(tmp_path / "set" / "3_sks", 16, (128, 192))
    draw_set(tmp_path / "others", 10, seed=100)
    found = look(tmp_path / "set", buckets=True, regularization=str(tmp_path / "others"), max_area_px=128 * 192)
    assert found == []


def test_pictures_that_cannot_be_read_are_findings_and_stop_nothing(drawn_set: Path) -> None:
    for name in ("drawn_03.png", "drawn_05.png"):
        (drawn_set / name).write_bytes(b"no picture")
    put(drawn_set, "copy.png", drawn(1), "sks, a copy")
    first, few, second = look(drawn_set)
    assert (first.level, first.check, first.files) == ("error", "readable", ("drawn_03.png", "drawn_05.png"))
    assert str(drawn_set) not in first.found
    assert (few.check, second.check) == ("count", "near-duplicates")


def test_a_caption_that_cannot_be_read_is_one_too(drawn_set: Path) -> None:
    (drawn_set / "drawn_03.txt").write_bytes("h\xe9llo".encode("latin-1"))
    (drawn_set / "drawn_05.txt").write_bytes("h\xe9llo".encode("latin-1"))
    unreadable = only(look(drawn_set), "captions")
    assert (unreadable.level, unreadable.found) == ("error", "each of 2 captions is not UTF-8 text")
    assert (unreadable.files, unreadable.mend) == (("drawn_03.txt", "drawn_05.txt"), "save it as UTF-8")


def test_files_that_are_cut_off_here_and_there_are_one_finding(drawn_set: Path) -> None:
    for number, share in ((3, 0.9), (5, 0.6)):
        path = drawn_set / f"drawn_{number:02d}.png"
        drawn(number).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
        content = path.with_suffix(".jpg").read_bytes()
        path.with_suffix(".jpg").write_bytes(content[: int(len(content) * share)])
    first, few = look(drawn_set)
    assert few.check == "count"
    assert first.files == ("drawn_03.jpg", "drawn_05.jpg") and "truncated (… bytes" in first.found


def test_pictures_that_are_to_be_skipped_are_no_error(drawn_set: Path) -> None:
    (drawn_set / "drawn_03.png").write_bytes(b"no picture")
    put(drawn_set, "another.png", drawn(60), "sks, another")
    found = only(look(drawn_set, skip_bad_images=True), "readable")
    assert (found.level, found.effect) == ("warning", "they are left out")


def test_images_that_lie_elsewhere_are_named(tmp_path: Path) -> None:
    draw_set(tmp_path / "photos", 9)
    assert "9 in photos/: give that folder" in only(look(tmp_path), "count").mend


def test_a_year_that_is_read_as_repeats(tmp_path: Path) -> None:
    for name, seed in (("2024_summer", 0), ("900_winter", 50), ("500_sks", 100)):
        draw_set(tmp_path / "set" / name, 6, seed=seed)
    found = only(look(tmp_path / "set"), "repeats")
    assert found.level == "warning"
    assert found.found == "2024_summer/ asks by its name for 2,024 repeats, and 1 more folder for over 500"
    assert "rename it as to 10_2024_summer" in found.mend
    assert len(found.files) == 12
    experiment = Experiment().with_params({"dataset.resolution": 128, "training.repeats": 10})
    assert check_dataset(str(tmp_path / "set"), experiment) == []


@pytest.mark.parametrize("trigger", [None, "sks"])
def test_what_a_training_has_read_is_judged_alike(trigger: str | None, tmp_path: Path) -> None:
    """Missing captions are told by whoever reads; what stands in for them is no caption that all share."""
    folder = draw_set(tmp_path / "set" / "2_person")
    for file in list(folder.glob("*.txt"))[:12]:
        file.unlink()
    put(folder, "soft.png", drawn(50).filter(ImageFilter.GaussianBlur(3)), "sks, soft")
    config = Experiment().with_params({"dataset.resolution": 128, "dataset.trigger": trigger}).dataset
    options = ReadOptions(trigger=trigger, measured_for=config)
    pictures, root = read_folder(tmp_path / "set", options), tmp_path / "set"
    assert only(check_training(pictures, [], [], (root, root), config), "sharpness").level == "warning"


def test_the_worst_comes_first(tmp_path: Path) -> None:
    draw_set(tmp_path, 15)
    (tmp_path / "drawn_03.png").write_bytes(b"no picture")
    put(tmp_path, "soft.png", drawn(50).filter(ImageFilter.GaussianBlur(3)), "a soft one")
    found = look(tmp_path, trigger="sks")
    assert [finding.level for finding in found] == ["error", "warning", "warning", "note"]
    assert counted(found) == "1 error, 2 warnings, 1 note"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no such folder; give a folder of images"):
        look(tmp_path / "nowhere")


def test_findings_for_programs_have_all_files(drawn_set: Path) -> None:
    for number in range(5):
        (drawn_set / f"drawn_{number:02d}.txt").unlink()
    (found,) = look(drawn_set)
    assert found.named == "drawn_00.png, drawn_01.png, drawn_02.png and 2 more"
    assert found.as_dict()["count"] == len(found.as_dict()["files"]) == 5
