"""LoRA files that others wrote, or that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from raylora.diffusion import lora_reading
from raylora.diffusion.export import Export, export_lora
from raylora.diffusion.lora_reading import read_lora
from raylora.errors import ModelError
from tests.lora_models import kohya_file, only


def test_without_alpha_the_rank_is_alpha(tmp_path: Path) -> None:
    assert only(read_lora(kohya_file(tmp_path / "old.safetensors", alpha=None))).alpha == 4


@pytest.mark.parametrize(
    ("unet", "text"),
    [
        ("attn1.processor.to_out_lora.{}.weight", "self_attn.to_out_lora.{}.weight"),
        ("attn1.to_out.0.lora.{}.weight", "self_attn.out_proj.lora_linear_layer.{}.weight"),
        ("attn1.to_out.0.lora_{}.weight", "self_attn.out_proj.lora_{}.weight"),
    ],
    ids=["0.17", "0.23", "0.25"],
)
def test_older_layouts_of_diffusers(unet: str, text: str, tmp_path: Path) -> None:
    words = ("A", "B") if "lora_{}" in unet else ("down", "up")
    tensors = {}
    for word, shape in zip(words, ((4, 32), (32, 4)), strict=True):
        tensors[f"unet.mid_block.attentions.0.transformer_blocks.0.{unet.format(word)}"] = torch.randn(*shape)
        tensors[f"text_encoder.text_model.encoder.layers.0.{text.format(word)}"] = torch.randn(*shape)
    save_file(tensors, tmp_path / "lora.safetensors")
    weights = read_lora(tmp_path / "lora.safetensors")
    assert [*weights.parts["unet"]] == ["mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"]
    assert [*weights.parts["text_encoder"]] == ["text_model.encoder.layers.0.self_attn.out_proj"]
    assert {module.alpha for _, _, module in weights.modules()} == {4}


def test_alphas_of_diffusers_layout(tmp_path: Path) -> None:
    """Alpha tensors go before peft's settings; a pattern goes before the common alpha; rank-stabilized scales too."""
    layer = "unet.mid_block.attentions.0.proj_{}"
    tensors = {layer.format(way) + f".lora_{ab}.weight": torch.randn(*shape)
               for way in ("in", "out") for ab, shape in (("A", (4, 32)), ("B", (32, 4)))}  # fmt: skip
    settings = {"unet.lora_alpha": 6, "unet.alpha_pattern": {"proj_out": 1}, "unet.use_rslora": True}
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(settings)})
    alphas = {inside: module.alpha for _, inside, module in read_lora(path).modules()}
    assert alphas == {"mid_block.attentions.0.proj_in": 12, "mid_block.attentions.0.proj_out": 2}
    save_file(tensors | {layer.format("in") + ".alpha": torch.tensor(5.0)}, path, {})
    assert {module.alpha for _, _, module in read_lora(path).modules()} == {5, 4}


@pytest.mark.parametrize("shape", [(32, 1), (1, 32)])
def test_a_dora_by_inputs_stays_in_kohyas_layout(shape: tuple[int, int], tmp_path: Path) -> None:
    file = kohya_file(tmp_path / "dora.safetensors", dora_scale=torch.rand(shape))
    export_lora(Export(file, "kohya", tmp_path / "again.safetensors"))
    again, first = load_file(tmp_path / "again.safetensors"), load_file(file)
    assert all(torch.equal(again[key], tensor) for key, tensor in first.items())
    wanted = Export(file, "diffusers", tmp_path / "diffusers.safetensors")
    if shape == (32, 1):
        assert export_lora(wanted).layers == 1
    else:
        with pytest.raises(ModelError, match="one length per input"):
            export_lora(wanted)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_mid.weight", "lora_mid"),
        ("lora_unet_double_blocks_0_img_mod.lora_up.weight", "double_blocks"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a", "hada_w1_a"),
        ("embedding.lora", "embedding"),
    ],
)
def test_an_unknown_key_is_named(key: str, reason: str, tmp_path: Path) -> None:
    save_file({key: torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match=f"the key .*{reason}"):
        read_lora(tmp_path / "lora.safetensors")


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "pickled.pt").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    kohya_file(tmp_path / "half.safetensors", lora_up__weight=None)
    kohya_file(tmp_path / "odd.safetensors", lora_up__weight=torch.zeros(32, 3))
    for name, reason in (
        ("pickled.pt", "can run any code"),
        ("broken.safetensors", "not a readable"),
        ("other.safetensors", "no LoRA"),
        ("gone.safetensors", "no such"),
        ("half.safetensors", "lacks one"),
        ("odd.safetensors", "don't belong together"),
    ):
        with pytest.raises(ModelError, match=reason):
            read_lora(tmp_path / name)


