"""What every kind of storage does: on a mounted disk, and on S3."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from raylora.errors import StorageError
from raylora.storage import Storage, scratch
from raylora.storage_access import filesystem
from tests.s3 import BUCKET, S3, SECRET
from tests.s3 import s3 as s3
from tests.s3 import s3_of_module as s3_of_module

LAST = ("state.pt",)


@pytest.fixture(params=["s3", "file"])
def storage(request: pytest.FixtureRequest, s3: S3, tmp_path: Path) -> Storage:
    place = f"s3://{BUCKET}/{uuid.uuid4().hex}" if request.param == "s3" else f"file://{tmp_path / 'mounted'}"
    return Storage(place)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    write(folder, {"trials/t0/samples/1.png": b"picture", "trials/t0/state.pt": b"state 1", "trials/t1/x": b""})
    return folder


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pushed_is_pulled_elsewhere(storage: Storage, here: Path, tmp_path: Path) -> None:
    write(here, {"trials/t0/.state.pt.7.beside": b"half", "trials/.lock": b"", "trials/t2/ü ñ%20#?+&.txt": b"odd"})
    assert len(storage.push(here, "trials")) == 4
    there = tmp_path / "there"
    assert len(storage.pull(there)) == 4
    kept = {name: content for name, content in read(here).items() if "/." not in name}
    assert read(there) == kept
    assert set(storage.files("trials/t0")) == {"trials/t0/samples/1.png", "trials/t0/state.pt"}
    assert storage.names() == ["trials"]
    assert storage.files("nothing") == {}
    assert Storage(f"{storage.uri}/nothing").names() == []
    with pytest.raises(StorageError, match="there is no such file or bucket"):
        Storage(f"{storage.uri}/nothing").names(may_miss=False)


def test_only_what_has_changed_travels(storage: Storage, here: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    storage.push(here)
    assert storage.push(here) == []
    assert len(storage.pull(there)) == 3
    assert storage.pull(there) == storage.pull(here) == storage.push(there) == []
    write(there, {"trials/t0/state.pt": b"state 2"})  # of the same size
    assert storage.push(there, "trials/t0") == ["trials/t0/state.pt"]
    if storage.uri.startswith("s3"):  # whose clock has whole seconds: a copy of the same second looks the same
        os.utime(here / "trials/t0/state.pt")
    assert storage.pull(here, "trials/t0") == ["trials/t0/state.pt"]
    assert read(here) == read(there)


def test_a_file_that_is_lost_or_cut_short_here_is_brought_again(storage: Storage, here: Path) -> None:
    storage.push(here)
    (here / "trials/t0/state.pt").unlink()
    (here / "trials/t0/samples/1.png").write_bytes(b"pic")
    assert sorted(storage.pull(here)) == ["trials/t0/samples/1.png", "trials/t0/state.pt"]
    assert read(here)["trials/t0/samples/1.png"] == b"picture"


def test_some_files_alone_and_exactly_those(storage: Storage, here: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    storage.push(here)
    write(there, {"trials/old": b"", ".kept": b""})
    storage.pull(there, wanted=lambda name: name.endswith(".png"), exactly=True)
    assert sorted(read(there)) == [".kept", "trials/t0/samples/1.png"]


def test_a_state_follows_what_it_speaks_of(storage: Storage, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write_there = Storage.write

    def slowly(self: Storage, name: str, content: bytes) -> None:
        time.sleep(0.1 if name.endswith(".png") else 0)
        write_there(self, name, content)
        written.append(Path(name).name)

    monkeypatch.setattr(Storage, "write", slowly)
    storage.push(here, last=LAST)
    assert sorted(written[:-1]) == ["1.png", "x"] and written[-1] == "state.pt"

    def break_off(self: Storage, name: str, content: bytes) -> None:
        raise StorageError(name) if name.endswith(".png") else AssertionError(name)

    monkeypatch.setattr(Storage, "write", break_off)
    write(here, {"trials/t0/samples/2.png": b"picture", "trials/t0/state.pt": b"state 2"})
    with pytest.raises(StorageError, match=r"2\.png"):
        storage.push(here, last=LAST)


def test_files_one_by_one(storage: Storage) -> None:
    assert not storage.has("marker")
    storage.write("marker", b"1")
    storage.write("marker", b"22")
    assert storage.has("marker") and storage.read("marker") == b"22"
    storage.delete("marker")
    storage.delete("marker")
    assert not storage.has("marker")
    with pytest.raises(StorageError, match=r"/marker: there is no such file or bucket"):
        storage.read("marker")


def test_the_check_leaves_nothing(storage: Storage, s3: S3, tmp_path: Path) -> None:
    before, there = s3.keys(), sorted(tmp_path.rglob("*"))
    storage.check()
    replace(storage, uri=f"{storage.uri}/new/deep").check()
    assert s3.keys() == before
    assert sorted(tmp_path.rglob("*")) == there


def test_a_storage_that_alters_what_it_is_given_is_told(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Storage, "read", lambda *_: b"something else")
    with pytest.raises(StorageError, match="gives back something else than was written"):
        storage.check()


def test_one_who_can_write_nowhere_is_told(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = "s3://no-such-bucket/x" if storage.uri.startswith("s3") else f"file://{tmp_path / 'file' / 'x'}"
    with pytest.raises(StorageError, match=r"there is no such bucket; make it|Not a directory|File exists"):
        Storage(nowhere).check()


def test_wrong_keys_are_told_and_never_shown(s3: S3) -> None:
    with s3.refusing():
        for ask in (Storage(f"s3://{BUCKET}/x").check, Storage(f"s3://{BUCKET}/x").files):
            with pytest.raises(StorageError, match="access key is not known there; give credentials") as raised:
                ask()
            assert SECRET not in str(raised.value)


@pytest.fixture
def gone(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A storage whose server is away."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://user:{SECRET}@127.0.0.1:1")
    return Storage(f"s3://{BUCKET}/x")


def test_a_server_that_is_away_is_told_at_once(gone: Storage) -> None:
    with pytest.raises(StorageError, match=r"nothing answers at 127\.0\.0\.1:1 \(AWS_ENDPOINT_URL_S3\)") as raised:
        gone.check()
    assert SECRET not in str(raised.value)


def test_patience_outlasts_a_server_that_comes_back(s3: S3, here: Path, tmp_path: Path) -> None:
    away = replace(s3, port=S3().port)
    storage = Storage(f"s3://{BUCKET}/{uuid.uuid4().hex}", patience_s=60)
    os.environ["AWS_ENDPOINT_URL"] = away.environment["AWS_ENDPOINT_URL"]  # the fixture puts it back
    back = threading.Event()

    def come_back() -> None:
        time.sleep(1)
        with away.served():
            back.wait()

    server = threading.Thread(target=come_back)
    server.start()
    try:
        assert len(storage.push(here)) == 3
        assert len(storage.pull(tmp_path / "there")) == 3
    finally:
        back.set()
        server.join()


def test_patience_has_an_end(gone: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("raylora.storage.time.sleep", pauses.append)
    now = iter(range(1000))
    monkeypatch.setattr("raylora.storage.time.monotonic", lambda: next(now))
    with pytest.raises(StorageError, match="nothing answers"):
        replace(gone, patience_s=10).has("x")
    assert pauses[:3] == [0.5, 1, 2] and len(pauses) < 10


def test_what_will_not_mend_itself_is_not_waited_for(s3: S3) -> None:
    with s3.refusing(), pytest.raises(StorageError, match="credentials"):
        Storage(f"s3://{BUCKET}/x", patience_s=10**6).check()
    with pytest.raises(StorageError, match="no such bucket"):
        Storage("s3://no-such-bucket/x", patience_s=10**6).write("a", b"")


@pytest.mark.parametrize("key", ["../evil", "a/../../evil", "a//b", "./a", "a/./b", "/etc/passwd", "n" * 201])
def test_objects_whose_names_leave_the_folder_are_refused(key: str, s3: S3, tmp_path: Path) -> None:
    prefix = uuid.uuid4().hex
    s3.put(f"{prefix}/good.png")
    s3.put(f"{prefix}/{key}", b"evil")
    with pytest.raises(StorageError, match="can't be a file below a folder; rename or remove it"):
        Storage(f"s3://{BUCKET}/{prefix}").pull(tmp_path / "a" / "b")
    assert list(tmp_path.rglob("*")) == []


def test_an_object_that_is_a_folder_too_is_refused(s3: S3, tmp_path: Path) -> None:
    prefix = uuid.uuid4().hex
    s3.put(f"{prefix}/a")
    s3.put(f"{prefix}/a/b")
    with pytest.raises(StorageError, match="a is an object, and others are below it"):
        Storage(f"s3://{BUCKET}/{prefix}").pull(tmp_path)


def test_connections_are_kept_and_follow_the_environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    first = filesystem("s3", BUCKET)
    assert filesystem("s3", BUCKET) is first
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody else")
    assert filesystem("s3", BUCKET) is not first


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path


def test_copies_are_kept_where_nobody_else_writes(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scratch().stat().st_mode & 0o777 == 0o700
    assert scratch().parent == temporary
    theirs: Callable[[], int] = lambda: os.stat(temporary).st_uid + 1  # noqa: E731, PTH116
    scratch().rename(temporary / f"raylora-{theirs()}")
    monkeypatch.setattr("os.getuid", theirs)
    with pytest.raises(StorageError, match="belongs to another user"):
        scratch()
