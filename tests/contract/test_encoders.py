"""One contract for every kind of image encoder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import normalize
from transformers import (
    AutoTokenizer,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

from raylora.bundled import DEMO_ENCODER
from raylora.dataset.pixels import Pixels
from raylora.errors import ModelError
from raylora.evaluation.encoders import IMAGE_ENCODERS, load_encoder

SIZE_PX = 32
WIDTH = 24
TINY = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT_LENGTH = 16
WORDS = {"<unk>": 0, "</s>": 1, "red": 2, "Red": 3, "hair": 4, "blue": 5, "eyes": 6, ",": 7}
OWN_CLASS = """
import numpy as np
import torch
from PIL import Image


class Faces:
    def __init__(self, device):
        self.device = torch.device(device)

    def images(self, pixels):
        small = [np.asarray(Image.fromarray(picture).resize((4, 2)), np.float32) - 128 for picture in pixels]
        return torch.nn.functional.normalize(torch.tensor(np.stack(small), device=self.device).flatten(1), dim=-1)
"""


def write_preprocessor(folder: Path, kind: str) -> None:
    settings = {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"shortest_edge": SIZE_PX},
        "do_center_crop": True,
        "crop_size": {"height": SIZE_PX, "width": SIZE_PX},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": True,
        "resample": 3,
        "patch_size": 8,
        "max_num_patches": 16,
    }
    if kind.startswith("Siglip"):  # these don't crop
        settings |= {"do_center_crop": None, "crop_size": None, "size": {"height": SIZE_PX, "width": SIZE_PX}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def make_clip(folder: Path, **settings: object) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_ENCODER)
    tiny = {**TINY, "hidden_size": 32, **settings}
    text = {**tiny, "vocab_size": len(tokenizer), "max_position_embeddings": TEXT_LENGTH}
    vision = {**tiny, "image_size": SIZE_PX, "patch_size": 8}
    text |= {"bos_token_id": 0, "eos_token_id": 1}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_preprocessor(folder, "CLIPImageProcessor")


def make_openclip(folder: Path) -> None:
    """As LAION's models are on the hub: CLIP's classes, OpenCLIP's plain GELU and its weights' file beside."""
    make_clip(folder, hidden_act="gelu")
    shutil.copy(folder / "model.safetensors", folder / "open_clip_model.safetensors")


def make_dinov2(folder: Path) -> None:
    config = Dinov2Config(**VISION_OF_DINO)
    Dinov2Model(config).save_pretrained(folder)
    write_preprocessor(folder, "BitImageProcessor")


def make_dinov2_with_registers(folder: Path) -> None:
    config = Dinov2WithRegistersConfig(**VISION_OF_DINO, num_register_tokens=2)
    Dinov2WithRegistersModel(config).save_pretrained(folder)
    write_preprocessor(folder, "BitImageProcessor")


VISION_OF_DINO = {**TINY, "intermediate_size": None, "image_size": SIZE_PX, "patch_size": 8, "mlp_ratio": 2}


def write_siglip_tokenizer(folder: Path, tokenizer_class: str) -> None:
    """Tells cases apart and pads on the left, unless it is asked otherwise; its class is named as on the hub."""
    words = Tokenizer(WordLevel(WORDS, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", WORDS["</s>"])])
    special = {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>", "padding_side": "left"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "tokenizer_class": tokenizer_class}))


SIGLIP_TEXT = {**TINY, "vocab_size": len(WORDS), "max_position_embeddings": TEXT_LENGTH}


def make_siglip(folder: Path) -> None:
    vision = {**TINY, "image_size": SIZE_PX, "patch_size": 8}
    SiglipModel(SiglipConfig(text_config=SIGLIP_TEXT, vision_config=vision)).save_pretrained(folder)
    write_siglip_tokenizer(folder, "SiglipTokenizer")
    write_preprocessor(folder, "SiglipImageProcessor")


def make_siglip2(folder: Path) -> None:
    """The kind that keeps a picture's aspect ratio; others of SigLIP 2 are of SigLIP's type."""
    vision = {**TINY, "num_patches": 16, "patch_size": 8}
    Siglip2Model(Siglip2Config(text_config=SIGLIP_TEXT, vision_config=vision)).save_pretrained(folder)
    write_siglip_tokenizer(folder, "GemmaTokenizer")
    write_preprocessor(folder, "Siglip2ImageProcessor")


ENCODER_MAKERS: dict[str, Callable[[Path], None]] = {
    "clip": make_clip,
    "openclip": make_openclip,
    "siglip": make_siglip,
    "siglip2": make_siglip2,
    "dinov2": make_dinov2,
    "dinov2_with_registers": make_dinov2_with_registers,
}
OWN = "contract_faces:Faces"
ALL = [*ENCODER_MAKERS, OWN]


@pytest.fixture(scope="module")
def encoder_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real, tiny, untrained model of each kind, as its library saves it."""
    torch.manual_seed(0)
    folders = {}
    for kind, make in ENCODER_MAKERS.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        make(folders[kind])
    return folders


