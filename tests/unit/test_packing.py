"""What a command line names of this machine's files, what of it is sent to a cluster, and what is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raylora.errors import ConfigError, OutputError
from raylora.execution import packing
from raylora.execution.inputs import inputs_of, keep_inputs, on_this_cluster
from raylora.execution.packing import MARK, Named, files_of, named_by, pack


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory with something of everything."""
    folder = tmp_path / "here"
    for name in (
        "photos/10_sks/1.png", "photos/10_sks/1.txt", "photos/.cache/x", "photos/10_sks/__pycache__/x.pyc",
        "faces/__init__.py", "faces/encoder.py", "spaces.py", "helper.py", "lora.safetensors", "notes.txt",
        "regularization/a.png", ".env",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "experiment.yaml").write_text(yaml.safe_dump({"dataset": {"regularization": "regularization"}}))
    (folder / "space.yaml").write_text(
        yaml.safe_dump({"experiment": {"evaluation": {"encoder": "faces.encoder:Face"}}})
    )
    (folder / "function.yaml").write_text(yaml.safe_dump({"function": "spaces:rates"}))
    return folder


PHOTOS = ["photos/10_sks/1.png", "photos/10_sks/1.txt"]
FACES = ["faces/__init__.py", "faces/encoder.py"]
MODULES = ["helper.py", "spaces.py"]


def sent(here: Path, params: Mapping[str, Any]) -> list[str]:
    return [str(file) for file in files_of(named_by(params, here), here)]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"dataset": "photos"}, PHOTOS),
        ({"dataset": "photos/"}, PHOTOS),
        ({"lora": "lora.safetensors", "dataset": "demo"}, ["lora.safetensors"]),
        ({"experiment_file": Path("experiment.yaml")}, ["experiment.yaml", "regularization/a.png"]),
        ({"space": "space.yaml"}, [*FACES, "space.yaml"]),
        ({"space": "function.yaml"}, ["function.yaml", *MODULES]),
        ({"space": "spaces:rates"}, MODULES),
        ({"space": "installed.elsewhere:rates"}, []),
        ({"space": "realistic", "dataset": "/shared/photos", "base_model": "~/sd15"}, []),
        ({"base_model": "stable-diffusion-v1-5/stable-diffusion-v1-5", "dataset": "s3://bucket/photos"}, []),
        ({"settings": ["evaluation.encoder=faces.encoder:Face", "lora.rank=8"]}, FACES),
        ({"settings": ["dataset.path=photos", "optimizer.name=helper:Own"]}, [*MODULES, *PHOTOS]),
    ],
)
def test_what_is_named_by_a_relative_path_is_sent_and_nothing_else(
    params: dict[str, Any], expected: list[str], here: Path
) -> None:
    assert sent(here, params) == sorted(expected)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"dataset": "phots"}, "--dataset phots: is not in .*--working-dir.*absolute path"),
        ({"experiment_file": "missing.yaml"}, "missing.yaml: there is no such file"),
        ({"base_model": "gone.safetensors"}, "--base-model gone.safetensors: is not in"),
        ({"settings": ["dataset.regularization=gone"]}, "dataset.regularization gone: is not in"),
        ({"dataset": "../outside"}, "--dataset ../outside: lies outside .*--working-dir"),
    ],
)
def test_what_is_not_here_is_told(params: dict[str, Any], reason: str, here: Path) -> None:
    (here.parent / "outside").mkdir()
    with pytest.raises(ConfigError, match=reason):
        sent(here, params)


def test_the_same_files_make_the_same_package(here: Path, tmp_path: Path) -> None:
    files = [Path(name) for name in PHOTOS]
    packages = [tmp_path / "1.zip", tmp_path / "2.zip"]
    for package in packages:
        pack(files, here, package)
        (here / PHOTOS[0]).touch()
    assert packages[0].read_bytes() == packages[1].read_bytes()
    with zipfile.ZipFile(packages[0]) as package:
        assert package.namelist() == [MARK, *PHOTOS]
        assert package.read(PHOTOS[0]).decode() == PHOTOS[0]


def test_too_much_is_refused_and_the_largest_named(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_BYTES", 2**20)
    (here / "base.safetensors").write_bytes(bytes(2**20))
    with pytest.raises(ConfigError, match=r"3 files.*the largest base.safetensors; Ray takes 1 MiB: .*shares"):
        pack([*map(Path, PHOTOS), Path("base.safetensors")], here, tmp_path / "package.zip")
    assert not (tmp_path / "package.zip").exists()


def test_a_name_that_raylora_knows_is_no_file(here: Path) -> None:
    (here / "demo").mkdir()
    assert Named("--dataset", "demo").is_of_the_cluster
    assert not Named("--dataset", "realistic").is_of_the_cluster
    assert sent(here, {"dataset": "demo", "space": "demo"}) == []


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A job's working directory on the cluster."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / MARK).touch()
    (folder / "1.png").write_text("new")
    return folder


def test_what_a_job_brings_along_is_kept_beside_its_output(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared" / "out"
    kept = keep_inputs(package, out)
    assert kept == inputs_of(out) == tmp_path / "shared" / "out.inputs"
    (kept / "stale.png").touch()  # of a start that came to nothing
    keep_inputs(package, out)
    assert sorted(file.name for file in kept.iterdir()) == [MARK, "1.png"]


def test_inputs_of_what_has_begun_stay_as_they_are(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    keep_inputs(package, out)
    out.mkdir()
    (out / "state.json").write_text("{}")
    (package / "1.png").write_text("other")
    assert (keep_inputs(package, out) / "1.png").read_text() == "new"


def test_a_job_without_a_package_runs_where_it_is(tmp_path: Path) -> None:
    assert keep_inputs(tmp_path, tmp_path / "out") == tmp_path
    assert not inputs_of(tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_not_touched(package: Path, tmp_path: Path) -> None:
    inputs_of(tmp_path / "out").mkdir()
    (inputs_of(tmp_path / "out") / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"out.inputs: is in the way"):
        keep_inputs(package, tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "state", "expected"),
    [
        (["resume", "OUT"], '{"state": "finished"}', ["resume", "OUT", "--address", "auto"]),
        (["resume", "OUT", "--address=local"], "{}", ["resume", "OUT", "--address=local"]),
        (["resume", "OUT"], '{"state": "finished", "holds_out": false}', ["resume", "OUT"]),
        (["train", "--out", "OUT"], "{}", ["train", "--out", "OUT"]),
    ],
)
def test_a_search_goes_on_on_the_cluster_and_a_training_needs_none(
    words: list[str], state: str, expected: list[str], tmp_path: Path
) -> None:
    (tmp_path / "state.json").write_text(state)
    assert on_this_cluster(words, tmp_path) == expected
