"""The model card: what the hub reads, what people read, and what is nobody's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from raylora.bundled import DEMO_NAME
from raylora.diffusion.licence import Licence, licence_of
from raylora.execution.model_card import CARD_NAME, Described, code, escaped, facts_of, fenced, write_card
from raylora.execution.registering import fitting
from raylora.tracking.entry import LONGEST_TEXT
from tests.report_world import Made

HOSTILE = "a | b <img src=x> [link](x) `code` **bold**\n# head"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "portraits")


def described(made: Made, **more: Any) -> Described:
    summary = made.summary()
    experiment = made.experiment.with_params(summary["best"]["params"])  # that of `best/`
    told = Described(
        name=made.root.name, experiment=experiment, summary=summary, images=12, learned=12, digest="d" * 64, held_out=3,
        prompts=made.captions, licence=Licence("creativeml-openrail-m"),
    )  # fmt: skip
    return replace(told, **more)


def card(made: Made, **more: Any) -> tuple[dict[str, Any], str, str]:
    """Its front matter, its text, and what a registry is told."""
    out = made.write()
    told = described(made, **more)
    write_card(out, told)
    text = facts_of(told)
    content = (out.best / CARD_NAME).read_text(encoding="utf-8")
    _, front, body = content.split("---\n", 2)
    return yaml.safe_load(front), body, text


def test_the_hub_reads_it(made: Made) -> None:
    front, _, _ = card(made)
    assert front == {
        "base_model": "some/base",
        "base_model_relation": "adapter",
        "license": "creativeml-openrail-m",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["lora", "stable-diffusion", "text-to-image", "diffusers", "template:sd-lora"],
        "instance_prompt": "sks",
        "widget": [
            {"text": text, "output": {"url": f"samples/sample_{place:02d}.png"}}
            for place, text in enumerate(made.captions)
        ],
    }
    for entry in front["widget"]:
        assert (made.out.best / entry["output"]["url"]).is_file()
    assert ModelCard.load(made.out.best / CARD_NAME).data.base_model == "some/base"


def test_it_tells_settings_measures_and_how_to_use_it(made: Made) -> None:
    _, body, text = card(made)
    for words in (
        "A LoRA for Stable Diffusion 1.5, trained on some/base with 12 images at 512×512 px.",
        "the best of 4 that raylora",
        "score 1.170, the mean of 2 trainings with new seeds",
        "Trigger word: `sks`. Strength to begin with: 0.8.",
        "| held-out loss, × base model’s | 0.9400 | 0.9600 | 1.0000 | lower is better; the base model’s is 1 |",
        "| `optimizer.unet_lr` | 0.001 | yes |",
        "| `dataset.resolution` | 512×512 |  |",
        "have seen the held-out ones too",
        f"Digest of all images and captions: `{'d' * 64}`",
        "some/base is given under `creativeml-openrail-m`, as its files say",
    ):
        assert words.replace("some/base", escaped("some/base")) in text
        assert words in body
    for words in (
        "load_lora_weights('.', weight_name='pytorch_lora_weights.safetensors', adapter_name='portraits')",
        "cp lora.safetensors models/loras/portraits.safetensors",
        "sks, a cat <lora:portraits:0.8>",
        "| ![sample](samples/sample_01.png) | sks, a dog |",
        "samples/strengths.png",
    ):
        assert words in body and words not in text


def test_it_tells_no_path_no_file_name_and_no_real_picture(made: Made, tmp_path: Path) -> None:
    made = made.with_settings(
        model__base_model=str(tmp_path / "mine" / "m.safetensors"), dataset__path="/home/me/faces"
    )
    front, body, _ = card(made)
    assert "base_model" not in front
    for secret in (str(tmp_path), "/home/me", "0.png |", "grid.png"):
        assert secret not in body
    assert "m.safetensors names no licence" in card(made, licence=Licence())[1]
    assert "from_single_file('path/to/m.safetensors', torch_dtype=dtype)" in body


@pytest.mark.parametrize(
    ("licence", "wanted", "words"),
    [
        (Licence(), {"license": "unknown"}, "names no licence in its files: see [its page](https://huggingface.co/some/base)"),
        (Licence("openrail++"), {"license": "openrail++"}, "under `openrail++`"),
        (Licence("MIT", "https://x/l"), {"license": "mit", "license_link": "https://x/l"}, "under `MIT` (https://x/l)"),
        (Licence("some-word"), {"license": "other", "license_name": "some-word"}, "under `some-word`"),
        (licence_of(DEMO_NAME, "sd15"), {"license": "other", "license_name": "several-designers"}, "several-designers"),
        (
            Licence("Fair AI Public License 1.0-SD", "https://x/l"),
            {"license": "other", "license_name": "fair-ai-public-license-1.0-sd", "license_link": "https://x/l"},
            "under `Fair AI Public License 1.0-SD` (https://x/l)",
        ),
    ],
)  # fmt: skip
def test_the_base_models_licence_is_told_or_that_it_is_not_known(
    made: Made, licence: Licence, wanted: Mapping[str, str], words: str
) -> None:
    front, body, _ = card(made, licence=licence)
    assert {name: value for name, value in front.items() if name.startswith("license")} == wanted
    assert words in body


def test_what_users_wrote_stays_text(tmp_path: Path) -> None:
    made = Made(tmp_path / "a_b <i>", captions=(HOSTILE, "x", "y")).with_settings(dataset__trigger="s`k|s")
    front, body, text = card(made)
    assert front["widget"][0]["text"] == "a | b <img src=x> [link](x) `code` **bold**\\x0a# head"
    assert front["instance_prompt"] == "s`k|s"
    assert "# a\\_b &lt;i&gt;" in body and "Trigger word: `` s`k¦s ``" in text
    row = next(line for line in body.splitlines() if "sample_00.png" in line)
    assert row.endswith(escaped("a | b <img src=x> [link](x) `code` **bold**\\x0a# head") + " |")
    assert "<img" not in row and row.count("|") - row.count("\\|") == 3


def test_a_training_without_measures_has_a_card_too(made: Made) -> None:
    best = {"trial_id": "train", "score": None, "params": {}, "metrics": {"train_loss": 0.1}}
    front, body, text = card(
        made, summary={"best": best, "baseline": None, "trials": {"total": 1}}, held_out=0, prompts=()
    )
    assert "no images were held out, so nothing was measured" in text and "## Measures" not in body
    assert "12 images with captions. Digest" in text
    assert [entry["text"] for entry in front["widget"]] == ["sks"] * 3


def test_it_tells_how_many_images_the_files_have_learned(made: Made) -> None:
    """Without a refit they are the trial's, which has not seen the held-out ones."""
    _, body, _ = card(made, summary={**made.summary(), "refit": False}, learned=9)
    assert "trained on some/base with 9 images" in body
    assert "12 images with captions, of which 3 were held out" in body
    assert "have seen the held-out ones too" not in body


def test_a_digest_that_is_not_known_is_left_out(made: Made) -> None:
    _, body, _ = card(made, digest="")
    assert "Digest" not in body and "held out to judge by. Their names" in body


def test_a_description_is_cut_at_a_section() -> None:
    sections = [f"## {number}\n{'x' * 1500}" for number in range(5)]
    assert fitting("\n\n".join(sections)) == "\n\n".join(sections[:3])
    assert fitting("short") == "short"
    assert len(fitting("y" * 2 * LONGEST_TEXT)) == LONGEST_TEXT


def test_code_and_fences_hold_backticks() -> None:
    assert code("a``b") == "``` a``b ```"
    assert fenced("```\nx") == "````\n```\nx\n````"
    assert escaped("1 < 2 & *x*") == "1 &lt; 2 &amp; \\*x\\*"
