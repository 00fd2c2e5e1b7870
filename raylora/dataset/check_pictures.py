"""What the pictures of a data set are like, one by one: too small, much of them cut away, blurred, too few."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from raylora.config import SIZE_STEP_PX, DatasetConfig
from raylora.dataset.at_once import at_once
from raylora.dataset.findings import Finding, names
from raylora.dataset.folder import FEWEST_IMAGES, Picture
from raylora.dataset.frames import Frame, frame_of
from raylora.dataset.sharpness import picture_blur_px
from raylora.dataset.split import FEWEST_HELD_OUT
from raylora.errors import DatasetError

FEW_IMAGES = 16
"""Under these, the 4 that are held out at least are more than a quarter."""
MOST_ENLARGED = 1.25
"""docs/dataset-check.md: up to here, edges stay as sharp as those of other photographs."""
MOST_CUT = 0.3
"""Of a square, 4:3 loses a quarter, 3:2 a third and 16:9 nearly half."""
BLURRED_PX = 1.0
"""docs/dataset-check.md: no sharp picture there has more than 0.7, and no photograph blurred by 2 px less than 1.3."""
TIMES_THE_SET = 2.0
"""How many times as soft as the set's middle a picture must be too: a soft style is none of its faults."""


def check_pictures(pictures: Sequence[Picture], root: Path, config: DatasetConfig) -> list[Finding]:
    """How many there are, and what each is like at the size at which it is learned."""
    frames = {picture: frame for picture in pictures if (frame := _frame(picture, config))}
    misfits = [picture for picture in pictures if picture not in frames]
    enlarged = {picture: factor for picture, frame in frames.items() if (factor := enlargement(frame)) > MOST_ENLARGED}
    small = enlarged if not config.buckets else _small_for_buckets(frames, config)
    return [
        *_few(pictures),
        *_misfit(misfits, root),
        *_low_resolution(small, root, config),
        *_cut_away(frames, root, config),
        *_blurred(frames, root),
    ]


def enlargement(frame: Frame) -> float:
    """How many times a picture is enlarged until it covers its frame; under 1 it is made smaller."""
    (width, height), (wide, high) = frame.original, frame.size
    return max(wide / width, high / height)


def cut_away(frame: Frame) -> float:
    """The share of a picture that lies outside its frame."""
    (width, height), (wide, high) = frame.original, frame.size
    return 1 - wide * high / (width * height * enlargement(frame) ** 2)


def _frame(picture: Picture, config: DatasetConfig) -> Frame | None:
    try:
        return frame_of(picture.size, config)
    except DatasetError:
        return None


def _few(pictures: Sequence[Picture]) -> list[Finding]:
    count = len(pictures)
    if count >= FEW_IMAGES:
        return []
    found = f"{count} usable images" if count != 1 else "1 usable image"
    if count < FEWEST_IMAGES:
        effect = f"a LoRA of so few learns them by heart, and {FEWEST_IMAGES} or more are needed"
        return [Finding("error", "count", found, effect, f"add different images, at best {FEW_IMAGES} or more")]
    effect = (
        f"{FEWEST_HELD_OUT} of them are held out to judge by, more than a quarter, and which ones moves scores as much "
        "as settings do"
    )
    mend = f"add different images, at best {FEW_IMAGES} or more, or judge by several splits: --set dataset.folds=4"
    return [Finding("warning", "count", found, effect, mend)]


def _misfit(pictures: Sequence[Picture], root: Path) -> list[Finding]:
    if not pictures:
        return []
    found = f"{_images(len(pictures))} shorter than {SIZE_STEP_PX} px on a side"
    return [
        Finding("error", "resolution", found, "no bucket is so small", "remove them", names(pictures, root))
    ]  # fmt: skip


def _small_for_buckets(frames: dict[Picture, Frame], config: DatasetConfig) -> dict[Picture, float]:
    """Buckets enlarge nothing: such a picture is learned smaller than the others."""
    found = {}
    for picture, frame in frames.items():
        times = (config.bucket_area_px / (frame.original[0] * frame.original[1])) ** 0.5
        if times > MOST_ENLARGED:
            found[picture] = times
    return found


def _low_resolution(small: dict[Picture, float], root: Path, config: DatasetConfig) -> list[Finding]:
    if not small:
        return []
    first = max(small, key=lambda picture: small[picture])
    wide, high = config.resolution
    ordered = sorted(small, key=lambda picture: -small[picture])
    found = f"{_images(len(small))} smaller than {wide}x{high}, the smallest {first.size[0]}x{first.size[1]}"
    if config.buckets:
        effect = f"learned up to {small[first]:.1f} times smaller than the others, with that much less detail"
    else:
        effect = f"enlarged up to {small[first]:.1f} times, and the LoRA learns how soft that looks"
    mend = "replace them by larger originals, or lower dataset.resolution"
    return [Finding("warning", "resolution", found, effect, mend, names(ordered, root))]


def _cut_away(frames: dict[Picture, Frame], root: Path, config: DatasetConfig) -> list[Finding]:
    cut = {picture: share for picture, frame in frames.items() if (share := cut_away(frame)) > MOST_CUT}
    if not cut:
        return []
    ordered = sorted(cut, key=lambda picture: -cut[picture])
    found = f"{_images(len(cut))} of another shape, of which up to {cut[ordered[0]]:.0%} is cut away"
    mend = "cut them yourself around what matters" + (
        "" if config.buckets else ", or keep their shapes: --set dataset.buckets=true"
    )
    effect = "heads, hands and borders are lost, and the LoRA learns subjects that are cut off"
    return [Finding("warning", "shape", found, effect, mend, names(ordered, root))]


def _blur(picture: Picture, frame: Frame) -> float | None:
    """In px as it is learned; of one that is enlarged in its own, since that is told by itself."""
    blur = picture_blur_px(picture.path, frame.size)
    return None if blur is None else blur / max(1.0, enlargement(frame))


def _blurred(frames: dict[Picture, Frame], root: Path) -> list[Finding]:
    measured = at_once(lambda pair: _blur(*pair), list(frames.items()))
    blurs = {picture: blur for picture, blur in zip(frames, measured, strict=True) if blur is not None}
    if not blurs:
        return []
    middle = statistics.median(blurs.values())
    if middle > BLURRED_PX:
        return [_soft_set(blurs, middle, root)]
    most = max(BLURRED_PX, TIMES_THE_SET * middle)
    soft = sorted((picture for picture, blur in blurs.items() if blur > most), key=lambda picture: -blurs[picture])
    if not soft:
        return []
    found = f"{_images(len(soft))} blurred by up to {blurs[soft[0]]:.1f} px, the set's middle by {middle:.1f}"
    effect = "the LoRA learns blur as a part of what it is to draw"
    return [Finding("warning", "sharpness", found, effect, "replace or remove them", names(soft, root))]


def _soft_set(blurs: dict[Picture, float], middle: float, root: Path) -> Finding:
    """Most are soft: that may be what is to be learned."""
    soft = sorted((one for one, blur in blurs.items() if blur > BLURRED_PX), key=lambda picture: -blurs[picture])
    found = f"{len(soft)} of {_images(len(blurs))} are soft, blurred by {middle:.1f} px in the middle"
    effect = "the LoRA will draw as softly"
    mend = "leave it, if that is the style; else give larger or sharper originals"
    return Finding("note", "sharpness", found, effect, mend, names(soft, root))


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"
