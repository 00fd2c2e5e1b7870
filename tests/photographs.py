"""Real photographs and drawings that packages ship."""

from __future__ import annotations

from pathlib import Path

import skimage
import sklearn
from PIL import Image

from raylora.bundled import DEMO_DATASET

SKIMAGE = Path(skimage.__file__).parent / "data"
ASTRONAUT = SKIMAGE / "astronaut.png"
"""512 x 512 px, a woman who looks at the camera."""
ASTRONAUTS_FACE = (200, 90, 250, 155)
"""Left, top, right, bottom of her eyes, nose and mouth."""
CAMERAMAN = SKIMAGE / "camera.png"
"""512 x 512 px, grey, a man in profile who looks to the right."""
CAMERAMANS_FACE = (195, 115, 245, 170)
CAT = SKIMAGE / "chelsea.png"
"""451 x 300 px, a head that fills the picture."""
FLOWER = Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg"
"""640 x 427 px, an orange flower on green."""
DRAWING = next((DEMO_DATASET / "10_sks").glob("*.png"))


def opened_rgb(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB")


def off_center_face() -> Image.Image:
    """A wide picture, 382 x 200 px, with the astronaut's face near its left edge: a square in the middle cuts it."""
    return opened_rgb(ASTRONAUT).crop((130, 0, 512, 200))


def off_center_flower() -> Image.Image:
    """A wide picture, 520 x 260 px, with the flower at its left, 60 to 310 px: a square in the middle cuts it."""
    return opened_rgb(FLOWER).crop((120, 60, 640, 320))
