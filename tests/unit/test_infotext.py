"""What a picture says of its making, read back as a webui reads it."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from raylora import __version__
from raylora.diffusion.infotext import Origin, Recipe, infotext, png
from tests.infotexts import LORA, read_text

RECIPE = Recipe("sks, red hair", "blurry", 7, (512, 768), 20, 6.5, 0.8)
ORIGIN = Origin("mine", "0123456789ab", "anything-v5", "fedcba9876", "EulerAncestralDiscreteScheduler", None)


def test_a_webui_reads_back_everything() -> None:
    read = read_text(infotext(RECIPE, ORIGIN))
    assert read.prompt == "sks, red hair <lora:mine:0.8>"
    assert read.negative == "blurry"
    assert read.values == {
        "Steps": "20",
        "Sampler": "Euler a",
        "CFG scale": "6.5",
        "Seed": "7",
        "Size": "512x768",
        "Model hash": "fedcba9876",
        "Model": "anything-v5",
        "Lora hashes": "mine: 0123456789ab",
        "Version": f"raylora {__version__}",
    }


@pytest.mark.parametrize(
    "prompt", ["one\ntwo, three", 'say "hi": now', "red_hair (series)", "señora, 日本", "a: b, c: d"]
)
def test_words_of_all_kinds_come_back(prompt: str) -> None:
    read = read_text(infotext(replace(RECIPE, prompt=prompt, negative_prompt=prompt), ORIGIN))
    assert (read.prompt, read.negative) == (f"{prompt} <lora:mine:0.8>", prompt)
    assert read.values["Seed"] == "7"


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
