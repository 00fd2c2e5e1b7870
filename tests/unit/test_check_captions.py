"""What is found in captions: missing, all the same, without the trigger word."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dataset_checks import look, only
from tests.drawn import draw_set


def test_captions_that_are_missing(drawn_set: Path) -> None:
    for number in range(3):
        (drawn_set / f"drawn_{number:02d}.txt").unlink()
    missing = only(look(drawn_set), "captions")
    assert (missing.level, len(missing.files)) == ("error", 3)
    served = only(look(drawn_set, trigger="sks"), "captions")
    assert served.level == "warning" and "“sks” serves for each" in served.effect


def test_class_words_serve_for_captions(tmp_path: Path) -> None:
    folder = draw_set(tmp_path / "set" / "2_sks person")
    for file in folder.glob("*.txt"):
        file.unlink()
    found = only(look(tmp_path / "set"), "captions")
    assert (found.level, len(found.files)) == ("warning", 16)
    assert "“sks person” serves for each" in found.effect


def test_captions_that_are_all_the_same(drawn_set: Path) -> None:
    for number in range(10):
        (drawn_set / f"drawn_{number:02d}.txt").write_text("sks person\n")
    found = only(look(drawn_set), "captions")
    assert found.found == "10 of 16 captions are all “sks person”" and len(found.files) == 10


@pytest.mark.parametrize("trigger", [None, "sks"])
def test_a_trigger_that_some_captions_lack(trigger: str | None, drawn_set: Path) -> None:
    (drawn_set / "drawn_03.txt").write_text("a sksophone")
    found = only(look(drawn_set, trigger=trigger), "trigger")
    assert found.found == "1 of 16 captions lack “sks”" and found.files == ("drawn_03.png",)
    assert found.level == ("note" if trigger else "warning")


def test_a_trigger_is_told_in_its_commonest_spelling(drawn_set: Path) -> None:
    for number, file in enumerate(sorted(drawn_set.glob("*.txt"))):
        file.write_text(f"{'Alice' if number < 14 else 'a woman'}, number {number}")
    found = only(look(drawn_set), "trigger")
    assert found.found == "2 of 16 captions lack “Alice”" and "dataset.trigger=Alice" in found.mend


def test_no_word_that_all_captions_begin_with(drawn_set: Path) -> None:
    for number, file in enumerate(sorted(drawn_set.glob("*.txt"))):
        file.write_text(f"a picture of number {number}")
    found = only(look(drawn_set), "trigger")
    assert found.level == "note" and "dataset.trigger=sks" in found.mend


@pytest.mark.parametrize(
    ("words", "told"), [("Alice, ", []), ("photo of sks, ", ["trigger"]), ("1girl, ", ["trigger"])]
)
def test_what_all_captions_begin_with(words: str, told: list[str], drawn_set: Path) -> None:
    """A name, or what captioners begin with, which is no trigger word: then a note says that there is none."""
    for number, file in enumerate(sorted(drawn_set.glob("*.txt"))):
        file.write_text(f"{words if number else words.lower()}number {number}")
    found = look(drawn_set)
    assert [(finding.level, finding.check) for finding in found] == [("note", check) for check in told]
