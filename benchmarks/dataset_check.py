"""What `raylora check` tells apart: near-duplicates, blur, enlargement and a dominating scene, each made on purpose.

    python -m benchmarks.dataset_check [--quick] [--json FILE]

On the demo's 104 drawings, and on photographs that scikit-image and scikit-learn ship. docs/dataset-check.md has the
tables.
"""

from __future__ import annotations

import argparse
import io
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from benchmarks.common import Row, report, target
from benchmarks.hard_pictures import SETS, burst
from raylora.bundled import DEMO_DATASET, DEMO_JUDGE
from raylora.config import DatasetConfig
from raylora.dataset.alike import MOST_DISTANCE, SAME_DISTANCE, distances, near_duplicate_groups, normalized
from raylora.dataset.check_diversity import DOMINATES, check_diversity
from raylora.dataset.check_pictures import BLURRED_PX
from raylora.dataset.pixels import THUMBNAIL_PX
from raylora.dataset.sharpness import edge_blur_px
from raylora.dataset.survey import survey
from raylora.execution.check_data import embed_with

Change = Callable[[Image.Image], Image.Image]
Pictures = Sequence[Image.Image]
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
MOST_SIDE = 512
SCENE_TAKES, OTHERS = 12, 8


def photographs() -> list[Image.Image]:
    """Sixteen, no larger than they are trained."""
    folder, other = Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images"
    files = [*(folder / name for name in PHOTOGRAPHS), other / "china.jpg", other / "flower.jpg"]
    found = [Image.open(file).convert("RGB") for file in files]
    return [ImageOps.contain(one, (MOST_SIDE, MOST_SIDE)) if max(one.size) > MOST_SIDE else one for one in found]


def drawings() -> list[Image.Image]:
    files = [file for folder in (DEMO_DATASET, DEMO_JUDGE) for file in sorted(folder.rglob("*.png"))]
    return [Image.open(file).convert("RGB") for file in files]


def faces() -> list[Image.Image]:
    """A hundred, of 25x25 px (Huang et al. 2007, Labeled Faces in the Wild), all in one pose."""
    levels = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[:100] * 255
    return [Image.fromarray(face.astype(np.uint8)).convert("RGB") for face in levels]


def saved_as_jpeg(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return change


def cut(share: float, where: float = 0.5) -> Change:
    """Without this share of width and height; `where` 0 keeps the upper left corner, 0.5 the middle."""

    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        left, top = round(width * share * where), round(height * share * where)
        return image.crop((left, top, left + round(width * (1 - share)), top + round(height * (1 - share))))

    return change


def resized(factor: float) -> Change:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def blurred(deviation_px: float) -> Change:
    return lambda image: image.filter(ImageFilter.GaussianBlur(deviation_px)) if deviation_px else image


def with_grain(levels: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        grain = np.random.default_rng(0).normal(0, levels, (image.height, image.width, 1))
        return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))

    return change


CHANGES: dict[str, Change] = {
    "JPEG, quality 90": saved_as_jpeg(90),
    "JPEG, quality 50": saved_as_jpeg(50),
    "half the size": resized(0.5),
    "blur, 1% of the width": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 100)),
    "10% brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "15% less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.85),
    "30% paler": lambda image: ImageEnhance.Color(image).enhance(0.7),
    "mirrored": ImageOps.mirror,
    "turned by 1°": lambda image: image.rotate(1, Image.Resampling.BICUBIC),
    "cut to 98%": cut(0.02),
    "cut to 95%": cut(0.05),
    "cut to 90%": cut(0.1),
}
HARMLESS = ("JPEG, quality 90", "JPEG, quality 50", "half the size", "15% less contrast", "mirrored")
"""After which a picture is still the same to whoever looks at it. Made brighter, what was bright is lost."""
WAYS: dict[str, Change] = {
    "": lambda image: image,
    "JPEG 75": saved_as_jpeg(75),
    "JPEG 50": saved_as_jpeg(50),
    "grain 3": with_grain(3),
}


