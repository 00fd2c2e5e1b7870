"""Datasets on object storage: brought here once, and told of by their objects' names."""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raylora.config import Experiment
from raylora.config_files import parse_assignments
from raylora.dataset.check import check_dataset
from raylora.dataset.folder import Picture, ReadOptions, dataset_digest, read_folder
from raylora.dataset.remote import copy_of, fetch, here, read_dataset
from raylora.errors import ConfigError, DatasetError
from raylora.execution.checked_job import absolute, checked_job
from raylora.execution.job import local_paths
from raylora.request import Request, read_request
from raylora.storage import Storage
from tests.bad_world import Run
from tests.s3 import BUCKET, S3, SECRET
from tests.s3 import s3 as s3
from tests.s3 import s3_of_module as s3_of_module


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has no copies yet."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def uri(s3: S3, pictures_folder: Path) -> str:
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    Storage(uri).push(pictures_folder)
    return uri


def fetched(s3: S3) -> Sequence[str]:
    return [asked for asked in s3.asked if asked.startswith("GET") and "list-type" not in asked]


def png_bytes(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "png")
    return file.getvalue()


def read(uri: str) -> list[Picture]:
    return read_dataset(uri, ReadOptions(fewest=1))


def test_the_same_pictures_as_in_a_folder(uri: str, pictures_folder: Path) -> None:
    ours, theirs = read_dataset(uri), read_folder(pictures_folder)
    assert [picture.path.relative_to(copy_of(uri)) for picture in ours] == [
        picture.path.relative_to(pictures_folder) for picture in theirs
    ]
    assert dataset_digest(ours) == dataset_digest(theirs)
    assert read_dataset(f"{uri}/") == ours


def test_only_what_has_changed_is_brought_again(uri: str, s3: S3) -> None:
    prefix = uri.rpartition("/")[2]
    pictures = read(uri)
    assert len(set(fetched(s3))) == 24
    s3.asked.clear()
    assert read(uri) == pictures
    assert fetched(s3) == []
    s3.put(f"{prefix}/10_sks/picture_03.txt", b"another caption")
    s3.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/10_sks/picture_05.png")
    again = read(uri)
    assert fetched(s3) == [f"GET /{BUCKET}/{prefix}/10_sks/picture_03.txt"]
    assert [picture.path.name for picture in again] == [
        picture.path.name for picture in pictures if picture.path.name != "picture_05.png"
    ]
    assert again[3].caption == "another caption"


