"""LoRA files written, read by diffusers and by raylora, converted and changed by `raylora export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from raylora.diffusion.base import BaseModel
from raylora.diffusion.export import Export, export_lora
from raylora.diffusion.kohya_names import text_path
from raylora.diffusion.lora_file import load_lora, save_diffusers, save_kohya
from raylora.diffusion.lora_reading import read_lora
from raylora.diffusion.lora_weights import LoraModule, LoraWeights, with_one_alpha
from raylora.diffusion.resize import with_rank
from raylora.errors import ConfigError, ModelError, OutputError, UserError
from tests.lora_models import (
    NAME,
    VARIANTS,
    Trained,
    Variant,
    answers,
    assert_same,
    kohya_file,
    make_pipe,
    only,
    parts_of,
    train,
)
from tests.preparing import Prepare

FAMILY_NAMES = ("sd15", "sdxl")
LAYOUT_NAMES = ("kohya", "diffusers")
TOLERANCE = 2e-5
"""Of float32 answers whose additions come in another order."""
CARD = {
    "ss_output_name": "sks",
    "ss_tag_frequency": '{"10_sks": {"red hair": 9}}',
    "ss_clip_skip": "2",
    "modelspec.title": "sks",
    "modelspec.trigger_phrase": "sks person",
}

Make = Callable[[str, str], Trained]


@pytest.fixture
def make(tiny_base_folder: Path) -> Make:
    return lambda family, variant: train(family, tiny_base_folder, VARIANTS[variant], **CARD)


def write(trained: Trained, layout: str, path: Path, precision: str | None = None) -> Path:
    if layout == "kohya":
        save_kohya(trained.weights, trained.names, path, precision)
    else:
        save_diffusers(trained.weights, path, precision)
    return path


def read(trained: Trained, path: Path) -> LoraWeights:
    """Told of the U-Net's shape, because the tiny SDXL hasn't the usual blocks."""
    return read_lora(path, unet_config=trained.pipe.unet.config if trained.family == "sdxl" else None)


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, float]:
    return {part: float((one[part] - other[part]).abs().max()) for part in one}


# --- diffusers reads what is written ---


@pytest.mark.parametrize(
    ("variant", "layout"), [("even", "kohya"), ("ranks", "kohya"), ("even", "diffusers"), ("by block", "diffusers")]
)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_diffusers_loads_the_file_and_its_models_answer_alike(
    family: str, variant: str, layout: str, make: Make, tiny_base_folder: Path, tmp_path: Path
) -> None:
    trained = make(family, variant)
    path = write(trained, layout, tmp_path / "lora.safetensors")
    pipe = make_pipe(family, tiny_base_folder)
    plain = answers(pipe)
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    expected = answers(trained.pipe)
    assert max(difference(answers(pipe), expected).values()) < TOLERANCE
    assert min(difference(plain, expected).values()) > 0.01


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_diffusers_loads_a_dora_in_its_own_layout(
    family: str, make: Make, tiny_base_folder: Path, tmp_path: Path
) -> None:
    trained = make(family, "dora")
    path = write(trained, "diffusers", tmp_path / "lora.safetensors")
    pipe = make_pipe(family, tiny_base_folder)
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    assert max(difference(answers(pipe), answers(trained.pipe)).values()) < TOLERANCE


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_raylora_loads_every_file(variant: str, layout: str, make: Make, tiny_base: BaseModel, tmp_path: Path) -> None:
    """Of kohya's layout diffusers alone would lose alphas by block, and DoRA."""
    trained = make("sd15", variant)
    load_lora(tiny_base, write(trained, layout, tmp_path / "lora.safetensors"))
    assert max(difference(answers(tiny_base.pipeline()), answers(trained.pipe)).values()) < TOLERANCE


