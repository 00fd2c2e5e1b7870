"""`raylora generate`: pictures of a LoRA by prompts, seeds and strengths, each in a file that says how it was made."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from raylora.bundled import DEMO_BASE, DEMO_NAME
from raylora.config import Experiment, SamplingConfig
from raylora.dataset.pixels import Pixels
from raylora.diffusion.adapters import loaded_at_strength
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import DTYPES, FAMILIES, check_base_on_hub
from raylora.diffusion.generate import Request, generate
from raylora.diffusion.hub import is_hub_id, is_meant_as_path
from raylora.diffusion.infotext import Origin, Recipe, infotext, png
from raylora.diffusion.lora_file import load_lora
from raylora.diffusion.lora_reading import check_family
from raylora.diffusion.memory import enough_memory, is_out_of_memory
from raylora.diffusion.webui import signs_in
from raylora.errors import ConfigError, ModelError, RayloraError, TrainingDivergedError, UnreachableError
from raylora.execution.found_lora import FoundLora
from raylora.execution.numbered import NumberedFolder, check_folder
from raylora.execution.trial import fresh_base, pick_device
from raylora.files import exists, sha256_of

Warn = Callable[[str], None]
HASH_DIGITS, LORA_HASH_DIGITS = 10, 12
MOST_TOLD, LONGEST_SIGN = 4, 40
"""Signs in a warning, and characters of one."""


@dataclass(frozen=True)
class Generation:
    """Pictures that are to be made, checked as far as that goes without loading a model."""

    lora: FoundLora
    experiment: Experiment
    recipes: Sequence[Recipe]
    folder: Path
    batch_size: int


@dataclass(frozen=True)
class Made:
    """A picture that was made, and its file."""

    recipe: Recipe
    file: Path


def check_generation(wanted: Generation, warn: Warn) -> None:
    """Look at everything that is needed, before a model is loaded or anything is written.

    Raises:
        UserError: base model, LoRA or folder can't be used.
    """
    model, lora = wanted.experiment.model, wanted.lora
    if model.base_model is None:
        raise ConfigError("no base model: give --base-model, or a LoRA that lies beside its experiment.yaml or is "
                          "registered")  # fmt: skip
    check_family(lora.file, model.family)
    check_folder(wanted.folder)
    _check_base(model.base_model, model.family, lora)
    _warn_of_signs(_texts(wanted.recipes), warn)
    if any(recipe.negative_prompt and recipe.guidance_scale <= 1 for recipe in wanted.recipes):
        warn("a negative prompt has no effect at a guidance scale of 1 or less")


def _texts(recipes: Sequence[Recipe]) -> list[str]:
    """All prompts and all negative ones that count, each once."""
    negatives = (recipe.negative_prompt for recipe in recipes if recipe.guidance_scale > 1)
    return list(dict.fromkeys([*(recipe.prompt for recipe in recipes), *filter(None, negatives)]))


def _warn_of_signs(texts: Sequence[str], warn: Warn) -> None:
    """Prompts that were written for a webui."""
    signs = list(dict.fromkeys(sign for text in texts for sign in signs_in(text)))
    if signs:
        more = f" and {len(signs) - MOST_TOLD} more" if len(signs) > MOST_TOLD else ""
        told = ", ".join(sign if len(sign) <= LONGEST_SIGN else f"{sign[:LONGEST_SIGN]}…" for sign in signs[:MOST_TOLD])
        warn(f"{told}{more}: signs by which webuis weigh and part words; here a prompt is read as it stands, to the "
             "letter; leave them out")  # fmt: skip


def _check_base(base: str, family: str, lora: FoundLora) -> None:
    """Whether there is such a base model, here or on the hub, of the LoRA's family.

    Raises:
        ModelError: there isn't.
    """
    try:
        check_base_on_hub(base, family)
    except UnreachableError:
        raise
    except ModelError as error:
        if is_meant_as_path(base) and not exists(Path(base)):
            raise ModelError(f"{error}, with --base-model") from None
        other = next(name for name in FAMILIES if name != family)
        if lora.family == family and _is_of(base, other):
            raise ModelError(
                f"{lora.reference}: is a LoRA for {FAMILIES[family].title}, and the base model {base} is a "
                f"{FAMILIES[other].title}; give the LoRA's own with --base-model"
            ) from None
        raise


def _is_of(base: str, family: str) -> bool:
    try:
        check_base_on_hub(base, family)
    except ModelError:
        return False
    return True


def generate_pictures(wanted: Generation, warn: Warn) -> Iterator[Made]:
    """Make the pictures in their order; each is in its file when it is told.

    A picture depends on its recipe and the models alone. What else is made beside it moves its colours by no more than
    rounding does.

    Raises:
        ModelError: base model or LoRA can't be used.
        RayloraError: what comes out is no picture, or memory is too small for a single one.
    """
    base = _loaded(wanted)
    folder, origin = NumberedFolder(wanted.folder), origin_of(base, wanted)
    _warn_of_long(base, wanted.recipes, warn)
    at_once = wanted.batch_size
    for _, group in groupby(wanted.recipes, key=_kind):
        waiting = list(group)
        while waiting:
            pictures = _unless_too_many(base, waiting[:at_once])
            if pictures is None:
                at_once = _halved(min(at_once, len(waiting)), base.dtype, warn)
                continue
            for recipe, pixels in zip(waiting, pictures, strict=False):
                yield Made(recipe, folder.save(png(pixels, infotext(recipe, origin)), recipe.seed))
            waiting = waiting[len(pictures) :]


def _loaded(wanted: Generation) -> BaseModel:
    """The base model with the LoRA on it.

    Raises:
        ModelError: one of them can't be used.
        RayloraError: memory is too small for them.
    """
    dtype = DTYPES[wanted.experiment.training.mixed_precision]
    with enough_memory("as base model and LoRA are loaded", _smaller(dtype)):
        base = fresh_base(wanted.experiment, pick_device())
        load_lora(base, wanted.lora.file)
    return base


def _smaller(dtype: torch.dtype) -> str:
    """What takes less memory than these numbers."""
    if dtype == torch.float32:
        return "use --set training.mixed_precision=bf16, which takes half of it (fp16, where the GPU has no bf16)"
    return "end what else uses it, or take a machine that has more"


def _kind(recipe: Recipe) -> tuple[object, ...]:
    """What pictures have in common that can be made at once."""
    return recipe.strength, recipe.size, recipe.steps, recipe.guidance_scale, recipe.negative_prompt


def _unless_too_many(base: BaseModel, recipes: Sequence[Recipe]) -> list[Pixels] | None:
    """Pictures of one kind; None where memory runs out: with the error's traceback goes what fills the memory."""
    first = recipes[0]
    fields = ("negative_prompt", "steps", "guidance_scale")
    sampling = SamplingConfig().model_copy(update={name: getattr(first, name) for name in fields})
    requests = [Request(recipe.prompt, recipe.seed, recipe.size) for recipe in recipes]
    try:
        with loaded_at_strength(base, first.strength):
            return generate(base, requests, sampling, len(requests))
    except TrainingDivergedError:
        mend = ", or use --set training.mixed_precision=bf16" if base.dtype == torch.float16 else ""
        raise RayloraError(
            f"the pictures are no numbers at strength {first.strength:g} and guidance scale {first.guidance_scale:g}; "
            f"lower these{mend}"
        ) from None
    except Exception as error:
        if is_out_of_memory(error):
            return None
        raise


