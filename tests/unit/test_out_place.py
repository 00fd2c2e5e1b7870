"""Where work may go, and what is no place."""

from __future__ import annotations

from pathlib import Path

import pytest

from raylora.errors import OutputError
from raylora.execution.outputs import OutFolder
from raylora.request import out_place


def test_a_place_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert out_place(Path("out/x")) == tmp_path / "out" / "x"
    assert out_place(Path("~/x")) == tmp_path / "home" / "x"
    assert out_place(Path("out 100%")) == tmp_path / "out 100%"


@pytest.mark.parametrize(
    "place", ["s3://bucket/out", "file:///tmp/out", "~nobody-at-all/out", "out\nbad", "out\udcff", "out\x1b[31m"]
)
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(OutputError, match=r"give (one|another folder)"):
        out_place(Path(place))


@pytest.mark.parametrize("below", ["", "out"])
def test_links_in_a_circle_lead_nowhere(tmp_path: Path, below: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="link that leads nowhere"):
        OutFolder(out_place(tmp_path / "loop" / below)).check_free(1)


def test_a_link_to_a_folder_that_is_not_there_yet_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("later")
    folder = OutFolder(out_place(tmp_path / "link"))
    folder.check_free(1)
    assert folder.root == tmp_path / "later"
