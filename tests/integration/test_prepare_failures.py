"""What fails while a folder is prepared loses nothing, and says how to go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raylora.errors import OutputError
from raylora.preparation import preparing
from raylora.preparation.job import plan_job
from raylora.preparation.settings import build_settings
from raylora.preparation.work_folder import WorkFolder
from tests.preparing import (
    CENTERED,
    Prepare,
    captions_in,
    files_of,
    make_colours,
    make_squares,
)


@pytest.fixture
def run(run_here: Prepare, tmp_path: Path, tagger: Path) -> Prepare:
    shutil.copytree(tagger, tmp_path / "tagger")
    return run_here


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage")


@pytest.mark.parametrize(
    ("spoil", "options", "told"),
    [
        (lambda root: garbage(root / "tagger" / "model.onnx"), "", "model.onnx can't be loaded"),
        (lambda root: (root / "tagger" / "selected_tags.csv").write_text("name,category\na,0\n"), "", "has 1 tags"),
        (lambda root: [garbage(path) for path in (root / "in").iterdir()], "", "none of its images can be used"),
        (lambda root: (root / "in" / "00.txt").write_text("a" * 40), "--remove '/(a+)+b/'", "takes over 1 s"),
    ],
)
def test_what_can_not_be_done_leaves_an_earlier_preparation_as_it_was(
    spoil: Callable[[Path], object], options: str, told: str, run: Prepare, tmp_path: Path
) -> None:
    make_squares(tmp_path / "in", 2)
    assert run(f"prepare in set {CENTERED}").status == 0
    before = files_of(tmp_path / "set", hidden=True)
    spoil(tmp_path)
    done = run(f"prepare in set {CENTERED} --existing extend --force {options}")
    assert done.status == 2
    assert told in done.stderr
    assert files_of(tmp_path / "set", hidden=True) == before


SLOW = r"--remove '/((.+)+)+!/'"
"""A pattern that takes for ever for the tagger's `some name (series)`."""


@pytest.mark.parametrize("forgets", [False, True])
def test_a_pattern_that_is_slow_for_a_captioners_words_loses_nothing(
    forgets: bool, run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raylora.preparation.tags.MOST_MATCH_S", 0.05)
    make_squares(tmp_path / "in", 2)
    assert run(f"prepare in set {CENTERED}").status == 0
    if forgets:
        shutil.rmtree(tmp_path / "set" / ".prepare" / "captions")
    before = files_of(tmp_path / "set", hidden=True)
    done = run(f"prepare in set {CENTERED} {SLOW} --force")
    assert done.status == 2
    assert "takes over 0.05 s to tell whether it fits 'some name (series)'" in done.stderr
    assert files_of(tmp_path / "set", hidden=True) == before


def test_a_pattern_that_is_slow_for_later_words_alone_says_how_to_go_on(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raylora.preparation.tags.MOST_MATCH_S", 0.05)
    make_colours(tmp_path / "in", lime="", red="")  # the first is the one that is tried
    slow = "--remove '/red (((([a-z]+)+)+)+)+!/'"
    done = run(f"prepare in set {CENTERED} {slow}")
    assert done.status == 1
    assert "whether it fits 'red background'" in done.stderr
    assert "then go on with --force: cuts and captions that are made stay" in done.stderr
    assert run(f"prepare in set {CENTERED} {slow} --dry-run").status == 2
    monkeypatch.setattr(preparing, "plan_cut", None)
    assert run(f"prepare in set {CENTERED} --remove '/red .*/' --force").status == 0
    assert "red" not in captions_in(tmp_path / "set")["red"]


def test_who_came_first_is_seen_under_the_lock_too(run: Prepare, tmp_path: Path) -> None:
    """Two begin at once, and both find the folder empty before the first has locked it."""
    make_squares(tmp_path / "in", 1)
    work, job = (
        WorkFolder(tmp_path / "set"),
        plan_job(str(tmp_path / "in"), build_settings({"sizes": ["64x64"], "trigger": "a"})),
    )
    claim = job.claim(force=False)
    work.check(claim)
    assert run("prepare in set --size 64x64 --trigger sks").status == 0
    before = files_of(tmp_path / "set", hidden=True)
    with pytest.raises(OutputError, match="holds prepared images"), work.claimed(claim):
        pytest.fail("it was claimed")
    assert files_of(tmp_path / "set", hidden=True) == before


def test_a_claim_on_a_folder_that_is_not_begun_leaves_nothing(run: Prepare, tmp_path: Path) -> None:
    make_squares(tmp_path / "in", 1)
    job = plan_job(str(tmp_path / "in"), build_settings({"sizes": ["64x64"], "trigger": "a"}))
    with WorkFolder(tmp_path / "deep" / "set").claimed(job.claim(force=False)):
        assert (tmp_path / "deep" / "set").is_dir()
    assert not (tmp_path / "deep").exists()
