"""Image encoders: pictures (and prompts, where the encoder knows text) as unit vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerFast

from raylora.bundled import DEMO_ENCODER, DEMO_NAME
from raylora.dataset.pixels import Pixels
from raylora.diffusion.base import digest_of
from raylora.diffusion.hub import is_meant_as_path, read_hub_config
from raylora.diffusion.tensor_cache import Framed, TensorCache, Tensors, framed_pixels
from raylora.errors import ModelError, first_line
from raylora.evaluation.encoder_folder import DEVICE_WITHOUT_WEIGHTS, check_files, load_whole, read_kind
from raylora.evaluation.encoder_place import is_at_hand
from raylora.evaluation.own_encoder import import_encoder, load_own_encoder
from raylora.files import exists, resolved
from raylora.own_code import is_own_name

BATCH_SIZE = 32
PICTURES_AT_ONCE = 4 * BATCH_SIZE
"""In memory while they are embedded: at 1024², 400 MB. Fewer would move the encoder to its device more often."""


class ImageEncoder(Protocol):
    """Maps pictures to unit vectors whose cosine says how alike they are.

    A class of your own, named as `package.module:Class`, is made by `Class(device)`, with a torch device such as
    `cpu`, on each machine that measures. It needs `images`; `texts` may be left out. A text `version` is part of what
    its cached vectors are known by: change it when other weights give other vectors. (The class's own file is a part of
    that already, and `identity` is made for it.)
    """

    @property
    def identity(self) -> str:
        """Everything that the vectors depend on, pictures aside."""

    def images(self, pixels: Sequence[Pixels]) -> Tensor:
        """Pictures (height, width, 3) of any sizes to float (pictures, width), finite and each row of length 1.

        Every picture has a vector, also one without a face. A whole dataset may come at once. On the CPU, except from a
        class of your own, which may leave them on its device.
        """

    def texts(self, prompts: Sequence[str]) -> Tensor | None:
        """The same for prompts, or None if the encoder knows no text."""


class PictureModel:
    """A transformers model with the preprocessing of pictures that was saved beside it.

    It is on its device only while it is used: between two measures the memory is the training's.
    """

    def __init__(self, reference: str, device: str):
        self._device, self._reference = device, reference
        self.model: Any = load_whole(reference, device).eval()
        self._processor = AutoImageProcessor.from_pretrained(reference, trust_remote_code=False)

    @cached_property
    def identity(self) -> str:
        """sha256 of weights, configuration and preprocessing, wherever they were loaded from."""
        settings = f"{self.model.config.to_json_string()} {self._processor.to_json_string()}"
        return hashlib.sha256(f"{digest_of(self.model)} {settings}".encode()).hexdigest()

    @contextmanager
    def placed(self) -> Iterator[Any]:
        """The model, on its device while the block lasts."""
        try:
            yield self.model.to(self._device)
        finally:
            self.model.to("cpu")

    @torch.no_grad()
    def embed(self, features: Callable[..., Any], pixels: Sequence[Pixels]) -> Tensor:
        """Unit vectors of pictures, a batch at a time, on the CPU; `features` is the model or a method of it."""
        parts = []
        with self.placed():
            for first in range(0, len(pixels), BATCH_SIZE):
                pictures = [Image.fromarray(picture) for picture in pixels[first : first + BATCH_SIZE]]
                batch = self._processor(pictures, return_tensors="pt").to(self._device)
                parts.append(_unit(features(**batch)))
        vectors = torch.cat(parts)
        if not vectors.isfinite().all():
            raise ModelError(f"evaluation.encoder {self._reference}: gives no numbers; use another")
        return vectors


Tokenize = Callable[[Sequence[str], int], dict[str, Tensor]]
"""Prompts and the length that they are padded to, in tokens, to what the text model takes."""


class PictureAndTextEncoder:
    """CLIP and SigLIP: pictures and texts in one space."""

    def __init__(self, loaded: PictureModel, tokenize: Tokenize):
        self._loaded, self._tokenize = loaded, tokenize

    @property
    def identity(self) -> str:
        return self._loaded.identity

    def images(self, pixels: Sequence[Pixels]) -> Tensor:
        return self._loaded.embed(self._loaded.model.get_image_features, pixels)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """A batch at a time, and each prompt once: a caption comes with every seed."""
        rows = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        unique = list(rows)
        with self._loaded.placed() as model:
            batches = [unique[first : first + BATCH_SIZE] for first in range(0, len(unique), BATCH_SIZE)]
            vectors = torch.cat([self._text_batch(model, batch) for batch in batches])
        return vectors[[rows[prompt] for prompt in prompts]]

    def _text_batch(self, model: Any, prompts: Sequence[str]) -> Tensor:
        tokens = self._tokenize(prompts, model.config.text_config.max_position_embeddings)
        return _unit(model.get_text_features(**{name: value.to(model.device) for name, value in tokens.items()}))


class Dinov2Encoder:
    """DINOv2's class token (Oquab et al. 2023, https://arxiv.org/abs/2304.07193), also of its models with registers
    (Darcet et al. 2023, https://arxiv.org/abs/2309.16588)."""

    def __init__(self, reference: str, device: str):
        self._loaded = PictureModel(reference, device)

    @property
    def identity(self) -> str:
        return self._loaded.identity

    def images(self, pixels: Sequence[Pixels]) -> Tensor:
        return self._loaded.embed(self._loaded.model, pixels)

    def texts(self, prompts: Sequence[str]) -> None:
        return None


def load_clip(reference: str, device: str) -> PictureAndTextEncoder:
    """CLIP's projected embeddings (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

    OpenCLIP's models in transformers' layout are CLIP models too, such as laion/CLIP-ViT-H-14-laion2B-s32B-b79K.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(reference, trust_remote_code=False)

    def tokenize(prompts: Sequence[str], length: int) -> dict[str, Tensor]:
        return dict(
            tokenizer(list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        )

    return PictureAndTextEncoder(PictureModel(reference, device), tokenize)


def load_siglip(reference: str, device: str) -> PictureAndTextEncoder:
    """SigLIP (Zhai et al. 2023, https://arxiv.org/abs/2303.15343) and SigLIP 2 (https://arxiv.org/abs/2502.14786).

    Texts are read as these were trained: in lower case, padded on the right to the full length, and with the padding
    attended to, so without a mask (https://github.com/huggingface/transformers/pull/26522). The tokenizer is read from
    tokenizer.json, because `SiglipTokenizer` needs sentencepiece.
    """
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(reference)

    def tokenize(prompts: Sequence[str], length: int) -> dict[str, Tensor]:
        texts = [prompt.lower() for prompt in prompts]
        padding = {"padding": "max_length", "padding_side": "right"}
        tokens = tokenizer(texts, truncation=True, max_length=length, return_tensors="pt", **padding)
        return {"input_ids": tokens["input_ids"]}

    return PictureAndTextEncoder(PictureModel(reference, device), tokenize)


IMAGE_ENCODERS: dict[str, Callable[[str, str], ImageEncoder]] = {
    "clip": load_clip,
    "siglip": load_siglip,
    "siglip2": load_siglip,
    "dinov2": Dinov2Encoder,
    "dinov2_with_registers": Dinov2Encoder,
}
"""By the `model_type` of the encoder's config.json. SigLIP 2's models of one fixed size are of type `siglip`."""
WITHOUT_TEXTS = ("dinov2", "dinov2_with_registers")


def check_encoder(reference: str) -> None:
    """Whether a reference can name an encoder, as far as its files' names and headers tell; reads no weights.

    Raises:
        ModelError: no such folder, one that lacks a part or is of an unknown kind, or a class that can't be imported.
    """
    if is_own_name(reference):
        import_encoder(reference)
        return
    if reference == DEMO_NAME or not (exists(resolved(Path(reference))) or is_meant_as_path(reference)):
        return
    kind = read_kind(reference)
    if kind not in IMAGE_ENCODERS:
        raise _unknown_kind(reference, kind)
    check_files(reference, reads_texts=kind not in WITHOUT_TEXTS)


def check_encoder_on_hub(reference: str) -> None:
    """Whether there is this encoder: asks the hub if it is to come from there, makes a folder's without its weights'
    numbers, and tries a class of the user's own.

    Fetches a configuration and no weights.

    Raises:
        ModelError: no such model, one of an unknown kind, another model's weights, or a class that breaks
            `ImageEncoder`'s contract.
    """
    check_encoder(reference)
    if is_own_name(reference):
        load_own_encoder(reference, "cpu")
    elif is_at_hand(reference):
        load_encoder(reference, DEVICE_WITHOUT_WEIGHTS)
    else:
        kind = _kind_on_hub(reference)
        if kind not in IMAGE_ENCODERS:
            raise _unknown_kind(reference, kind)


def embeds_texts(reference: str) -> bool:
    """Whether an encoder that was checked takes prompts too, so that `prompt_alignment` is measured.

    Raises:
        ModelError: its configuration can't be read.
    """
    if is_own_name(reference):
        return load_own_encoder(reference, "cpu").texts(["a prompt"]) is not None
    if not is_at_hand(reference):
        return _kind_on_hub(reference) not in WITHOUT_TEXTS
    return reference == DEMO_NAME or _kind_in(reference) not in WITHOUT_TEXTS


def _kind_on_hub(reference: str) -> str:
    try:
        return str(read_hub_config(reference, "config.json").get("model_type"))
    except ModelError as error:
        raise type(error)(f"evaluation.encoder {error}") from None


def _kind_in(folder: str) -> str:
    try:
        return str(AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type)
    except (OSError, ValueError) as error:
        raise ModelError(f"evaluation.encoder {folder}: its config.json can't be read: {first_line(error)}") from None


def _unknown_kind(reference: str, kind: str) -> ModelError:
    known = ", ".join(IMAGE_ENCODERS)
    return ModelError(f"evaluation.encoder {reference}: is a {kind} model; known kinds are {known}")


def load_encoder(reference: str, device: str = "cpu") -> ImageEncoder:
    """An encoder from the hub or a folder, or a class of the user's own; `demo` is the bundled one.

    Raises:
        ModelError: nothing to load, of a kind that isn't in `IMAGE_ENCODERS`, or a class that breaks the contract.
    """
    if is_own_name(reference):
        return load_own_encoder(reference, device)
    source = str(DEMO_ENCODER) if reference == DEMO_NAME else reference
    try:
        kind = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
        builder = IMAGE_ENCODERS.get(kind)
        encoder = builder(source, device) if builder else None
    except ModelError as error:
        raise ModelError(f"evaluation.encoder {reference}: {error}") from None
    except Exception as error:  # transformers and huggingface_hub raise many kinds
        raise ModelError(f"evaluation.encoder {reference}: can't be loaded: {first_line(error)}") from error
    if encoder is None:
        raise _unknown_kind(reference, kind)
    return encoder


def cached_embeddings(encoder: ImageEncoder, pictures: Sequence[Framed], cache: TensorCache) -> Tensor:
    """(pictures, width) unit vectors of pictures of the dataset.

    Some pictures are read, embedded and written before the next are read.
    """
    chunks = [pictures[first : first + PICTURES_AT_ONCE] for first in range(0, len(pictures), PICTURES_AT_ONCE)]
    return torch.cat([_embeddings_of(encoder, chunk, cache) for chunk in chunks])


def _embeddings_of(encoder: ImageEncoder, pictures: Sequence[Framed], cache: TensorCache) -> Tensor:
    identity = encoder.identity if cache.keeps else ""
    keys = [f"{picture.digest} {picture.frame.size} {picture.mirrored} {identity}" for picture in pictures]

    def make(places: list[int]) -> list[Tensors]:
        return [{"embedding": vector} for vector in encoder.images([framed_pixels(pictures[p]) for p in places])]

    return torch.stack([tensors["embedding"] for tensors in cache.get_all(keys, make)])


def _unit(features: Any) -> Tensor:
    """Vectors of length 1 on the CPU. transformers 5 wraps CLIP's features in an output object; 4 gives the tensor."""
    pooled: Tensor = getattr(features, "pooler_output", features)
    return normalize(pooled, dim=-1).cpu()
