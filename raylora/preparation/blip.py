"""Captions as sentences, by BLIP (Li et al. 2022, https://arxiv.org/abs/2201.12086)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipProcessor
from transformers.utils.logging import disable_progress_bar

from raylora.diffusion.model_files import TRANSFORMERS_WEIGHTS, check_sizes, check_tokenizer, check_weights, oversized
from raylora.errors import ModelError, first_line
from raylora.files import is_file, read_mapping

KIND = "blip"
"""The `model_type` of its configuration."""
BEAMS, MOST_TOKENS = 3, 50
"""Of a caption. Beams, and no drawing at random: the same picture always gets the same sentence."""
AGAIN = "download the model again"
CONFIG_NAME = "config.json"
PREPROCESSOR_NAMES = ("preprocessor_config.json", "processor_config.json")


def check(folder: Path, reference: str) -> None:
    """Whether a folder holds a whole BLIP: configuration, preprocessing, tokenizer, weights.

    Raises:
        ModelError: it doesn't.
    """
    for names in ((CONFIG_NAME,), PREPROCESSOR_NAMES):
        if not any(is_file(folder / name) for name in names):
            raise ModelError(f"--caption-model {reference}: has no {' or '.join(names)}; {AGAIN}, or give another")
    try:
        config = read_mapping(folder / CONFIG_NAME)
    except (OSError, ValueError):
        raise ModelError(f"--caption-model {reference}: its {CONFIG_NAME} can't be read; {AGAIN}") from None
    if config.get("model_type") != KIND:
        found = ascii(config.get("model_type"))[:100]
        raise ModelError(f"--caption-model {reference}: is a {found} model, and --caption blip needs a {KIND} one")
    try:
        for part in (config.get("text_config"), config.get("vision_config")):
            check_sizes(folder, part if isinstance(part, dict) else {})
        check_tokenizer(folder)
        check_weights(folder, TRANSFORMERS_WEIGHTS)
    except ModelError as error:
        raise ModelError(f"--caption-model {error}") from None
    for file in (folder / name for name in PREPROCESSOR_NAMES if is_file(folder / name)):
        _check_preprocessing(file, reference)


def _check_preprocessing(file: Path, reference: str) -> None:
    try:
        size = oversized(read_mapping(file))
    except (OSError, ValueError):
        raise ModelError(f"--caption-model {reference}: its {file.name} can't be read; {AGAIN}") from None
    if size:
        raise ModelError(f"--caption-model {reference}: its {file.name} has {size}; {AGAIN}")


class BlipCaptioner:
    """A BLIP model that writes captions, on a GPU where there is one."""

    def __init__(self, folder: Path, reference: str):
        disable_progress_bar()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._processor: Any = BlipProcessor.from_pretrained(folder, local_files_only=True)
            model, found = BlipForConditionalGeneration.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
        except Exception as error:  # transformers raises many kinds
            raise ModelError(f"--caption-model {reference}: can't be loaded ({first_line(error)}); {AGAIN}") from None
        wrong = sorted([*found["missing_keys"], *(str(entry[0]) for entry in found["mismatched_keys"])])
        if wrong:
            raise ModelError(f"--caption-model {reference}: its weights lack {len(wrong)} tensors that its config.json "
                             f"asks for, such as {wrong[0]}: they are another model's; {AGAIN}")  # fmt: skip
        if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
            raise ModelError(f"--caption-model {reference}: has weights that are no finite numbers; {AGAIN}")
        self._reference, self._model = reference, model.eval().to(self._device)

    @torch.no_grad()
    def captions(self, pictures: Sequence[Image.Image]) -> list[str]:
        """A sentence for each picture."""
        try:
            batch = self._processor(images=list(pictures), return_tensors="pt").to(self._device)
            tokens = self._model.generate(**batch, num_beams=BEAMS, max_new_tokens=MOST_TOKENS, do_sample=False)
            texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        except Exception as error:  # of a configuration that doesn't fit, or of a GPU that is too small
            raise ModelError(f"--caption-model {self._reference}: fails on pictures ({first_line(error)}); {AGAIN}, or "
                             "give another") from None  # fmt: skip
        return [" ".join(text.split()) for text in texts]
