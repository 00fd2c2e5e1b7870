"""What measures are called, what they mean, and how many of their digits say anything."""

from __future__ import annotations

import math

NOTHING = "–"
MEASURES = {
    "score": "score",
    "holdout_loss_ratio": "held-out loss, × base model’s",
    "holdout_loss": "held-out loss",
    "similarity_gain": "similarity gain",
    "sample_similarity": "similarity of samples",
    "prompt_alignment": "alignment with prompts",
    "diversity": "diversity of samples",
    "copying": "copying",
    "lora_mb": "LoRA file, MB",
    "train_s": "training time, s",
    "peak_memory_gib": "most memory, GiB",
}
"""What reports call measures and costs, and what they are called here."""
DIGITS = {"holdout_loss_ratio": 4, "holdout_loss": 4, "train_loss": 4, "lora_mb": 1, "train_s": 0, "peak_memory_gib": 1}
USUAL_DIGITS = 3
BASE_MEASURES = {"score": 0.0, "holdout_loss_ratio": 1.0, "similarity_gain": 0.0}
"""What the base model has by definition."""
MEANINGS = (
    ("score", "higher is better; the base model’s is 0"),
    ("holdout_loss_ratio", "lower is better; the base model’s is 1"),
    ("similarity_gain", "higher is better; 0 is the base model, 1 the most that the VAE lets through"),
    ("copying", "above 0: nearer to images that were learned than held-out ones are; can’t tell memorization"),
    ("diversity", "how much samples differ from each other"),
    ("prompt_alignment", "how well samples fit their captions"),
    ("lora_mb", "without its header"),
    ("train_s", "measuring left out"),
    ("peak_memory_gib", "while training, the base model included"),
)
"""What can be told of a LoRA beside the guide's settings and the base model, in this order, and how to read it."""


def measure(name: str, value: float | None) -> str:
    """A measure with as many digits as it has anything to say with; without its unit, which its name has."""
    if value is None or not math.isfinite(value):
        return NOTHING
    digits = USUAL_DIGITS if name == "lora_mb" and value < 1 else DIGITS.get(name, USUAL_DIGITS)
    return typeset(f"{value:,.{digits}f}")


def typeset(number: str) -> str:
    """With a minus as wide as a plus, which stands in columns."""
    return number.replace("-", "−")
