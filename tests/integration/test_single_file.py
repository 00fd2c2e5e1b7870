"""A base model in one file: the same model as its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from raylora.config import Experiment, ModelConfig
from raylora.diffusion.encode import decode_latents, encode_prompts
from raylora.diffusion.families import load_base
from raylora.errors import ModelError
from tests.integration.test_trainer import losses_of
from tests.single_file import write_single_file


def bare(folder: Path, copy: Path) -> Path:
    """A model's folder without its weights, which must come from the file."""
    return Path(shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.fixture
def single_file(tiny_base_folder: Path, tmp_path: Path) -> Path:
    return write_single_file(tiny_base_folder, tmp_path / "model.safetensors")


@pytest.fixture
def bare_config(tiny_base_folder: Path, tmp_path: Path) -> Path:
    return bare(tiny_base_folder, tmp_path / "bare")


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_single_file_is_the_model_of_its_folder(
    family: str, request: pytest.FixtureRequest, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue("tiny_base_folder" if family == "sd15" else "tiny_sdxl_folder")
    model = ModelConfig(family=family)
    file, config = write_single_file(folder, tmp_path / "model.safetensors"), bare(folder, tmp_path / "bare")
    loaded, whole = load_base(str(file), model=model, single_file_config=config), load_base(str(folder), model=model)
    for mine, theirs in ((loaded.vae, whole.vae), *((loaded.parts[part], whole.parts[part]) for part in whole.parts)):
        weights = theirs.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in mine.state_dict().items())
    with torch.no_grad():
        prompts = [encode_prompts(base, ["sks portrait"]).embeddings for base in (loaded, whole)]
    assert torch.equal(*prompts)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (decode_latents(loaded, latents) == decode_latents(whole, latents)).all()
    experiment = tiny_experiment.with_params({"model.family": family, "model.base_model": str(folder)})
    assert losses_of(loaded, experiment) == losses_of(whole, experiment)
    assert loaded.reference == str(file)


def test_a_single_file_may_be_said_to_predict_v(single_file: Path, bare_config: Path) -> None:
    model = ModelConfig(prediction_type="v_prediction")
    base = load_base(str(single_file), model=model, single_file_config=bare_config)
    assert base.noise_scheduler.config.prediction_type == base.sampler.config.prediction_type == "v_prediction"


def test_without_the_hub_it_is_told_what_a_single_file_lacks(single_file: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors: can't be loaded.*configuration and tokenizer.*the hub"):
        load_base(str(single_file))
