"""LoRA files written, read by diffusers and by raylora, converted and changed by `raylora export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
from raylora.diffusion.lora_weights import LoraModule, LoraWeights, with_strength
from raylora.diffusion.resize import with_rank
from raylora.errors import ConfigError, ModelError, OutputError, UserError
from tests.conftest import Cli
from tests.lora_models import NAME, VARIANTS, Trained, Variant, answers, make_pipe, parts_of, train

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


def assert_same(one: LoraWeights, other: LoraWeights) -> None:
    assert one.family == other.family
    told = {(part, path): module for part, path, module in one.modules()}
    again = {(part, path): module for part, path, module in other.modules()}
    assert told.keys() == again.keys()
    for place, module in told.items():
        twin = again[place]
        assert module.alpha == twin.alpha, place
        for mine, its in ((module.down, twin.down), (module.up, twin.up), (module.magnitude, twin.magnitude)):
            assert (mine is None) == (its is None), place
            assert mine is None or its is None or (mine.dtype == its.dtype and torch.equal(mine, its)), place


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
    trained = make(family, variant)
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


# --- files of others ---


def kohya_file(path: Path, **changes: torch.Tensor | None) -> Path:
    """A file of one layer."""
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors: dict[str, Any] = {
        f"{name}.lora_down.weight": torch.randn(4, 32),
        f"{name}.lora_up.weight": torch.randn(32, 4),
        f"{name}.alpha": torch.tensor(2.0),
    }
    tensors |= {f"{name}.{field.replace('__', '.')}": tensor for field, tensor in changes.items()}
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, path)
    return path


def only(weights: LoraWeights) -> LoraModule:
    ((_, _, module),) = weights.modules()
    return module


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


@pytest.mark.parametrize(
    ("tensors", "metadata", "family"),
    [
        ({"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": 768}, {}, "sd15"),
        ({"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": 2048}, {}, "sdxl"),
        ({"unet.conv_in": 4, "text_encoder_2.text_model.encoder.layers.0.mlp.fc1": 32}, {}, "sdxl"),
        ({"unet.conv_in": 4}, {"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"unet.conv_in": 4}, {"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        ({"unet.conv_in": 4}, {}, "sd15"),
    ],
)
def test_families_are_told_apart(
    tensors: dict[str, int], metadata: dict[str, str], family: str, tmp_path: Path
) -> None:
    file = tmp_path / "lora.safetensors"
    pairs = {f"{name}.lora_{ab}.weight": torch.zeros(shape) for name, width in tensors.items()
             for ab, shape in (("A", (2, width)), ("B", (8, 2)))}  # fmt: skip
    save_file(pairs, file, metadata)
    assert read_lora(file).family == family


# --- a lower rank ---


@pytest.mark.parametrize("rank", [1, 3])
def test_a_lower_rank_is_the_best_approximation(rank: int, make: Make) -> None:
    """Layer by layer against numpy's own decomposition of the whole change."""
    weights = make("sd15", "by block").weights
    smaller, kept = with_rank(weights, rank)
    after, before = 0.0, 0.0
    worst = 1.0
    for part, path, module in weights.modules():
        u, values, vh = np.linalg.svd(change_of(module).astype(np.float64), full_matrices=False)
        best = (u[:, :rank] * values[:rank]) @ vh[:rank]
        got = smaller.parts[part][path]
        assert got.rank == min(rank, module.rank)
        assert got.down.shape[1:] == module.down.shape[1:]
        assert np.allclose(change_of(got), best if module.rank > rank else change_of(module), atol=1e-5), path
        assert got.scale == pytest.approx(module.scale)
        after, before = after + (values[:rank] ** 2).sum(), before + (values**2).sum()
        worst = min(worst, np.linalg.norm(values[:rank]) / np.linalg.norm(values))
    assert kept.overall == pytest.approx((after / before) ** 0.5)
    assert kept.worst == pytest.approx(worst)
    assert 0 < kept.worst < kept.overall < 1


def change_of(module: LoraModule) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(module.scale * module.up.flatten(1) @ module.down.flatten(1))


def test_a_rank_that_all_have_changes_nothing(make: Make) -> None:
    weights = make("sd15", "even").weights
    same, kept = with_rank(weights, 4)
    assert_same(same, weights)
    assert (kept.overall, kept.worst) == (1, 1)


def test_a_layer_that_does_nothing_loses_nothing() -> None:
    idle = LoraWeights("sd15", {"unet": {"conv_in": LoraModule(torch.randn(4, 8), torch.zeros(8, 4), 4.0)}})
    smaller, kept = with_rank(idle, 2)
    assert (kept.overall, kept.worst) == (1, 1)
    assert not change_of(only(smaller)).any()


def test_what_cannot_be_changed_is_refused(make: Make) -> None:
    plain, dora = make("sd15", "even").weights, make("sd15", "dora").weights
    with pytest.raises(ModelError, match=r"from 4 to 5.*--rank 4 or less"):
        with_rank(plain, 5)
    with pytest.raises(ModelError, match="magnitude belongs to the whole weight"):
        with_rank(dora, 2)
    with pytest.raises(ModelError, match="magnitude belongs to the whole weight"):
        with_strength(dora, 0.5)
    assert with_strength(dora, 1) is dora


# --- the command ---


def test_the_command(make: Make, tiny_base_folder: Path, tmp_path: Path, cli: Cli) -> None:
    trained = make("sd15", "even")
    write(trained, "kohya", tmp_path / "lora.safetensors", "fp16")
    run = cli("export", "lora.safetensors", "--to", "diffusers", "--out", "small.safetensors", "--rank", 2,
              "--strength", 0.5, "--save-precision", "fp32")  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "diffusers layout, sd15" in run.stdout
    assert "rank 2, alpha 0.75" in run.stdout
    assert "of the Frobenius norm" in run.stdout
    assert {tensor.dtype for tensor in load_file(tmp_path / "small.safetensors").values()} == {torch.float32}
    assert metadata_of(tmp_path / "small.safetensors")["ss_training_comment"].startswith(
        "strength 0.5 in alpha; rank 4"
    )
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base_folder, safety_checker=None)
    pipe.load_lora_weights(str(tmp_path), weight_name="small.safetensors")
    again = cli("export", "lora.safetensors", "--to", "kohya", "--out", "small.safetensors")
    assert again.returncode == 2
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
