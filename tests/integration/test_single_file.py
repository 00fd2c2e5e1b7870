"""A base model in one file: the same model as its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from raylora.config import Experiment, ModelConfig
from raylora.diffusion.base import BaseModel
from raylora.diffusion.encode import decode_latents, encode_prompts
from raylora.diffusion.families import load_base
from raylora.errors import ModelError
from tests.integration.test_trainer import losses_of
from tests.single_file import write_single_file


@pytest.fixture
def single_file(tiny_base_folder: Path, tmp_path: Path) -> Path:
    return write_single_file(tiny_base_folder, tmp_path / "model.safetensors")


@pytest.fixture
def bare_config(tiny_base_folder: Path, tmp_path: Path) -> Path:
    """The folder without its weights, which must come from the file."""
    return Path(shutil.copytree(tiny_base_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")))


def test_a_single_file_is_the_model_of_its_folder(
    single_file: Path, bare_config: Path, tiny_base: BaseModel, tiny_experiment: Experiment
) -> None:
    loaded = load_base(str(single_file), single_file_config=bare_config)
    for mine, theirs in ((loaded.unet, tiny_base.unet), (loaded.vae, tiny_base.vae)):
        weights = theirs.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in mine.state_dict().items())
    with torch.no_grad():
        prompts = [encode_prompts(base, ["sks portrait"]).embeddings for base in (loaded, tiny_base)]
    assert torch.equal(*prompts)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (decode_latents(loaded, latents) == decode_latents(tiny_base, latents)).all()
    assert losses_of(loaded, tiny_experiment) == losses_of(tiny_base, tiny_experiment)
    assert loaded.reference == str(single_file)


def test_a_single_file_may_be_said_to_predict_v(single_file: Path, bare_config: Path) -> None:
    model = ModelConfig(prediction_type="v_prediction")
    base = load_base(str(single_file), model=model, single_file_config=bare_config)
    assert base.noise_scheduler.config.prediction_type == base.sampler.config.prediction_type == "v_prediction"


def test_without_the_hub_it_is_told_what_a_single_file_lacks(single_file: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors: can't be loaded.*configuration and tokenizer.*the hub"):
        load_base(str(single_file))
