"""A base model in one file: the same model as its folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from raylora.config import Experiment, ModelConfig
from raylora.diffusion.encode import decode_latents, encode_prompts
from raylora.diffusion.families import load_base, save_as_folder
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


def marked(single_file: Path, *marks: str) -> Path:
    """The file with empty tensors of these names, as v-prediction models have them."""
    save_file({**load_file(single_file), **{mark: torch.zeros(0) for mark in marks}}, single_file)
    return single_file


@pytest.mark.parametrize(
    ("marks", "told", "predicts", "rescales"),
    [
        ((), None, "epsilon", False),
        (("v_pred",), None, "v_prediction", False),
        (("v_pred", "ztsnr"), None, "v_prediction", True),
        (("v_pred", "ztsnr"), "epsilon", "epsilon", False),
    ],
)
def test_what_a_single_file_says_of_its_schedule_is_heard(
    marks: tuple[str, ...], told: Any, predicts: str, rescales: bool, single_file: Path, bare_config: Path
) -> None:
    file, model = marked(single_file, *marks), ModelConfig(prediction_type=told)
    base = load_base(str(file), model=model, single_file_config=bare_config)
    assert base.noise_scheduler.config.prediction_type == base.sampler.config.prediction_type == predicts
    assert base.noise_scheduler.config.rescale_betas_zero_snr == rescales
    assert (float(base.noise_scheduler.alphas_cumprod[-1]) < 1e-6) == rescales


@pytest.mark.parametrize("told", [None, "v_prediction"])
def test_the_folder_made_of_a_single_file_says_it_too(
    told: Any, single_file: Path, bare_config: Path, tmp_path: Path
) -> None:
    file, model = single_file if told else marked(single_file, "v_pred"), ModelConfig(prediction_type=told)
    folder = save_as_folder(str(file), model, tmp_path / "folder", bare_config)
    assert load_base(str(folder)).noise_scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize("is_single", [False, True], ids=["a folder", "a single file"])
def test_a_vae_is_never_rounded(is_single: bool, tiny_base_folder: Path, single_file: Path, bare_config: Path) -> None:
    whole = load_base(str(tiny_base_folder))
    reference = str(single_file if is_single else tiny_base_folder)
    half = load_base(reference, dtype="bf16", single_file_config=bare_config if is_single else None)
    assert half.unet.dtype == torch.bfloat16
    weights = whole.vae.state_dict()
    assert all(torch.equal(weight, weights[key]) for key, weight in half.vae.state_dict().items())
    assert half.latents_digest == whole.latents_digest


def test_without_the_hub_it_is_told_what_a_single_file_lacks(single_file: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors: can't be loaded.*configuration and tokenizer.*the hub"):
        load_base(str(single_file))