def test_an_sdxl_lora_does_not_fit_an_sd15(make: Make, tiny_base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        load_lora(tiny_base, write(make("sdxl", "even"), "kohya", tmp_path / "lora.safetensors"))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_doras_magnitudes_are_lengths_of_the_changed_weights_rows(family: str, make: Make, tmp_path: Path) -> None:
    """`dora_scale` times the directions of W + change is what peft merges: DoRA's equation 5."""
    trained = make(family, "dora")
    path = write(trained, "kohya", tmp_path / "lora.safetensors")
    modules = {(part, inside): module for part, inside, module in read(trained, path).modules()}
    seen = set()
    for part, model in parts_of(trained.pipe).items():
        for inside, layer in model.named_modules():
            if not hasattr(layer, "lora_alpha"):
                continue
            module = modules[part, inside if part == "unet" else text_path(inside)]
            weight = layer.base_layer.weight.detach()
            change = (module.up.flatten(1) @ module.down.flatten(1)).reshape(weight.shape)
            changed = weight + module.scale * change
            lengths = changed.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
            assert module.magnitude is not None
            assert module.magnitude.shape == (weight.shape[0], *[1] * (weight.ndim - 1))
            layer.merge()
            assert torch.allclose(module.magnitude * changed / lengths, layer.base_layer.weight, atol=1e-5), inside
            seen.add(weight.ndim)
    assert seen == {2, 4}


def test_a_strength_is_what_diffusers_calls_scale(make: Make, tiny_base_folder: Path, tmp_path: Path) -> None:
    trained = make("sd15", "ranks")
    write(trained, "kohya", tmp_path / "whole.safetensors")
    export_lora(Export(tmp_path / "whole.safetensors", "kohya", tmp_path / "half.safetensors", strength=0.5))
    whole, half = make_pipe("sd15", tiny_base_folder), make_pipe("sd15", tiny_base_folder)
    whole.load_lora_weights(str(tmp_path), weight_name="whole.safetensors", adapter_name=NAME)
    whole.set_adapters([NAME], 0.5)
    half.load_lora_weights(str(tmp_path), weight_name="half.safetensors")
    assert max(difference(answers(whole), answers(half)).values()) < TOLERANCE
    assert min(difference(answers(trained.pipe), answers(half)).values()) > 0.01


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_strength_is_not_rounded(precision: str, tmp_path: Path) -> None:
    """Alpha is 2 in float32; 0.6 has no place in 16 bits."""
    file = kohya_file(tmp_path / "lora.safetensors")
    export_lora(Export(file, "kohya", tmp_path / "weak.safetensors", strength=0.3, precision=precision))
    assert only(read_lora(tmp_path / "weak.safetensors")).alpha == pytest.approx(0.6, rel=1e-7)


def deltas(weights: LoraWeights) -> dict[tuple[str, str], torch.Tensor]:
    return {(part, path): module.scale * (module.up.float().flatten(1) @ module.down.float().flatten(1))
            for part, path, module in weights.modules()}  # fmt: skip


def deltas_in(pipe: Any) -> dict[tuple[str, str], torch.Tensor]:
    """What a pipeline's loaded LoRA changes, layer by layer."""
    return {(part, inside if part == "unet" else text_path(inside)): layer.get_delta_weight(layer.active_adapters[0])
            for part, model in parts_of(pipe).items() for inside, layer in model.named_modules()
            if hasattr(layer, "get_delta_weight")}  # fmt: skip


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_diffusers_reads_an_export_whose_alphas_differ(
    precision: str, rank: int | None, make: Make, tiny_base_folder: Path, tmp_path: Path
) -> None:
    """Ranks and alphas by block, from diffusers' layout; a lower rank makes alphas differ too, as it keeps scales."""
    given = write(make("sd15", "by block"), "diffusers", tmp_path / "given.safetensors", precision)
    expected = read_lora(given)
    expected = with_rank(expected, rank)[0] if rank else expected
    assert len({module.alpha for module in expected.parts["unet"].values()}) > 1
    export_lora(Export(given, "kohya", tmp_path / "out.safetensors", rank=rank))
    pipe = make_pipe("sd15", tiny_base_folder)
    pipe.load_lora_weights(str(tmp_path), weight_name="out.safetensors")
    told, loaded = deltas(expected), deltas_in(pipe)
    assert told.keys() == loaded.keys()
    for place, delta in told.items():
        assert torch.allclose(loaded[place].flatten(1), delta, atol=1e-5 if precision == "fp32" else 1e-3), place


def test_one_alpha_changes_only_who_differs() -> None:
    """Also beside layers of alpha 0, and where 16 bits couldn't hold the product."""
    ups = {"conv_in": 1.0, "conv_out": 0.0, "mid_block.attentions.0.proj_in": 40000.0}
    alphas = dict(zip(ups, (1.0, 0.0, 2.0), strict=True))
    unet = {path: LoraModule(torch.ones(1, 2), torch.full((2, 1), up).half(), alphas[path]) for path, up in ups.items()}
    one = with_one_alpha(LoraWeights("sd15", {"unet": unet})).parts["unet"]
    assert one["conv_in"] is unet["conv_in"]
    assert {module.alpha for module in one.values()} == {1.0}
    assert not one["conv_out"].up.any()
    assert one["mid_block.attentions.0.proj_in"].up.tolist() == [[80000.0]] * 2


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
@pytest.mark.parametrize("field", ["lora_up__weight", "dora_scale"])
def test_a_number_too_large_for_fp16_is_refused(field: str, layout: str, tmp_path: Path) -> None:
    """It would be written as infinite; bf16 reaches as far as float32."""
    large = torch.full((32, 4 if field == "lora_up__weight" else 1), 70000.0)
    file = kohya_file(tmp_path / "lora.safetensors", **{field: large})
    out = tmp_path / "out.safetensors"
    with pytest.raises(ModelError, match=r"attn1.to_q\..* holds 7e\+04, more than fp16.*use bf16 or fp32"):
        export_lora(Export(file, layout, out, precision="fp16"))
    assert not out.exists()
    assert export_lora(Export(file, layout, out, precision="bf16")).layers == 1


def test_an_alpha_too_large_for_fp16_is_written_in_float32(tmp_path: Path) -> None:
    file = kohya_file(tmp_path / "lora.safetensors", alpha=torch.tensor(70000.0))
    export_lora(Export(file, "kohya", tmp_path / "out.safetensors", precision="fp16"))
    assert only(read_lora(tmp_path / "out.safetensors")).alpha == 70000


# --- raylora reads what is written ---


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_file_is_read_as_it_was_written(family: str, variant: str, layout: str, make: Make, tmp_path: Path) -> None:
    trained = make(family, variant)
    assert_same(read(trained, write(trained, layout, tmp_path / "lora.safetensors")), trained.weights)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_there_and_back_is_equal_bit_for_bit(
    family: str, variant: str, precision: str, make: Make, tiny_base_folder: Path, tmp_path: Path
) -> None:
    """Where alphas differ it begins with what export makes of them, one alpha."""
    trained = make(family, variant)
    trained = replace(trained, weights=with_one_alpha(trained.weights))
    base = _base_folder(trained, tmp_path)
    first = write(trained, "kohya", tmp_path / "first.safetensors", precision)
    for source, layout in (("first", "diffusers"), ("there", "kohya")):
        target = tmp_path / ("there" if layout == "diffusers" else "back")
        export_lora(
            Export(tmp_path / f"{source}.safetensors", layout, target.with_suffix(".safetensors"), base_model=base)
        )
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == load_file(first).keys()
    for key, tensor in load_file(first).items():
        assert tensor.dtype == back[key].dtype, key
        assert torch.equal(tensor, back[key]), key
    assert metadata_of(tmp_path / "back.safetensors") == metadata_of(first)


def _base_folder(trained: Trained, folder: Path) -> str | None:
    """The tiny SDXL's shape, where `--base-model` finds it."""
    if trained.family == "sd15":
        return None
    trained.pipe.unet.config_name = "config.json"
    (folder / "base" / "unet").mkdir(parents=True)
    (folder / "base" / "unet" / "config.json").write_text(trained.pipe.unet.to_json_string())
    return str(folder / "base")


def test_full_size_sdxl_needs_no_base_model(tmp_path: Path) -> None:
    path = "up_blocks.0.upsamplers.0.conv"
    tensors = {
        f"unet.{path}.lora_A.weight": torch.randn(2, 8, 3, 3),
        f"unet.{path}.lora_B.weight": torch.randn(8, 2, 1, 1),
    }
    save_file(tensors, tmp_path / "in.safetensors", {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"})
    export_lora(Export(tmp_path / "in.safetensors", "kohya", tmp_path / "out.safetensors"))
    written = load_file(tmp_path / "out.safetensors")
    assert torch.equal(
        written["lora_unet_output_blocks_2_2_conv.lora_down.weight"], tensors[f"unet.{path}.lora_A.weight"]
    )
    assert metadata_of(tmp_path / "out.safetensors")["ss_base_model_version"] == "sdxl_base_v1-0"


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_metadata_survive(layout: str, make: Make, tmp_path: Path) -> None:
    trained = make("sd15", "by block")
    other = LAYOUT_NAMES[1 - LAYOUT_NAMES.index(layout)]
    write(trained, layout, tmp_path / "in.safetensors")
    export_lora(Export(tmp_path / "in.safetensors", other, tmp_path / "out.safetensors"))
    metadata = metadata_of(tmp_path / "out.safetensors")
    assert CARD.items() <= metadata.items()
    assert ("sshs_model_hash" in metadata) == (other == "kohya")
    assert ("lora_adapter_metadata" in metadata) == (other == "diffusers")


def test_metadata_tell_the_network(make: Make, tmp_path: Path) -> None:
    even = metadata_of(write(make("sdxl", "even"), "kohya", tmp_path / "even.safetensors"))
    assert (even["ss_network_dim"], even["ss_network_alpha"]) == ("4", "3.0")
    assert json.loads(even["ss_network_args"]) == {"conv_dim": "4", "conv_alpha": "3.0"}
    assert even["ss_base_model_version"] == "sdxl_base_v1-0"
    assert even["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    uneven = metadata_of(write(make("sd15", "by block"), "kohya", tmp_path / "uneven.safetensors"))
    assert (uneven["ss_network_dim"], uneven["ss_network_alpha"]) == ("Dynamic", "Dynamic")


def test_alphas_are_written_by_layer(make: Make, tmp_path: Path) -> None:
    trained = make("sd15", "by block")
    tensors = load_file(write(trained, "kohya", tmp_path / "lora.safetensors"))
    name = "lora_unet_mid_block_resnets_0_conv2"
    assert tensors[f"{name}.alpha"].item() == 1.5
    assert tensors["lora_unet_down_blocks_0_resnets_0_conv1.alpha"].item() == 3.0
    assert tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"].shape == (2, 32, 3, 3)
    assert tensors["lora_unet_up_blocks_0_resnets_0_conv2.lora_up.weight"].shape == (32, 6, 1, 1)


# --- the command ---


def test_the_command(make: Make, tiny_base_folder: Path, tmp_path: Path, run_here: Prepare) -> None:
    trained = make("sd15", "even")
    write(trained, "kohya", tmp_path / "lora.safetensors", "fp16")
    run = run_here(
        "export lora.safetensors --to diffusers --out small.safetensors --rank 2 --strength 0.5 --save-precision fp32"
    )
    assert run.status == 0, run.stderr
    assert "diffusers layout, sd15" in run.stdout
    assert "rank 2, alpha 0.75" in run.stdout
    assert "of the Frobenius norm" in run.stdout
    assert {tensor.dtype for tensor in load_file(tmp_path / "small.safetensors").values()} == {torch.float32}
    assert metadata_of(tmp_path / "small.safetensors")["ss_training_comment"].startswith(
        "strength 0.5 in alpha; rank 4"
    )
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base_folder, safety_checker=None)
    pipe.load_lora_weights(str(tmp_path), weight_name="small.safetensors")
    again = run_here("export lora.safetensors --to kohya --out small.safetensors")
    assert again.status == 2
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"layout": "a1111"}, ConfigError, "layouts are kohya and diffusers"),
        ({"out": "lora.ckpt"}, OutputError, r"lora\.safetensors"),
        ({"out": "lora.safetensors"}, OutputError, "exists already"),
        ({"out": "lora"}, OutputError, r"lora\.safetensors"),
        ({"strength": 0.0}, ConfigError, "above 0"),
        ({"strength": float("nan")}, ConfigError, "above 0"),
        ({"rank": 0}, ConfigError, "at least 1"),
        ({"rank": 5}, ModelError, "can't be raised"),
        ({"precision": "fp8"}, ConfigError, "fp16, bf16, fp32"),
        ({"base_model": "someone/model"}, ConfigError, "no folder"),
        ({"lora": "gone.safetensors"}, ModelError, "no such LoRA"),
    ],
)
def test_wrong_wishes(changes: dict[str, Any], kind: type[UserError], reason: str, tmp_path: Path) -> None:
    kohya_file(tmp_path / "lora.safetensors")
    wanted: dict[str, Any] = {"lora": "lora.safetensors", "layout": "kohya", "out": "out.safetensors"} | changes
    wanted |= {key: tmp_path / wanted[key] for key in ("lora", "out")}
    with pytest.raises(kind, match=reason):
        export_lora(Export(**wanted))
    assert {path.name for path in tmp_path.iterdir()} == {"lora.safetensors"}


def test_variants_differ() -> None:
    """The variants above are what their tests need: an alpha that is not the rank, and layers that differ."""
    assert all(variant.alpha != variant.rank for variant in VARIANTS.values())
    assert Variant().config("unet").lora_alpha == 3.0