def thumbnails(images: Pictures) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    return np.stack([normalized(ImageOps.fit(one, size, Image.Resampling.LANCZOS).tobytes()) for one in images])


def changed_rows(kind: str, images: Pictures) -> list[Row]:
    """How far changed pictures are from themselves."""
    plain = thumbnails(images)
    rows = []
    for name, change in CHANGES.items():
        found = np.diagonal(distances(plain, thumbnails([change(image) for image in images])))
        rows.append(
            {"table": "changed", "pictures": kind, "change": name, "median": float(np.median(found)),
             "largest": float(found.max()), "nearly the same": f"{np.mean(found < MOST_DISTANCE):.0%}",
             "the same": f"{np.mean(found < SAME_DISTANCE):.0%}"}
        )  # fmt: skip
    return rows


def different_row(kind: str, images: Pictures) -> Row:
    """How near different pictures are, of those by whose thumbnails anything can be told."""
    vectors = thumbnails(images)
    told = vectors[~np.isnan(vectors).any(axis=1)]
    pairs = np.sort(distances(told, told)[np.triu_indices(len(told), 1)])
    return {
        "table": "different",
        "pictures": kind,
        "images": len(images),
        "can be told": len(told),
        "pairs": len(pairs),
        "nearest": float(pairs[0]) if len(pairs) else None,
        "1%": float(np.quantile(pairs, 0.01)) if len(pairs) else None,
        "median": float(np.median(pairs)) if len(pairs) else None,
        "nearly the same": int((pairs < MOST_DISTANCE).sum()),
        "the same": int((pairs < SAME_DISTANCE).sum()),
    }


def hard_rows(photos: Pictures) -> list[Row]:
    """The same of sets that are mostly ground; and of frames of a burst, which may well be nearly the same."""
    rows = [different_row(kind, make()) for kind, make in SETS.items()]
    return rows + [different_row(f"burst of photograph {number}", burst(photos[number])) for number in (0, 3, 15)]


def blur_of(image: Image.Image) -> float:
    return edge_blur_px(np.asarray(image.convert("L"), dtype=np.float32)) or 0.0


def blur_rows(kind: str, images: Pictures, deviations: Sequence[float]) -> list[Row]:
    """Blur as it is measured, of pictures blurred on purpose and saved in several ways."""
    rows = []
    for deviation, (way, save) in itertools.product(deviations, WAYS.items()):
        found = [blur_of(save(blurred(deviation)(image))) for image in images]
        rows.append(
            {"table": "blur", "pictures": kind, "blurred by, px": deviation, "saved": way, **_spread(found)}
        )  # fmt: skip
    return rows


def enlarged_rows(kind: str, images: Pictures) -> list[Row]:
    """The same of pictures made smaller and enlarged again."""
    rows = []
    for factor in (1, 1.25, 1.5, 2, 3, 4):
        found = [blur_of(resized(1 / factor)(image).resize(image.size, Image.Resampling.LANCZOS)) for image in images]
        rows.append({"table": "enlarged", "pictures": kind, "enlarged by": factor, **_spread(found)})
    return rows


def _spread(found: Sequence[float]) -> Row:
    return {
        "least": min(found),
        "median": float(np.median(found)),
        "most": max(found),
        "called blurred": f"{np.mean(np.array(found) > BLURRED_PX):.0%}",
    }