LAYER = "down_blocks_1_attentions_0_transformer_blocks_0_attn"


@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        ({"alpha": torch.ones(2)}, "alpha", "not the one number"),
        ({"alpha": torch.ones(0)}, "alpha", "not the one number"),
        ({"lora_down__weight": torch.zeros(4)}, "lora_down.weight", "no matrix"),
        ({"lora_down__weight": torch.zeros(4, 32, 1)}, "lora_down.weight", "no matrix"),
        ({"lora_down__weight": torch.zeros(4, 32, 1, 1)}, "lora_down.weight", "don't belong together"),
        ({"lora_down__weight": torch.zeros(0, 32), "lora_up__weight": torch.zeros(32, 0)}, "lora_down.weight",
         "no matrix"),
        ({"lora_up__weight": torch.zeros(32, 4).to(torch.int8)}, "lora_up.weight", "is in int8"),
        ({"dora_scale": torch.tensor(1.0)}, "dora_scale", "neither one length"),
        ({"dora_scale": torch.ones(31, 1)}, "dora_scale", "32 outputs nor of 32 inputs"),
        ({"dora_scale": torch.ones(1, 31)}, "dora_scale", "neither one length"),
    ],
)  # fmt: skip
def test_a_tensor_that_cannot_be_is_named(
    changes: dict[str, torch.Tensor], key: str, reason: str, tmp_path: Path
) -> None:
    file = kohya_file(tmp_path / "lora.safetensors", **changes)
    with pytest.raises(ModelError, match=reason) as refused:
        read_lora(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert f"lora_unet_{LAYER}1_to_q.{key}" in str(refused.value)


def test_a_flat_matrix_of_cross_attention_is_named(tmp_path: Path) -> None:
    """The family is looked for in its width."""
    name = f"lora_unet_{LAYER}2_to_k.lora_"
    tensors = {f"{name}down.weight": torch.zeros(4), f"{name}up.weight": torch.zeros(32, 4)}
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match=f"{name}down.weight has the shape"):
        read_lora(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("shape", [(), (31,), (1, 31)])
def test_a_magnitude_of_diffusers_layout_that_cannot_be_is_named(shape: tuple[int, ...], tmp_path: Path) -> None:
    layer = "unet.mid_block.attentions.0.proj_in.lora_"
    tensors = {"A.weight": torch.zeros(4, 32), "B.weight": torch.zeros(32, 4), "magnitude_vector": torch.ones(shape)}
    save_file({layer + key: tensor for key, tensor in tensors.items()}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match=rf"lora\.safetensors: {layer}magnitude_vector .*each of 32 outputs"):
        read_lora(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("first", ["attentions.0.proj_in", r"mid_block\..*", "mid_block.attentions.0.proj_in"])
def test_the_first_pattern_that_fits_counts(first: str, tmp_path: Path) -> None:
    """Plain names are endings of paths, as the rest are regular expressions of peft's."""
    layer = "unet.mid_block.attentions.0.proj_in.lora_"
    tensors = {f"{layer}A.weight": torch.zeros(4, 32), f"{layer}B.weight": torch.zeros(32, 4)}
    patterns = {"proj_out": 9, "tentions.0.proj_in": 8, first: 3, "proj_in": 7}
    settings = json.dumps({"unet.lora_alpha": 6, "unet.alpha_pattern": patterns})
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": settings})
    assert only(read_lora(tmp_path / "lora.safetensors")).alpha == 3


def test_a_pattern_that_takes_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_reading, "MOST_MATCH_S", 0.2)
    layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_"
    tensors = {f"{layer}A.weight": torch.zeros(4, 32), f"{layer}B.weight": torch.zeros(32, 4)}
    settings = json.dumps({"unet.alpha_pattern": {"([a-z0-9_.]+)+!": 1}})
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": settings})
    with pytest.raises(ModelError, match=r"lora\.safetensors: the patterns of alphas .* take over 0\.2 s"):
        read_lora(tmp_path / "lora.safetensors")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"unet.lora_alpha": None}, r"unet\.lora_alpha in its lora_adapter_metadata is null and not a number"),
        ({"unet.lora_alpha": "4"}, r'unet\.lora_alpha .* is "4"'),
        ({"unet.lora_alpha": float("inf")}, r"unet\.lora_alpha .* is Infinity"),
        ({"unet.alpha_pattern": {"proj_(": 1}}, r'unet\.alpha_pattern .* is "proj_\(" and not a regular expression'),
        ({"unet.alpha_pattern": {"proj_in": None}}, r"unet\.alpha_pattern .* is null"),
        ({"unet.alpha_pattern": ["proj_in"]}, r"unet\.alpha_pattern .* not a table"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    layer = "unet.mid_block.attentions.0.proj_in.lora_"
    tensors = {f"{layer}A.weight": torch.zeros(4, 32), f"{layer}B.weight": torch.zeros(32, 4)}
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    with pytest.raises(ModelError, match=rf"lora\.safetensors: {reason}"):
        read_lora(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8_is_read_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    """As fp16; torch has no `isfinite` for it."""
    every = torch.arange(256, dtype=torch.uint8).view(dtype)
    given = every[every.float().isfinite()][:128].reshape(4, 32)
    file = kohya_file(tmp_path / "lora.safetensors", lora_down__weight=given, alpha=torch.tensor(2))
    module = only(read_lora(file))
    assert module.down.dtype == torch.float16
    assert torch.equal(module.down.float(), given.float())
    assert module.alpha == 2
    export_lora(Export(file, "kohya", tmp_path / "out.safetensors", strength=0.5))
    kohya_file(file, lora_down__weight=torch.full((4, 32), float("nan")).to(dtype))
    with pytest.raises(ModelError, match="no number"):
        read_lora(file)


CONTEXT = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_"
TEXT = "text_model.encoder.layers.0."
ILLUSTRIOUS = {"ss_base_model_version": "Illustrious_v1"}
PONY = {"ss_base_model_version": "Pony"}
V1 = {"ss_base_model_version": "sd_v1", "modelspec.architecture": "stable-diffusion-v1/lora"}
XL = {"ss_base_model_version": "sdxl_base_v1-0", "modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}


def widths_file(folder: Path, widths: dict[str, int], metadata: dict[str, str]) -> Path:
    """A LoRA of rank 2 on layers of these input widths, in kohya's layout if the names are."""
    file = folder / "lora.safetensors"
    tensors = {}
    for name, width in widths.items():
        down, up = ("lora_down", "lora_up") if name.startswith("lora_") else ("lora_A", "lora_B")
        tensors |= {f"{name}.{down}.weight": torch.zeros(2, width), f"{name}.{up}.weight": torch.zeros(8, 2)}
    save_file(tensors, file, metadata)
    return file


@pytest.mark.parametrize(
    ("widths", "metadata", "family"),
    [
        ({f"{CONTEXT}k": 768}, {}, "sd15"),
        ({f"{CONTEXT}v": 768}, XL, "sd15"),
        ({f"{CONTEXT}k": 768}, PONY, "sd15"),
        ({f"{CONTEXT}k": 2048}, {}, "sdxl"),
        ({f"{CONTEXT}v": 2048}, V1, "sdxl"),
        ({f"{CONTEXT}k": 2048}, PONY, "sdxl"),
        ({"unet.conv_in": 4, f"text_encoder_2.{TEXT}mlp.fc1": 32}, {}, "sdxl"),
        ({"unet.conv_in": 4, f"text_encoder_2.{TEXT}mlp.fc1": 32}, ILLUSTRIOUS, "sdxl"),
        ({f"lora_te2_{TEXT.replace('.', '_')}mlp_fc1": 32}, V1, "sdxl"),
        ({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": 640}, PONY, "sdxl"),
        ({"unet.mid_block.attentions.0.transformer_blocks.9.attn1.to_q": 1280}, PONY, "sdxl"),
        ({"unet.add_embedding.linear_1": 2816}, PONY, "sdxl"),
        ({"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": 320}, XL, "sd15"),
        ({"lora_unet_up_blocks_3_attentions_0_transformer_blocks_0_attn1_to_q": 320}, PONY, "sd15"),
        ({"unet.conv_in": 4}, {"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"unet.conv_in": 4}, {"ss_base_model_version": "SDXL 1.0"}, "sdxl"),
        ({"unet.conv_in": 4}, {"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        ({"unet.conv_in": 4}, PONY, "sd15"),
        ({"unet.conv_in": 4}, {}, "sd15"),
    ],
)
def test_families_are_told_apart(widths: dict[str, int], metadata: dict[str, str], family: str, tmp_path: Path) -> None:
    """Keys and shapes go before metadata, where anyone may have typed anything; both layouts can be written."""
    file = widths_file(tmp_path, widths, metadata)
    assert read_lora(file).family == family
    for layout in ("kohya", "diffusers"):
        exported = export_lora(Export(file, layout, tmp_path / f"{layout}.safetensors"))
        assert exported.family == read_lora(tmp_path / f"{layout}.safetensors").family == family


@pytest.mark.parametrize(
    ("widths", "metadata", "reason"),
    [
        ({f"{CONTEXT}k": 1024}, {}, "for SD 2.x .its U-Net attends to a text 1024 numbers wide"),
        ({f"{CONTEXT}v": 1024}, V1, "for SD 2.x .its U-Net"),
        ({f"{CONTEXT}v": 1280}, {}, "for SDXL's refiner"),
        ({f"lora_te_{TEXT.replace('.', '_')}self_attn_q_proj": 1024}, {}, "for SD 2.x .its text encoder"),
        ({"unet.conv_in": 4}, {"ss_base_model_version": "sd_v2_v"}, "for SD 2.x .its metadata say sd_v2_v"),
        ({"unet.up_blocks.3.resnets.0.time_emb_proj": 1280},
         {"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "for SD 2.x .its metadata say stable-diff"),
    ],
)  # fmt: skip
def test_other_base_models_are_refused(
    widths: dict[str, int], metadata: dict[str, str], reason: str, tmp_path: Path
) -> None:
    file = widths_file(tmp_path, widths, metadata)
    with pytest.raises(ModelError, match=f"lora.safetensors: is a LoRA {reason}.*; raylora knows SD1.5 and SDXL"):
        read_lora(file)


def test_a_lora_of_the_other_family_than_the_base_model(tiny_base_folder: Path, tmp_path: Path) -> None:
    file = widths_file(tmp_path, {f"text_encoder_2.{TEXT}mlp.fc1": 32}, {})
    for layout in ("kohya", "diffusers"):
        with pytest.raises(ModelError, match=r"is a LoRA for SDXL, and the base model is SD1.5; .*--base-model"):
            export_lora(Export(file, layout, tmp_path / "out.safetensors", base_model=str(tiny_base_folder)))
    assert read_lora(widths_file(tmp_path, {"unet.conv_in": 4}, {}), "sdxl").family == "sdxl"
