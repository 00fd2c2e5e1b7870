"""What the pictures of a data set are like, one by one: too small, much of them cut away, blurred, too few."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from raylora.config import SIZE_STEP_PX, DatasetConfig
from raylora.dataset.findings import Finding, names
from raylora.dataset.folder import FEWEST_IMAGES, Picture
from raylora.dataset.frames import Frame, learned_at
from raylora.dataset.places import elsewhere
from raylora.dataset.split import Groups, Split

FEW_IMAGES = 16
"""Under these, the 4 that are held out at least are more than a quarter."""
MOST_ENLARGED = 1.5
"""docs/dataset-check.md: up to here most photographs stay sharper than the softest one that wasn't enlarged; at 2 times
half of them are as soft."""
MOST_CUT = 0.35
"""A square of 3:2, as cameras have it, cuts a third away, one of 16:9 nearly half."""
BLURRED_PX = 1.0
"""docs/dataset-check.md: no sharp picture there has more than 0.7, and no photograph blurred by 2 px less than 1.3."""
TIMES_THE_SET = 2.0
"""How many times as soft as the set's middle a picture must be too: a soft style is none of its faults."""
BLANK_LEVELS = 1.0
"""Standard deviation of greys, of 255, under which a picture without an edge shows nothing."""


def check_pictures(
    pictures: Sequence[Picture], root: Path, config: DatasetConfig, groups: Groups, splits: Sequence[Split]
) -> list[Finding]:
    """How many there are, and what each is like at the size at which it is learned.

    Args:
        groups: of near-duplicates, which count as one image.
        splits: as a search makes them; none where that isn't known.
    """
    frames = {picture: frame for picture in pictures if (frame := _frame(picture, config))}
    enlarged = {picture: factor for picture, frame in frames.items() if (factor := frame.scale) > MOST_ENLARGED}
    small = enlarged if not config.buckets else _small_for_buckets(frames, config)
    return [
        *_few(pictures, root, config, groups, splits),
        *check_misfits(pictures, root, config),
        *_blank(pictures, root),
        *_low_resolution(small, root, config),
        *_cut_away(frames, root, config),
        *_blurred(frames, root),
    ]


def cut_away(frame: Frame) -> float:
    """The share of a picture that lies outside its frame."""
    (width, height), (wide, high) = frame.original, frame.size
    return 1 - wide * high / (width * height * frame.scale**2)


def _frame(picture: Picture, config: DatasetConfig) -> Frame | None:
    size = learned_at(picture.size, config)
    return Frame(picture.size, size) if size else None


def _few(
    pictures: Sequence[Picture], root: Path, config: DatasetConfig, groups: Groups, splits: Sequence[Split]
) -> list[Finding]:
    count, different = len(pictures), len(set(groups.values()))
    if different >= FEW_IMAGES:
        return []
    found = f"{count} usable image{'s' * (count != 1)}"
    found += f", only {different} of them different" * (different < count)
    if count < FEWEST_IMAGES:
        effect = f"a LoRA of so few learns them by heart, and {FEWEST_IMAGES} or more are needed"
        mend = f"add different images, at best {FEW_IMAGES} or more{elsewhere(root)}"
        return [Finding("error", "count", found, effect, mend)]
    mend = f"add different images, at best {FEW_IMAGES} or more"
    held = len(splits[0].holdout) if len(splits) == 1 else 0
    if not held:
        return [Finding("warning", "count", found, "a LoRA of so few soon learns them by heart", mend)]
    effect = f"{held} of them are held out to judge by, and which ones moves scores as much as settings do"
    if different >= FEWEST_IMAGES:  # four folds of two or more
        mend += ", or judge by several splits: --set dataset.folds=4"
    return [Finding("warning", "count", found, effect, mend)]


def _blank(pictures: Sequence[Picture], root: Path) -> list[Finding]:
    blank = [
        picture
        for picture in pictures
        if picture.look and picture.look.blur_px is None and picture.look.contrast < BLANK_LEVELS
    ]
    if not blank:
        return []
    found = f"{images_of(len(blank))} of one colour, with nothing in {'them' if len(blank) > 1 else 'it'}"
    return [
        Finding("warning", "blank", found, "the LoRA learns to draw nothing", "remove them", names(blank, root))
    ]  # fmt: skip


def check_misfits(pictures: Sequence[Picture], root: Path, config: DatasetConfig, of: str = "") -> list[Finding]:
    """Pictures that are too small for any bucket.

    Args:
        of: begins what is found, where it is not of the set itself.
    """
    misfits = [picture for picture in pictures if learned_at(picture.size, config) is None]
    if not misfits:
        return []
    found = f"{of}{images_of(len(misfits))} shorter than {SIZE_STEP_PX} px on a side"
    return [
        Finding("error", "resolution", found, "no bucket is so small", "remove them", names(misfits, root))
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
    found = f"{images_of(len(small))} smaller than {wide}x{high}, the smallest {first.size[0]}x{first.size[1]}"
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
    found = f"{images_of(len(cut))} of another shape, of which up to {cut[ordered[0]]:.0%} is cut away"
    mend = "cut them yourself around what matters" + (
        "" if config.buckets else ", or keep their shapes: --set dataset.buckets=true"
    )
    effect = "heads, hands and borders are lost, and the LoRA learns subjects that are cut off"
    return [Finding("warning", "shape", found, effect, mend, names(ordered, root))]


def _blurred(frames: dict[Picture, Frame], root: Path) -> list[Finding]:
    blurs = {one: one.look.blur_px for one in frames if one.look is not None and one.look.blur_px is not None}
    if not blurs:
        return []
    middle = statistics.median(blurs.values())
    whole = [_soft_set(blurs, middle, root)] if middle > BLURRED_PX else []
    most = max(BLURRED_PX, TIMES_THE_SET * middle)
    soft = sorted((picture for picture, blur in blurs.items() if blur > most), key=lambda picture: -blurs[picture])
    if not soft:
        return whole
    found = f"{images_of(len(soft))} blurred by up to {blurs[soft[0]]:.1f} px, the set's middle by {middle:.1f}"
    effect = "the LoRA learns blur as a part of what it is to draw"
    return [Finding("warning", "sharpness", found, effect, "replace or remove them", names(soft, root)), *whole]


def _soft_set(blurs: dict[Picture, float], middle: float, root: Path) -> Finding:
    """Most are soft: that may be what is to be learned."""
    soft = sorted((one for one, blur in blurs.items() if blur > BLURRED_PX), key=lambda picture: -blurs[picture])
    found = f"{len(soft)} of {images_of(len(blurs))} are soft, blurred by {middle:.1f} px in the middle"
    effect = "the LoRA will draw as softly"
    mend = "leave it, if that is the style; else give larger or sharper originals"
    return Finding("note", "sharpness", found, effect, mend, names(soft, root))


def images_of(count: int) -> str:
    """`1 image`, `2 images`."""
    return f"{count} image{'s' * (count != 1)}"
