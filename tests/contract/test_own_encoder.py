"""A user's own encoder: what is taken for one, and that one that breaks the contract is told of before it is used."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from raylora.errors import ModelError
from raylora.evaluation.encoders import check_encoder, check_encoder_on_hub, load_encoder
from raylora.own_code import is_own_name

MODULE = """
import numpy as np
import torch
from torch.nn.functional import normalize


def function(device): ...


class Blind:
    ...


class Good:
    def __init__(self, device):
        self.device = device

    def images(self, pixels):
        means = np.array([picture.reshape(-1, 3).mean(axis=0) for picture in pixels])
        return normalize(torch.tensor(means) + torch.nn.Parameter(torch.ones(1)), dim=-1)

    def texts(self, prompts):
        return normalize(torch.ones(len(prompts), 3), dim=-1)


class NoDevice(Good):
    def __init__(self): ...


class Unready(Good):
    def __init__(self, device):
        raise RuntimeError("its weights are not there")


class Failing(Good):
    def images(self, pixels):
        return pixels[0] / None


def giving(answer):
    class Wrong(Good):
        def images(self, pixels):
            return answer(super().images(pixels))

    return Wrong


AList = giving(lambda vectors: vectors.tolist())
OneForAll = giving(lambda vectors: vectors[0])
OneLess = giving(lambda vectors: vectors[1:])
Empty = giving(lambda vectors: vectors[:, :0])
Whole = giving(lambda vectors: vectors.int())
NotFinite = giving(lambda vectors: vectors / 0)
Long = giving(lambda vectors: vectors * 2)


class LongTexts(Good):
    def texts(self, prompts):
        return 2 * super().texts(prompts)
"""
NOT_IMPORTED = {
    "nowhere.at_all:Faces": r"can't be imported \(No module named 'nowhere'\).*package.module:Class",
    "own_faces:Missing": r"can't be imported \(module 'own_faces' has no attribute 'Missing'\)",
    "broken_faces:Faces": r"can't be imported \(division by zero\)",
    "own_faces:function": "is no class with a method `images`",
    "own_faces:Blind": "is no class with a method `images`",
}
WRONG = {
    "own_faces:NoDevice": r"fails on cpu, called as `Class\(device\)`.*TypeError.*mend the class",
    "own_faces:Unready": "fails on cpu.*RuntimeError: its weights are not there.*mend the class",
    "own_faces:Failing": "fails on cpu.*TypeError: unsupported operand.*mend the class",
    "own_faces:AList": r"images\(\) gives a list for 2 inputs; let it give a float tensor \(2, width\)",
    "own_faces:OneForAll": r"images\(\) gives a tensor of shape \(3,\) for 2 inputs",
    "own_faces:OneLess": r"images\(\) gives a tensor of shape \(1, 3\) for 2 inputs",
    "own_faces:Empty": r"images\(\) gives a tensor of shape \(2, 0\) for 2 inputs",
    "own_faces:Whole": r"images\(\) gives a tensor of torch.int32 for 2 inputs",
    "own_faces:NotFinite": r"images\(\) gives numbers that aren't finite for 2 inputs",
    "own_faces:Long": r"images\(\) gives vectors of lengths 2.000 to 2.000 for 2 inputs; .* of length 1",
    "own_faces:LongTexts": r"texts\(\) gives vectors of lengths 2.000 to 2.000 for 2 inputs",
}


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with the user's modules, as the installed `raylora` finds it: not on the path yet."""
    (tmp_path / "own_faces.py").write_text(MODULE)
    (tmp_path / "broken_faces.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "own_faces", raising=False)


def test_an_own_encoder_is_found_in_the_working_directory_and_called_with_the_device() -> None:
    check_encoder_on_hub("own_faces:Good")
    encoder = load_encoder("own_faces:Good", "cpu")
    vectors = encoder.images([np.full((8, 8, 3), 9, np.uint8)])
    assert vectors.shape == (1, 3)
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    texts = encoder.texts(["red hair"])
    assert texts is not None
    assert texts.shape == (1, 3)
    with pytest.raises(ModelError, match="fails on nonsense") as caught:
        load_encoder("own_faces:Unready", "nonsense")
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(("reference", "message"), NOT_IMPORTED.items())
def test_what_is_no_encoder_class_is_refused_by_every_check(reference: str, message: str) -> None:
    for look in (check_encoder, check_encoder_on_hub, load_encoder):
        with pytest.raises(ModelError, match=f"evaluation.encoder {reference}: {message}"):
            look(reference)


@pytest.mark.parametrize(("reference", "message"), WRONG.items())
def test_a_class_that_breaks_the_contract_is_refused_before_it_is_used(reference: str, message: str) -> None:
    check_encoder(reference)  # makes no object: a class may take long to load
    for look in (check_encoder_on_hub, load_encoder):
        with pytest.raises(ModelError, match=f"evaluation.encoder {reference}: {message}"):
            look(reference)


@pytest.mark.parametrize(
    "reference",
    ["demo", "owner/model", "owner.name/model:tag", "C:clip", r"C:\clip", "C:/clip", "./a:B", "a:", ":B", "a:b:c", "a"],
)
def test_what_names_something_else_is_not_taken_for_an_own_class(reference: str) -> None:
    assert not is_own_name(reference)


def test_a_folder_that_is_named_like_a_class_is_a_folder(tmp_path: Path) -> None:
    assert is_own_name("own_faces:Good")
    (tmp_path / "own_faces:Good").mkdir()
    with pytest.raises(ModelError, match="has no config"):
        check_encoder("own_faces:Good")
