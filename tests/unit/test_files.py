"""Which files are read, and which paths are none."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from raylora.files import exists, is_file, is_folder, parse_json, read_mapping, read_ordinary, resolved, sha256_of

TOO_LONG = Path("a" * 5000)
NO_PATH = Path("a\0b")


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path / "loop"


def test_an_ordinary_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert read_ordinary(tmp_path / "file", 3) == b"abc"


def test_a_digest_is_of_all_bytes_or_of_those_from_a_place_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert sha256_of(tmp_path / "file", 299_998) == hashlib.sha256(b"bc").hexdigest()
    with pytest.raises(IsADirectoryError):
        sha256_of(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no ordinary file"):
        read_ordinary(tmp_path / "pipe", 10)


def test_a_device_has_no_end(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="no ordinary file"):
        read_ordinary(tmp_path / "link", 10)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcd")
    with pytest.raises(OSError, match="has 4 bytes, and 3 are the most"):
        read_ordinary(tmp_path / "file", 3)


def test_a_folder_and_what_is_no_path(tmp_path: Path, loop: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_ordinary(tmp_path, 10)
    for path in (TOO_LONG, NO_PATH, loop):
        with pytest.raises(OSError, match=r"."):
            read_ordinary(path, 10)
        assert not is_file(path)
        assert not is_folder(path)
        assert not exists(path)


def test_a_path_is_resolved_as_far_as_it_leads(tmp_path: Path, loop: Path) -> None:
    (tmp_path / "link").symlink_to("there")
    assert resolved(tmp_path / "link" / "x") == tmp_path / "there" / "x"
    assert resolved(loop / "x") == loop / "x"
    assert resolved(Path("~nobody-at-all/x")) == Path.cwd() / "~nobody-at-all/x"
    assert resolved(Path("~/x")) == Path.home() / "x"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "{'a': 1}"])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_a_list_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="holds a list"):
        read_mapping(tmp_path / "list.json")
