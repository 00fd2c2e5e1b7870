"""The contract of every captioner: words for pictures, always the same, and bad models told in one message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BlipForConditionalGeneration

from raylora.errors import ModelError, UnreachableError
from raylora.preparation import captioning
from raylora.preparation.captioning import CAPTIONERS, CaptionModel, find_model
from raylora.preparation.settings import PrepareSettings, build_settings
from raylora.preparation.tagger import read_tags, spoken, square
from tests.caption_models import ROWS, make_blip, make_tagger
from tests.photographs import ASTRONAUT, CAT, opened_rgb

MAKERS: dict[str, Callable[[Path], Path]] = {"blip": make_blip, "tags": make_tagger}
COLOURS = ("red", "blue", "lime", "white")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("captioners")
    return {name: make(place / name) for name, make in MAKERS.items()}


@pytest.fixture
def folder(kind: str, models: dict[str, Path], tmp_path: Path) -> Path:
    """A whole model, to be spoilt."""
    return Path(shutil.copytree(models[kind], tmp_path / kind))


def found(kind: str, reference: object, **more: object) -> CaptionModel:
    model = find_model(build_settings({"caption": kind, "caption_model": str(reference), **more}))
    assert model is not None
    return model


def plain(colour: str, size: tuple[int, int] = (50, 50)) -> Image.Image:
    return Image.new("RGB", size, colour)


every_captioner = pytest.mark.parametrize("kind", CAPTIONERS)


def test_the_command_line_knows_every_captioner() -> None:
    assert {*get_args(PrepareSettings.model_fields["caption"].annotation)} == {*CAPTIONERS, "none"}
    assert {*MAKERS} == {*CAPTIONERS}


@every_captioner
def test_there_is_a_caption_for_each_picture_of_any_size(kind: str, models: dict[str, Path]) -> None:
    pictures = [opened_rgb(ASTRONAUT), opened_rgb(CAT), plain("red", (5, 300))]
    captions = found(kind, models[kind]).load().captions(pictures)
    assert len(captions) == len(pictures)
    assert all(caption and caption == " ".join(caption.split()) for caption in captions)


@every_captioner
def test_different_pictures_have_different_captions_and_the_same_the_same(kind: str, models: dict[str, Path]) -> None:
    pictures = [plain(colour) for colour in COLOURS]
    captions = found(kind, models[kind]).load().captions(pictures)
    assert len({*captions}) > 1
    again = found(kind, models[kind]).load()
    assert captions == [text for picture in pictures for text in again.captions([picture])]


@every_captioner
def test_a_model_is_known_by_its_weights(kind: str, folder: Path, models: dict[str, Path]) -> None:
    weights = folder / CAPTIONERS[kind].weights
    assert found(kind, folder).identity == found(kind, models[kind]).identity
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert found(kind, folder).identity != found(kind, models[kind]).identity


@every_captioner
def test_a_model_is_known_by_what_it_makes_of_its_answers_too(kind: str, folder: Path, models: dict[str, Path]) -> None:
    words = folder / {"blip": "tokenizer.json", "tags": "selected_tags.csv"}[kind]
    words.write_text(words.read_text().replace("red", "scarlet"))
    assert found(kind, folder).identity != found(kind, models[kind]).identity


@every_captioner
def test_a_model_is_known_by_the_code_that_asks_it(
    kind: str, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = found(kind, models[kind]).identity
    monkeypatch.setattr(captioning, "CAPTIONERS", {**CAPTIONERS, kind: replace(CAPTIONERS[kind], rules=99)})
    assert found(kind, models[kind]).identity == {**before, "rules": 99} != before


@every_captioner
def test_a_model_without_weights_is_told_in_one_message(kind: str, folder: Path) -> None:
    (folder / CAPTIONERS[kind].weights).unlink()
    with pytest.raises(ModelError, match=rf"--caption-model .*(has|holds) no {CAPTIONERS[kind].weights}; download"):
        found(kind, folder)


@every_captioner
@pytest.mark.parametrize("weights", [b"", b"garbage" * 100])
def test_weights_that_are_none_are_told(kind: str, weights: bytes, folder: Path) -> None:
    (folder / CAPTIONERS[kind].weights).write_bytes(weights)
    with pytest.raises(ModelError, match="--caption-model"):
        found(kind, folder).load()


@every_captioner
def test_a_folder_that_is_not_there_is_told(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such folder; mend the path, or give a hub id"):
        found(kind, tmp_path / "missing")


@every_captioner
def test_a_file_is_not_taken_for_a_folder(kind: str, folder: Path) -> None:
    with pytest.raises(ModelError, match=f"is a file; give the folder that holds it with {CAPTIONERS[kind].weights}"):
        found(kind, folder / CAPTIONERS[kind].weights)


@every_captioner
def test_a_hub_id_without_a_network_is_told_and_what_needs_none(kind: str) -> None:
    needs_none = "captions of your own beside the images need no model: leave --caption out"
    with pytest.raises(UnreachableError, match=rf"--caption-model nobody/nothing.*HF_HUB_OFFLINE is set.*{needs_none}"):
        found(kind, "nobody/nothing")


@every_captioner
def test_the_default_is_on_the_hub(kind: str) -> None:
    with pytest.raises(UnreachableError, match=CAPTIONERS[kind].model):
        find_model(build_settings({"caption": kind}))


def test_without_a_captioner_there_is_no_model() -> None:
    assert find_model(PrepareSettings()) is None


# What only BLIP has.


@pytest.mark.parametrize("kind", ["blip"])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("config.json", "has no config.json"),
        ("processor_config.json", "has no preprocessor_config.json or processor_config.json"),
        ("tokenizer.json", "holds no tokenizer.json"),
    ],
)
def test_a_blip_that_lacks_a_file_is_told(kind: str, name: str, told: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=told):
        found(kind, folder)


@pytest.mark.parametrize("kind", ["blip"])
def test_weights_may_lie_in_several_files(kind: str, folder: Path, models: dict[str, Path], tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(folder, shards, ignore=shutil.ignore_patterns("model.safetensors"))
    BlipForConditionalGeneration.from_pretrained(folder).save_pretrained(shards, max_shard_size="60KB")
    files = sorted(shards.glob("model-*.safetensors"))
    assert len(files) > 1
    pictures = [plain(colour) for colour in COLOURS]
    model = found(kind, shards)
    assert model.load().captions(pictures) == found(kind, models[kind]).load().captions(pictures)
    files[-1].write_bytes(files[-1].read_bytes()[:-1] + b"\1")
    assert found(kind, shards).identity != model.identity


@pytest.mark.parametrize("kind", ["blip"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "clip"}, "is a 'clip' model, and --caption blip needs a blip one"),
        ({"vision_config": {"num_hidden_layers": 10**6}}, "1000000 for 'num_hidden_layers'"),
    ],
)
def test_another_kind_of_model_is_no_blip(kind: str, change: dict[str, object], told: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=told):
        found(kind, folder)


@pytest.mark.parametrize("kind", ["blip"])
def test_no_weight_of_a_blip_is_made_up(kind: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"its weights lack .* tensors .* such as vision_model"):
        found(kind, folder).load()


@pytest.mark.parametrize("kind", ["blip"])
@pytest.mark.parametrize(
    ("size", "told"),
    [
        ({"height": 10**6, "width": 10**6}, "has .*1000000.* px for size"),
        ({"height": 33, "width": 47}, "fails on pictures"),
    ],
)
def test_preprocessing_that_does_not_fit_is_told(kind: str, size: object, told: str, folder: Path) -> None:
    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"]["size"] = size
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=told):
        found(kind, folder).load().captions([plain("red")])


@pytest.mark.parametrize("kind", ["blip"])
def test_weights_that_are_no_numbers_are_told(kind: str, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.startswith("vision_model"))
    save_file({**weights, name: weights[name] * float("nan")}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="has weights that are no finite numbers"):
        found(kind, folder).load()


# What only taggers have.


@pytest.fixture
def tags_of(models: dict[str, Path]) -> Callable[..., list[str]]:
    def tags(image: Image.Image, **thresholds: float) -> list[str]:
        return found("tags", models["tags"], **thresholds).load().captions([image])[0].split(", ")

    return tags


def test_a_colour_comes_through_as_itself(tags_of: Callable[..., list[str]]) -> None:
    """Were the channels in the wrong order, red would be blue."""
    for colour, tag in (("red", "red background"), ("blue", "blue background"), ("lime", "green background")):
        told = {name for name in tags_of(plain(colour)) if "background" in name}
        assert told == {tag}


def test_names_come_first_then_what_is_surest_and_ratings_never(tags_of: Callable[..., list[str]]) -> None:
    assert tags_of(plain("red")) == ["some name (series)", "red background", ">_<", "simple shape"]


def test_thresholds_are_apart_for_names_and_the_rest(tags_of: Callable[..., list[str]]) -> None:
    assert tags_of(plain("black"), threshold=0.8) == ["some name (series)", ">_<"]
    assert tags_of(plain("black"), threshold=0.4, character_threshold=0.6) == [
        "some name (series)", "other name", ">_<", "simple shape", "blurry",
    ]  # fmt: skip
    assert "blurry" not in tags_of(plain("black"), threshold=0.51)


def test_the_picture_lies_whole_on_a_white_square() -> None:
    pixels = square(plain("red", (20, 10)), 20)
    assert pixels.dtype == np.float32
    assert pixels.shape == (20, 20, 3)
    assert pixels[0, 0].tolist() == pixels[19, 19].tolist() == [255, 255, 255]
    assert pixels[10, 10].tolist() == [0, 0, 255]
    assert (pixels[:, :, 0] == 0).sum() == 20 * 10


def test_padding_is_part_of_what_the_model_sees(tags_of: Callable[..., list[str]]) -> None:
    """Three quarters of the square are white: all colours are there."""
    told = tags_of(plain("black", (40, 10)))
    assert {"red background", "green background", "blue background"} <= {*told}


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_a_model_that_takes_so_many_at_once_gets_so_many(batch: int, tmp_path: Path, models: dict[str, Path]) -> None:
    pictures = [plain(colour) for colour in COLOURS]
    fixed = found("tags", make_tagger(tmp_path / "fixed", batch)).load()
    assert fixed.captions(pictures) == found("tags", models["tags"]).load().captions(pictures)


def test_a_model_of_another_shape_is_no_tagger(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"takes tensor\(float\) of .* and taggers of this kind"):
        found("tags", make_tagger(tmp_path / "free", side=None)).load()


def test_a_model_that_takes_too_many_at_once_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="takes 1000000000 pictures at once, and 64 are the most"):
        found("tags", make_tagger(tmp_path / "many", batch=10**9)).load()


@pytest.mark.parametrize("kind", ["tags"])
def test_a_model_that_takes_no_pictures_is_told(kind: str, folder: Path) -> None:
    value = helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [1.0])
    output = helper.make_tensor_value_info("sure", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Constant", [], ["sure"], value=value)], "none", [], [output])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx"
    )
    with pytest.raises(ModelError, match="takes 0 things, and taggers pictures alone"):
        found(kind, folder).load()


@pytest.mark.parametrize("kind", ["tags"])
@pytest.mark.parametrize("text", ["", "tag_id,name\n1,a\n", "name,category\n", "\xff"])
def test_a_list_that_is_none_is_told(kind: str, text: str, folder: Path) -> None:
    (folder / "selected_tags.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"its selected_tags\.csv is no table"):
        found(kind, folder)


@pytest.mark.parametrize("kind", ["tags"])
def test_a_list_of_another_model_is_told(kind: str, folder: Path) -> None:
    (folder / "selected_tags.csv").write_text("name,category\na,0\nb,0\n")
    with pytest.raises(ModelError, match=rf"gives \({len(ROWS)},\) numbers, and its selected_tags.csv has 2 tags"):
        found(kind, folder).load().captions([plain("red")])


@pytest.mark.parametrize("kind", ["tags"])
def test_answers_that_are_no_probabilities_are_told(kind: str, folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    model.graph.node[-1].op_type = "Identity"
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(ModelError, match="no probabilities"):
        found(kind, folder).load().captions([plain("red")])


@pytest.mark.parametrize(
    "name",
    ["0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@", "^_^",
     "o_o", "u_u", "x_x", "|_|", "||_||", ":d", ";)"],
)  # fmt: skip
def test_faces_of_signs_stay_as_they_are(name: str) -> None:
    assert spoken(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [("blue_eyes", "blue eyes"), ("1girl", "1girl"), ("saber_(fate)", "saber (fate)"), ("v-neck", "v-neck"),
     ("k-on!_(style)", "k-on! (style)")],
)  # fmt: skip
def test_other_tags_are_words(name: str, expected: str) -> None:
    assert spoken(name) == expected


def test_tags_are_in_the_order_of_the_models_answers(models: dict[str, Path]) -> None:
    tags = read_tags(models["tags"] / "selected_tags.csv", "")
    assert [tag.name for tag in tags][:2] == ["rating:general", "blue background"]
