"""What a picture says of its making, read back as a webui reads it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image

from raylora import __version__
from raylora.diffusion.infotext import Origin, Recipe, infotext, png
from tests.infotexts import LORA, read_text

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
RECIPE = Recipe("sks, red hair", "blurry", 7, (512, 768), 20, 6.5, 0.8)
ORIGIN = Origin("mine", "0123456789ab", "anything-v5", "fedcba9876", "EulerAncestralDiscreteScheduler", {}, None)


def test_a_webui_reads_back_everything() -> None:
    read = read_text(infotext(RECIPE, ORIGIN))
    assert read.prompt == "sks, red hair <lora:mine:0.8>"
    assert read.negative == "blurry"
    assert read.values == {
        "Steps": "20",
        "Sampler": "Euler a",
        "Schedule type": "Uniform",
        "CFG scale": "6.5",
        "Seed": "7",
        "Size": "512x768",
        "Model hash": "fedcba9876",
        "Model": "anything-v5",
        "RNG": "CPU",
        "Lora hashes": "mine: 0123456789ab",
        "Version": f"raylora {__version__}",
    }


@pytest.mark.parametrize(
    "prompt", ["one\ntwo, three", 'say "hi": now', "red_hair (series)", "[art], [a:b:0.5]", r"\(x\) \\ y", "a: b, c: d",
               "señora, 日本", "((much)) (more:1.2"]
)  # fmt: skip
def test_words_of_all_kinds_are_drawn_as_they_stand(prompt: str) -> None:
    read = read_text(infotext(replace(RECIPE, prompt=prompt, negative_prompt=prompt), ORIGIN))
    assert read.words == (prompt, prompt)
    assert read.prompt.endswith(" <lora:mine:0.8>")
    assert read.values["Seed"] == "7"


def test_comfyui_finds_the_line_of_the_negative_prompt() -> None:
    """Its `importA1111` makes nothing of a picture without one."""
    assert "\nNegative prompt: \nSteps: 20" in infotext(replace(RECIPE, negative_prompt=""), ORIGIN)


@pytest.mark.parametrize(
    ("sampler", "config", "name", "schedule"),
    [
        ("DDIMScheduler", {"timestep_spacing": "leading"}, "DDIM", "Automatic"),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, "Euler", "DDIM"),
        ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}, "Euler", "Uniform"),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, "Euler", "SGM Uniform"),
        ("HeunDiscreteScheduler", {"use_exponential_sigmas": True}, "Heun", "Exponential"),
        ("DPMSolverMultistepScheduler", {}, "DPM++ 2M", "SGM Uniform"),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "DPM++ 2M", "Karras"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "DPM++ 2M SDE", "SGM Uniform"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "DPM++ 3M SDE",
         "SGM Uniform"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, "DPMSolverMultistepScheduler", "SGM Uniform"),
        ("MyScheduler", {}, "MyScheduler", "Automatic"),
    ],
)  # fmt: skip
def test_a_webui_takes_the_noise_levels_that_were_taken(
    sampler: str, config: dict[str, Any], name: str, schedule: str
) -> None:
    filled = read_text(infotext(RECIPE, replace(ORIGIN, sampler=sampler, sampler_config=config))).filled
    assert (filled["Sampler"], filled["Schedule type"], filled["RNG"]) == (name, schedule, "CPU")
    assert "Noise Schedule" not in filled


def test_dpm_leaves_the_last_timestep_out_as_sgm_uniform_does() -> None:
    dpm = diffusers.DPMSolverMultistepScheduler(**SD)
    dpm.set_timesteps(10)
    assert dpm.timesteps.tolist() == pytest.approx([999 * (10 - step) / 10 for step in range(10)], abs=1)


def test_a_last_timestep_of_noise_alone_is_told() -> None:
    origin = replace(ORIGIN, sampler_config={"rescale_betas_zero_snr": True})
    assert read_text(infotext(RECIPE, origin)).values["Noise Schedule"] == "Zero Terminal SNR"


@pytest.mark.parametrize("model", ["v1, pruned", "a: b", 'the "best", really', "back\\slash, here"])
def test_values_with_commas_and_colons_stand_in_quotes(model: str) -> None:
    assert read_text(infotext(RECIPE, replace(ORIGIN, model=model))).values["Model"] == model


def test_what_is_not_known_is_not_named() -> None:
    read = read_text(infotext(replace(RECIPE, negative_prompt=""), replace(ORIGIN, model_hash=None)))
    assert "Model hash" not in read.values and "Clip skip" not in read.values
    assert read.negative == ""
    assert read_text(infotext(RECIPE, replace(ORIGIN, clip_skip=2))).values["Clip skip"] == "2"


def test_the_base_models_own_picture_names_no_lora() -> None:
    read = read_text(infotext(replace(RECIPE, strength=0.0), ORIGIN))
    assert not LORA.search(read.prompt) and "Lora hashes" not in read.values


@pytest.mark.parametrize(("strength", "told"), [(1.0, "1"), (-0.5, "-0.5"), (0.65, "0.65")])
def test_strengths_are_written_short(strength: float, told: str) -> None:
    found = LORA.search(infotext(replace(RECIPE, strength=strength), ORIGIN))
    assert found and found.groups() == ("mine", told)


@pytest.mark.parametrize("prompt", ["plain", "日本 señora"])
def test_a_png_carries_the_text_and_the_pixels(prompt: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 16, 3), dtype=np.uint8)
    text = infotext(replace(RECIPE, prompt=prompt), ORIGIN)
    with Image.open(io.BytesIO(png(pixels, text))) as picture:
        assert picture.info["parameters"] == text
        assert np.array_equal(np.asarray(picture), pixels)