def takes(image: Image.Image, seed: int) -> list[Image.Image]:
    """One scene again and again: turned, cut and lit differently."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(SCENE_TAKES):
        turned = image.rotate(rng.uniform(-6, 6), Image.Resampling.BICUBIC)
        taken = cut(rng.uniform(0.05, 0.2), rng.uniform())(turned)
        found.append(ImageEnhance.Brightness(taken).enhance(rng.uniform(0.7, 1.3)))
    return found


def scene_rows(photos: Pictures, drawn: Pictures, scenes: int) -> list[Row]:
    """Whether a scene that dominates a set is found, and none where there is none."""
    rows = [
        _scene_row("drawings, all different", drawn, 64),
        _scene_row("photographs, all different", photos, MOST_SIDE),
    ]
    for kind, images, side in (("drawings", drawn, 64), ("photographs", photos, MOST_SIDE)):
        for number in range(scenes):
            scene, rest = takes(images[number], number), [*images[:number], *images[number + 1 :]][:OTHERS]
            rows.append(_scene_row(f"{kind}, one scene", scene, side))
            rows.append(_scene_row(f"{kind}, one scene and {OTHERS} others", [*scene, *rest], side))
    return rows


def _scene_row(kind: str, images: Pictures, side: int) -> Row:
    embed = embed_with("demo", downloads=False)
    assert embed is not None
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            image.save(Path(folder) / f"{number:03d}.png")
        seen = survey(folder)
        groups = near_duplicate_groups(seen.pictures)
        found = check_diversity(seen.pictures, seen.root, DatasetConfig(resolution=(side, side)), embed, groups)
    return {"table": "scenes", "set": kind, "images": len(images), "found": found[0].found if found else "nothing"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two scenes of each kind")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    photos, drawn = photographs(), drawings()
    different = [different_row(*one) for one in (("photographs", photos), ("drawings", drawn), ("faces", faces()))]
    changed = changed_rows("photographs", photos) + changed_rows("drawings", drawn)
    blur = blur_rows("photographs", photos, (0, 1, 1.5, 2, 3, 5)) + blur_rows("drawings", drawn, (0, 1, 1.5, 2, 3))
    enlarged = enlarged_rows("photographs", photos) + enlarged_rows("drawings", drawn)
    scenes = scene_rows(photos, drawn, 2 if options.quick else 5)
    hard = hard_rows(photos)
    rows = [*different, *hard, *changed, *blur, *enlarged, *scenes]
    report("dataset_check", rows, _targets(different, hard, changed, blur, scenes), options.json)


def _targets(
    different: list[Row], hard: list[Row], changed: list[Row], blur: list[Row], scenes: list[Row]
) -> dict[str, Row]:
    false_pairs = sum(row["nearly the same"] for row in different)
    hard_same = sum(row["the same"] for row in hard if row["pictures"] in SETS)
    hard_share = max(row["nearly the same"] / max(1, row["pairs"]) for row in hard if row["pictures"] in SETS)
    missed = sum(row["nearly the same"] != "100%" for row in changed if row["change"] in HARMLESS)
    sharp = max(row["most"] for row in blur if row["blurred by, px"] == 0)
    plain = [
        row for row in blur if row["pictures"] == "photographs" and row["blurred by, px"] == 2 and not row["saved"]
    ]
    false_scenes = sum(row["found"] != "nothing" for row in scenes if "different" in row["set"])
    alone = [row["found"] != "nothing" for row in scenes if row["set"].endswith("one scene")]
    share = float(np.mean(alone))
    return {
        "different_pairs_taken_for_the_same": target(false_pairs, "0", false_pairs == 0),
        "hard_pairs_taken_for_the_same": target(hard_same, "0", hard_same == 0),
        "most_hard_pairs_nearly_the_same": target(hard_share, "≤ 0.02", hard_share <= 0.02),
        "harmless_changes_missed": target(missed, "0", missed == 0),
        "sharp_at_most_px": target(sharp, f"< {BLURRED_PX}", sharp < BLURRED_PX),
        "blurred_by_2_at_least_px": target(plain[0]["least"], f"> {BLURRED_PX}", plain[0]["least"] > BLURRED_PX),
        "different_sets_called_one_scene": target(false_scenes, "0", false_scenes == 0),
        "one_scene_found_share": target(share, f"1 (a scene is {DOMINATES:.0%} of a set)", share == 1),
    }


if __name__ == "__main__":
    main()