def _halved(count: int, dtype: torch.dtype, warn: Warn) -> int:
    if count == 1:
        raise RayloraError(f"out of memory with one picture at a time; give a smaller --size, or {_smaller(dtype)}")
    warn(f"out of memory with {count} pictures at once; going on with {count // 2}")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return count // 2


def _warn_of_long(base: BaseModel, recipes: Sequence[Recipe], warn: Warn) -> None:
    """Prompts of which the text encoder reads the beginning alone."""
    for prompt in _texts(recipes):
        tokens, most = len(base.tokenizer(prompt).input_ids), base.tokenizer.model_max_length
        if tokens > most:
            warn(f"{prompt[:40]}…: has {tokens} tokens, and only the first {most} are read; shorten it")


def origin_of(base: BaseModel, wanted: Generation) -> Origin:
    """The models as a webui knows them."""
    return Origin(
        lora_name=wanted.lora.name,
        lora_hash=wanted.lora.digest[:LORA_HASH_DIGITS],
        model=_model_name(base.reference),
        model_hash=_file_hash(Path(base.reference)),
        sampler=type(base.sampler).__name__,
        sampler_config=dict(base.sampler.config),
        clip_skip=base.clip_skip if base.clip_skip != base.family.clip_skip else None,
    )


def _model_name(reference: str) -> str:
    path = Path(reference)
    if path == DEMO_BASE:
        return DEMO_NAME
    return path.name if is_hub_id(reference) or path.suffix != ".safetensors" else path.stem


def _file_hash(path: Path) -> str | None:
    """The webui's short hash of a checkpoint in one file; it has none of folders."""
    if path.suffix != ".safetensors":
        return None
    return sha256_of(path)[:HASH_DIGITS]


def usual_batch(experiment: Experiment, recipes: Sequence[Recipe]) -> int:
    """Pictures at once where nobody says: as many as are measured at once, fewer of pictures beyond 512² px."""
    most = max(math.prod(recipe.size) for recipe in recipes)
    return max(1, min(experiment.evaluation.batch_size, experiment.evaluation.batch_size * 512**2 // most))
