"""Which settings a search may move, and for each other one why not."""

from __future__ import annotations

from raylora.config import field_paths, section_paths
from raylora.config_section import nearest

SEARCHABLE = (
    "lora.", "optimizer.", "lr_scheduler.", "loss.",
    "training.repeats", "training.epochs", "training.max_images", "training.batch_size",
    "training.gradient_accumulation", "training.ema_decay",
    "dataset.shuffle_caption", "dataset.keep_tokens", "dataset.caption_dropout", "dataset.tag_dropout",
    "dataset.caption_variants", "dataset.random_flip", "dataset.prior_loss_weight", "model.train_text_encoder",
)  # fmt: skip
"""Paths that a search may move: what is learned, and nothing of what judges it."""

_CUT = "the pictures to judge by would be cut otherwise too, and trials would not compare"
_SPLIT = "trials would be judged by different pictures, and not compare"
_BASE = "the measures compare a trial with its own base model, and another one is another search"
_SPEED = "it changes speed and memory and no score; set it"
_FILES = "it changes files and no score; set it"
WHY_NOT = {
    "seed": "trials would differ by luck; search.confirm_seeds trains the best ones again with new seeds",
    "dataset.path": _SPLIT,
    "dataset.holdout_fraction": _SPLIT,
    "dataset.folds": _SPLIT,
    "dataset.skip_bad_images": _SPLIT,
    "dataset.resolution": _CUT,
    "dataset.buckets": _CUT,
    "dataset.max_area_px": _CUT,
    "dataset.trigger": "it stands in the captions that trials are judged by too",
    "dataset.regularization": "its pictures are read and encoded once, for all trials; search once with each folder, "
    "the second time with --warm-start, or search dataset.prior_loss_weight",
    "model.base_model": _BASE,
    "model.family": _BASE,
    "model.prediction_type": "it is a property of the base model; set it",
    "model.clip_skip": "captions would be read otherwise where trials are judged too",
    "training.stop_at": "each trial's best checkpoint is found anyway; search training.epochs for other schedules",
    "training.mixed_precision": "the base model is rounded to it, also where trials and the base model itself are "
    "measured, and losses in two formats don't compare; search once with each",
    "training.save_precision": _FILES,
    "training.save_every_epochs": _FILES,
    "training.keep_last": _FILES,
    "training.checkpoint_images": "it changes no LoRA, only what is done again where a worker is lost",
    "training.gradient_checkpointing": _SPEED,
    "training.compile": _SPEED,
    "training.channels_last": _SPEED,
    "training.tf32": _SPEED,
    "sampling.": "the samples that trials are judged by are drawn so",
    "evaluation.": "it is what trials are judged by",
    "search.": "it is how the search itself goes about",
    "tracking.": "it is where the search is written down",
}
"""Why each other setting is not searched, by path or by the section's beginning."""
WHAT_CAN_BE = ", ".join(f"{path}…" if path.endswith(".") else path for path in SEARCHABLE)


def fault_of(path: str) -> str | None:
    """Why a path can't be searched, if so: it doesn't exist, or would change more than what is learned."""
    known = field_paths()
    if path in known:
        return None if path.startswith(SEARCHABLE) else f"can't be searched: {_why_not(path)}"
    if path in section_paths():
        return f"is a section; search a setting in it, such as {next(one for one in known if one.startswith(path))}"
    return f"there is no such setting{nearest(path, known) or f'; what can be searched: {WHAT_CAN_BE}'}"


def _why_not(path: str) -> str:
    return next(reason for beginning, reason in WHY_NOT.items() if path.startswith(beginning))


def field_of(path: str) -> str:
    """The setting that a path belongs to: `lora.block_ranks` of `lora.block_ranks.mid_block`, else itself."""
    return next((field for field in field_paths() if path.startswith(f"{field}.")), path)
