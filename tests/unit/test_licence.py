"""The licence of a base model, as its own files have it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from raylora.bundled import DEMO_NAME
from raylora.diffusion.licence import Licence, licence_of

FRONT = "---\n{}\n---\n# A model\n"


@pytest.fixture
def folder(tiny_base_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base_folder, tmp_path / "base"))


@pytest.mark.parametrize(
    ("front", "wanted"),
    [
        ("license: creativeml-openrail-m", Licence("creativeml-openrail-m")),
        ("license: other\nlicense_name: faipl-1.0-sd\nlicense_link: https://x/l", Licence("faipl-1.0-sd", "https://x/l")),
        ("license: other", Licence("other")),
        ("license: [mit, apache-2.0]", Licence("mit")),
        ("license: {a: b}", Licence()),
        ("tags: [x]", Licence()),
        ("a: [", Licence()),
        ("- license", Licence()),
    ],
)  # fmt: skip
def test_a_folders_card_tells_it(folder: Path, front: str, wanted: Licence) -> None:
    (folder / "README.md").write_text(FRONT.format(front))
    assert licence_of(str(folder), "sd15") == wanted


def test_without_a_card_the_index_may_tell_it(folder: Path) -> None:
    assert licence_of(str(folder), "sd15") == Licence()
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "license": "mit"}))
    assert licence_of(str(folder), "sd15") == Licence("mit")
    (folder / "README.md").write_text("# no front matter\nlicense: bsd\n")
    assert licence_of(str(folder), "sd15") == Licence("mit")


@pytest.mark.parametrize(
    ("metadata", "name"), [({"modelspec.license": "CreativeML Open RAIL-M"}, "CreativeML Open RAIL-M"), (None, "")]
)
def test_a_single_file_tells_it_in_its_metadata(tmp_path: Path, metadata: dict[str, str] | None, name: str) -> None:
    weight = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3)}
    save_file(weight, tmp_path / "m.safetensors", metadata)
    assert licence_of(str(tmp_path / "m.safetensors"), "sd15") == Licence(name)


def test_a_model_of_the_hub_has_its_card_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, and without the hub, nothing is known, and nothing is lost."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert licence_of("some/model", "sd15") == Licence()
    commit = "0" * 40
    below = tmp_path / "models--some--model"
    for file, content in (
        (below / "refs" / "main", commit),
        (below / "snapshots" / commit / "README.md", FRONT.format("license: openrail++")),
    ):
        file.parent.mkdir(parents=True)
        file.write_text(content)
    assert licence_of("some/model", "sd15") == Licence("openrail++")


def test_the_demo_names_its_own() -> None:
    assert licence_of(DEMO_NAME, "sd15").name == "several-designers"
