"""How to use a LoRA, as its page says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from raylora.report.reading import read_work
from raylora.report.usage import usages
from tests.report_page import page_of
from tests.report_world import Made, rewrite


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "portraits")


def test_how_to_use_it_names_file_trigger_and_strength(made: Made) -> None:
    made = made.with_settings(model__clip_skip=2)
    diffusers, comfy, a1111 = usages(read_work(made.write()))
    code = diffusers.pieces[0].text
    compile(code, "usage", "exec")
    for part in (
        "from_pretrained('some/base', torch_dtype=dtype)",
        repr(str(made.out.best)),
        "set_adapters('portraits', 0.8)",
        "clip_skip=1",
    ):
        assert part in code
    assert "'sks, a cat'" in code
    assert '"strength_model": 0.8' in comfy.pieces[1].text and "at -2" in comfy.hint
    assert a1111.pieces[0].text == f"cp {made.out.best / 'lora.safetensors'} models/Lora/portraits.safetensors"
    assert a1111.pieces[1].text == "sks, a cat <lora:portraits:0.8>"


@pytest.mark.parametrize(("shared", "winners"), [(True, False), (False, True)])
def test_the_text_encoder_is_used_as_the_winner_was_trained(made: Made, shared: bool, winners: bool) -> None:
    """It may be searched: what all trials share says otherwise then."""
    made = made.with_settings(model__train_text_encoder=shared)
    out = made.write()
    best = made.summary()["best"]
    rewrite(out.summary, best={**best, "params": {**best["params"], "model.train_text_encoder": winners}})
    comfy = usages(read_work(out))[1]
    assert f'"strength_clip": {0.8 if winners else 0.0}' in comfy.pieces[1].text


def test_prompts_weigh_nothing_and_are_drawn_as_the_samples_were(made: Made) -> None:
    made = replace(made, captions=(r"sks (day), [art] \(x\)",) * 3)
    made = made.with_settings(sampling__negative_prompt="(blurry)", sampling__seeds=(7, 8))
    diffusers, comfy, a1111 = usages(read_work(made.write()))
    assert [piece.text for piece in comfy.pieces[2:]] == [r"sks \(day\), [art] \\(x\\)", r"\(blurry\)"]
    assert a1111.pieces[1].text.startswith(r"sks \(day\), \[art\] \\\(x\\\) <lora:")
    assert a1111.pieces[2].text == r"\(blurry\)"
    code = diffusers.pieces[0].text
    compile(code, "usage", "exec")
    assert "negative_prompt='(blurry)'" in code and "manual_seed(7)" in code


def test_what_is_copied_is_what_was_written(made: Made) -> None:
    """Joiners are parts of words and of emoji; what turns a line is shown, or it would read as another."""
    family, turned = "\U0001f468\u200d\U0001f469", "\u202eevil"
    long = "word " * 600
    page = page_of(replace(made, captions=(f"{family} {turned} {long}",) * 3).write())
    assert f"{family} \\u202eevil {long.strip()} <lora:portraits:0.8>" in page.text


def test_a_file_of_weights_and_v_prediction_are_loaded_as_such(made: Made) -> None:
    sdxl = {"model__family": "sdxl", "model__base_model": "/x/m.safetensors", "model__prediction_type": "v_prediction"}
    made = made.with_settings(**sdxl, model__train_text_encoder=False, model__clip_skip=2)
    diffusers, comfy, _ = usages(read_work(made.write()))
    code = diffusers.pieces[0].text
    assert "StableDiffusionXLPipeline.from_single_file('/x/m.safetensors', torch_dtype=dtype)" in code
    assert "prediction_type='v_prediction')" in code and "clip_skip" not in code
    assert '"strength_clip": 0.0' in comfy.pieces[1].text


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("marks", [(), ("v_pred", "ztsnr")])
def test_programs_are_told_of_v_prediction_where_no_mark_tells_them(
    made: Made, marks: tuple[str, ...], family: str, tmp_path: Path
) -> None:
    """ComfyUI reads marks in SDXL's files alone."""
    base = tmp_path / "m.safetensors"
    save_file({name: np.zeros(0, np.float32) for name in ("model.x", *marks)}, base)
    unmarked = {} if marks else {"model__prediction_type": "v_prediction"}
    made = made.with_settings(model__base_model=str(base), model__family=family, **unmarked)
    diffusers, comfy, a1111 = usages(read_work(made.write()))
    assert ("prediction_type='v_prediction', rescale_betas_zero_snr=True)" in diffusers.pieces[0].text) == bool(marks)
    node = f"node ModelSamplingDiscrete (sampling v_prediction{', zsnr true' * bool(marks)})"
    assert (node in comfy.hint) == (not marks or family == "sd15")
    assert "The base model predicts v: lay beside the checkpoint a .yaml" in a1111.hint
    assert ("Zero Terminal SNR" in a1111.hint) == bool(marks)


@pytest.mark.parametrize(("chosen", "half"), [("no", "float16"), ("fp16", "float16"), ("bf16", "bfloat16")])
def test_diffusers_loads_half_the_bytes_on_a_gpu(made: Made, chosen: str, half: str) -> None:
    code = usages(read_work(made.with_settings(training__mixed_precision=chosen).write()))[0].pieces[0].text
    assert f'("cuda", torch.{half}) if torch.cuda.is_available() else ("cpu", torch.float32)' in code
    assert "torch_dtype=dtype" in code and "negative_prompt=''" in code