def test_what_was_broken_off_goes_on(uri: str, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    bring, count = Storage._bring, iter(range(100))

    def broken(*arguments: object) -> None:
        if next(count) == 10:
            raise KeyboardInterrupt
        bring(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "_bring", broken)
        with pytest.raises(KeyboardInterrupt):
            fetch(uri)
    before = set(fetched(s3))
    s3.asked.clear()
    fetch(uri)
    assert 0 < len(before) < 24 and len(set(fetched(s3))) < 24
    assert len(before | set(fetched(s3))) == 24


def test_of_many_who_want_it_at_once_one_brings_it(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bring, brought = Storage._bring, list[str]()

    def counted(storage: Storage, folder: Path, name: str, there: Any) -> None:
        brought.append(name)
        bring(storage, folder, name, there)

    monkeypatch.setattr(Storage, "_bring", counted)
    with ThreadPool(8) as pool:
        assert len(set(pool.map(fetch, [uri] * 8))) == 1
    assert len(brought) == 24


def test_a_place_without_images_is_told(s3: S3) -> None:
    s3.put("reports/2026.pdf")
    with pytest.raises(DatasetError, match="reports: no images lie there; mend the name"):
        read(f"s3://{BUCKET}/reports")


def test_other_objects_are_left_there(uri: str, s3: S3) -> None:
    s3.put(f"{uri.rpartition('/')[2]}/backup.tar", b"0" * 1000)
    assert read(uri)
    assert not list(copy_of(uri).rglob("*.tar"))


def test_a_long_name_is_cut_to_what_any_file_system_takes(s3: S3, pictures_folder: Path) -> None:
    places = [f"s3://{BUCKET}/{'🐈' * 200}{number}" for number in range(2)]
    Storage(places[0]).push(pictures_folder)
    copy = copy_of(places[0])
    assert copy.name == "🐈" * 50 and copy != copy_of(places[1])
    assert read(places[0])[0].path.is_relative_to(copy)
    assert max(len(part.encode()) for part in copy.parts) <= 255
    assert list(copy.parent.iterdir()) == [copy]  # its lock, whose name is longer, lies elsewhere


def test_messages_name_objects_and_not_copies(uri: str, s3: S3) -> None:
    s3.put(f"{uri.rpartition('/')[2]}/10_sks/broken.png", b"no picture")
    with pytest.raises(DatasetError) as raised:
        read(uri)
    assert str(raised.value).startswith(f"{uri}/10_sks/broken.png: can't be read as an image")
    told: list[str] = []
    assert len(read_dataset(uri, ReadOptions(skip_bad_images=True), told.append)) == 12
    assert told[0].startswith(f"{uri}/10_sks/broken.png: can't be read") and str(copy_of(uri)) not in " ".join(told)


@pytest.mark.parametrize(
    "line", ["check {}", "tune good.yaml --dataset {} --out out --dry-run", "train good.yaml --dataset {} --out out"]
)
def test_commands_name_the_index_that_is_broken(line: str, run: Run, uri: str, s3: S3) -> None:
    s3.put(f"{uri.rpartition('/')[2]}/metadata.jsonl", b"no JSON")
    done = run(line.format(uri))
    assert (done.status, done.stderr.count("error: ")) == (2, 1)
    assert f"error: {uri}/metadata.jsonl, line 1: expected " in done.stderr


def test_what_can_not_be_split_is_told_by_its_address(run: Run, uri: str) -> None:
    done = run(f"tune good.yaml --dataset {uri} --out out --dry-run --set dataset.folds=10")
    assert done.status == 2 and f"error: {uri}/10_sks: 12 images are too few for 10 folds" in done.stderr


@pytest.mark.parametrize(
    "line",
    ["tune good.yaml --out out --dry-run", "evaluate lora.safetensors --base-model base --set evaluation.encoder=demo"],
)
def test_what_fits_no_bucket_is_told_by_its_object(line: str, run: Run, uri: str, s3: S3) -> None:
    s3.put(f"{uri.rpartition('/')[2]}/10_sks/low.png", png_bytes((100, 40)))
    done = run(f"{line} --dataset {uri} --set dataset.buckets=true")
    assert done.status == 2 and f"error: {uri}/10_sks/low.png: is 100x40 px" in done.stderr


def test_a_temporary_folder_behind_a_link(
    uri: str, s3: S3, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that an index names are found where links lead to."""
    (tmp_path / "link").symlink_to(temporary)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "link"))
    s3.put(f"{uri.rpartition('/')[2]}/metadata.jsonl", b'{"file_name": "10_sks/broken.png"}')
    s3.put(f"{uri.rpartition('/')[2]}/10_sks/broken.png", b"no picture")
    with pytest.raises(DatasetError, match=f"^{uri}/10_sks/broken.png: can't be read as an image"):
        read(uri)
    assert check_dataset(uri)[0].files == ("10_sks/broken.png",)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        (f"s3://{BUCKET}/nothing-here", "there is no such file or bucket; mend the name"),
        ("s3://no-such-bucket/photos", "there is no such bucket; make it, or mend the name"),
        (f"s3://{BUCKET}/a/../b", "must hold no empty part"),
        *((place, "must hold no empty part") for place in ("s3://..", "s3://./", f"s3://{BUCKET}/..", "file:///a/.")),
        (f"s3://key:{SECRET}@{BUCKET}/a", "must hold no credentials"),
        (f"s3://key:se/{SECRET}@{BUCKET}/a", "must hold no credentials"),
        (f"s3://{BUCKET}/a?secret_key={SECRET}", "must hold no credentials"),
        ("s3://", "must name a bucket"),
        ("file://photos", "must be an absolute path"),
        ("file:///", "must be an absolute path|must name a bucket"),
    ],
)
def test_bad_places_are_told(reference: str, told: str, s3: S3) -> None:
    with pytest.raises(DatasetError, match=told) as raised:
        read(reference)
    assert SECRET not in str(raised.value)
    if "nothing-here" in reference or "no-such" in reference:
        return
    for path in ("dataset.path", "dataset.regularization", "search.storage"):
        with pytest.raises(ConfigError, match=f"--set: {path}: {told}") as refused:
            read_request(Request(None, {}, [f"{path}={reference}"]))
        assert SECRET not in str(refused.value)


def test_other_schemes_are_no_paths() -> None:
    assert parse_assignments(["dataset.path=http://host/photos"])
    with pytest.raises(ConfigError, match=r"dataset\.path: must begin with s3://, gs://, file://"):
        read_request(Request(None, {}, ["dataset.path=http://host/photos"]))


def test_objects_that_would_leave_the_folder_are_refused(uri: str, s3: S3, temporary: Path) -> None:
    s3.put(f"{uri.rpartition('/')[2]}/../../evil.png", b"evil")
    s3.put(f"{uri.rpartition('/')[2]}/10_sks/../../../evil.png", b"evil")
    with pytest.raises(DatasetError, match="can't be a file below a folder"):
        read(uri)
    assert not list(temporary.parent.rglob("evil.png"))


def test_a_disk_without_room_is_told_before_anything_is_brought(
    uri: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 10}))
    with pytest.raises(DatasetError, match=r"its images take 0\.0 GiB, and \S+/datasets has 0\.0 .*set TMPDIR"):
        read(uri)
    assert fetched(s3) == []


def test_a_job_keeps_the_uri(uri: str, tiny_experiment: Experiment, pictures_folder: Path) -> None:
    remote = tiny_experiment.with_params({"dataset.path": f"{uri}/", "dataset.regularization": uri})
    kept = absolute(remote)
    assert (kept.dataset.path, kept.dataset.regularization) == (uri, uri)
    assert [path.name for path in local_paths(kept)] == ["base"]
    job = checked_job(remote.with_params({"dataset.regularization": None}), None, None, print)
    assert len(job.pictures) == 12
    local = checked_job(tiny_experiment, None, None, print)
    assert [split.holdout[0].digest for split in job.splits] == [split.holdout[0].digest for split in local.splits]


def test_another_machine_finds_its_own_copy(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = read(uri)[0].path
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(other))
    fetch(uri)
    found = here(there, (None, uri))
    assert found.is_relative_to(other) and found.read_bytes() == there.read_bytes()
    assert here(there, ("/photos", None)) == there


def test_the_command_line_takes_it_and_tells_what_is_wrong(run: Run, uri: str) -> None:
    done = run(f"tune good.yaml --dataset {uri} --out out --dry-run")
    assert (done.status, "Images" in done.stderr) == (0, True), done.stderr
    wrong = run(f"tune good.yaml --dataset s3://{BUCKET}/nothing-here --out out --dry-run")
    assert wrong.status == 2
    assert f"error: s3://{BUCKET}/nothing-here: there is no such file or bucket" in wrong.stderr


def test_findings_name_the_folder_that_was_given(uri: str, pictures_folder: Path) -> None:
    leaked = next(one for one in check_dataset(str(pictures_folder), against=[uri]) if one.check == "leakage")
    assert leaked.groups[0][1] == f"{uri.rpartition('/')[2]}/{leaked.groups[0][0]}"