@pytest.fixture
def encoders(encoder_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What `evaluation.encoder` would say for each."""
    (tmp_path / "contract_faces.py").write_text(OWN_CLASS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "contract_faces", raising=False)
    return {**{kind: str(folder) for kind, folder in encoder_folders.items()}, OWN: OWN}


def test_every_kind_is_tried(encoder_folders: dict[str, Path]) -> None:
    kinds = {json.loads((folder / "config.json").read_text())["model_type"] for folder in encoder_folders.values()}
    assert kinds == set(IMAGE_ENCODERS)


def pictures(count: int, width: int = SIZE_PX, height: int = SIZE_PX) -> Pixels:
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ALL)
def test_every_encoder_gives_unit_vectors(kind: str, encoders: dict[str, str]) -> None:
    vectors = load_encoder(encoders[kind]).images(pictures(3))
    assert vectors.shape == (3, WIDTH)
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    assert vectors.norm(dim=-1).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("kind", ALL)
def test_every_encoder_tells_pictures_apart_and_always_alike(kind: str, encoders: dict[str, str]) -> None:
    first, again = (load_encoder(encoders[kind]) for _ in range(2))
    vectors = first.images(pictures(3))
    assert torch.equal(vectors, first.images(pictures(3)))
    assert torch.equal(vectors, again.images(pictures(3)))
    cosines = vectors @ vectors.T
    assert float((cosines - torch.eye(3) * 2).max()) < 0.9999


@pytest.mark.parametrize("kind", ALL)
def test_every_encoder_takes_pictures_of_any_size_and_each_by_itself(kind: str, encoders: dict[str, str]) -> None:
    encoder = load_encoder(encoders[kind])
    batch = pictures(2, width=96, height=64)
    together = encoder.images(batch)
    assert torch.allclose(together[1], encoder.images(batch[1:])[0], atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_every_encoder_knows_texts_or_says_that_it_does_not(kind: str, encoders: dict[str, str]) -> None:
    vectors = load_encoder(encoders[kind]).texts(["red hair", "blue eyes, " * 30])
    if "clip" in kind or "siglip" in kind:
        assert vectors is not None
        assert vectors.shape == (2, WIDTH)
        assert vectors.norm(dim=-1).tolist() == pytest.approx([1, 1])
        assert not torch.allclose(vectors[0], vectors[1])
    else:
        assert vectors is None


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_texts_are_embedded_a_batch_at_a_time_and_each_once(
    kind: str, encoders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raylora.evaluation.encoders.BATCH_SIZE", 2)
    encoder: Any = load_encoder(encoders[kind])
    batches: list[int] = []
    encoder._loaded.model.text_model.register_forward_pre_hook(
        lambda _, __, inputs: batches.append(len(inputs["input_ids"])), with_kwargs=True
    )
    words = ["red", "hair", "blue", "eyes", "red hair"]
    vectors = encoder.texts([word for word in words for _ in range(3)])
    assert batches == [2, 2, 1]
    expected = torch.cat([encoder.texts([word]) for word in words])
    assert torch.allclose(vectors, expected.repeat_interleave(3, dim=0), atol=1e-5)


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_siglip_reads_texts_as_it_was_trained(kind: str, encoders: dict[str, str]) -> None:
    """In lower case, padded on the right to the full length, the padding not masked."""
    words = [WORDS[word] for word in ("red", "hair", "</s>")]
    tokens = torch.tensor([words + [WORDS["</s>"]] * (TEXT_LENGTH - len(words))])
    model = {"siglip": SiglipModel, "siglip2": Siglip2Model}[kind].from_pretrained(encoders[kind]).eval()
    with torch.no_grad():
        expected = normalize(model.get_text_features(input_ids=tokens).pooler_output, dim=-1)
    assert torch.allclose(load_encoder(encoders[kind]).texts(["Red hair"]), expected, atol=1e-6)


def test_the_demos_encoder_knows_a_picture_from_noise_and_its_caption() -> None:
    encoder = load_encoder("demo")
    assert encoder.images(pictures(2)).shape[0] == 2
    assert encoder.texts(["red hair"]) is not None


def test_an_encoder_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a bert model; known kinds are clip, siglip, siglip2, dinov2"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("kind", ENCODER_MAKERS)
@pytest.mark.parametrize("missing", ["model.safetensors", "preprocessor_config.json", "config.json"])
def test_an_encoder_that_lacks_a_file_is_refused(
    tmp_path: Path, encoder_folders: dict[str, Path], kind: str, missing: str
) -> None:
    for file in encoder_folders[kind].iterdir():
        if file.name != missing:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=f"evaluation.encoder {tmp_path}"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("reference", ["no/such/folder", "./nothing", ""])
def test_an_encoder_that_is_nowhere_is_refused(reference: str) -> None:
    with pytest.raises(ModelError, match=r"evaluation\.encoder"):
        load_encoder(reference)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_an_encoder_is_on_the_gpu_only_while_it_is_used() -> None:
    before = torch.cuda.memory_allocated()
    encoder = load_encoder("demo", "cuda")
    vectors = encoder.images(pictures(3))
    assert torch.allclose(vectors, load_encoder("demo").images(pictures(3)), atol=1e-4)
    assert torch.cuda.memory_allocated() <= before
