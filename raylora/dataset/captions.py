"""Captions as they are learned: tags shuffled and dropped, anew at every use."""

from __future__ import annotations

import numpy as np

from raylora.config import DatasetConfig


def varies(config: DatasetConfig) -> bool:
    """Whether a caption is not always learned as it was written."""
    return config.shuffle_caption or config.tag_dropout > 0 or config.caption_dropout > 0


def vary(caption: str, config: DatasetConfig, draw: tuple[int, ...]) -> str:
    """The caption as it is learned at one use: the same `draw` always gives the same.

    In kohya's order (`BaseDataset.process_caption`): the whole caption dropped, else tags shuffled, then dropped;
    the first `keep_tokens` tags stay and keep their place.
    """
    if not varies(config):
        return caption
    rng = np.random.default_rng([*draw, 1])
    if rng.random() < config.caption_dropout:
        return ""
    if not (config.shuffle_caption or config.tag_dropout):
        return caption
    tags = [tag.strip() for tag in caption.split(",")]
    kept, loose = tags[: config.keep_tokens], tags[config.keep_tokens :]
    if config.shuffle_caption:
        loose = [loose[index] for index in rng.permutation(len(loose))]
    loose = [tag for tag in loose if rng.random() >= config.tag_dropout]
    return ", ".join(kept + loose)
