"""What to try next after a verdict: the guide's cures (J2, J3) as settings, those that recorded trainings bear out.

docs/measures.md has the numbers; what diverged gets the cure of what collapsed, as no recorded training diverged. Of
alpha they bear out the opposite of the guide's advice: a higher one against underfitting, since it makes a trial learn
faster. Left out, because nothing bears them out: a lower rate or rank, fewer repeats and regularization against
overfitting, and a lower alpha, which learns less by heart and is worse for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from raylora.config import Experiment
from raylora.evaluation.verdict import Verdict

Settings = dict[str, Any]

FASTER, STRONGER, WIDER, LONGER = 2, 2, 2, 2
SLOWER = 4


def cures(verdict: Verdict, experiment: Experiment, curve: Sequence[Mapping[str, float]]) -> list[Settings]:
    """Settings to change, by dotted path, each entry a cure of its own.

    What costs no more training is first, and of that what moved the score most.

    Left out is what the configuration would refuse, such as a rank above its bound.

    Args:
        experiment: the trial's settings.
        curve: its evaluations in order.
    """
    return [cure for cure in _of_the_guide(verdict, experiment, curve) if _is_taken(cure, experiment)]


def _of_the_guide(verdict: Verdict, experiment: Experiment, curve: Sequence[Mapping[str, float]]) -> Iterable[Settings]:
    if verdict.label == "underfit":
        return [*_rates_times(experiment, FASTER), *_stronger(experiment), _wider(experiment), _longer(experiment)]
    if verdict.label == "overfit":
        return [{"training.stop_at": min(curve, key=lambda point: point["holdout_loss"])["images_seen"]}]
    if verdict.label in ("collapsed", "diverged"):
        return _rates_times(experiment, 1 / SLOWER)
    return []


def _is_taken(cure: Settings, experiment: Experiment) -> bool:
    try:
        experiment.with_params(cure)
    except ValidationError:
        return False
    return True


def _rates_times(experiment: Experiment, factor: float) -> list[Settings]:
    """Both rates; Prodigy finds its own."""
    optimizer = experiment.optimizer
    if optimizer.is_prodigy:
        return []
    rates = {"optimizer.unet_lr": optimizer.unet_rate * factor}
    if experiment.model.train_text_encoder:
        rates["optimizer.text_encoder_lr"] = optimizer.text_encoder_rate * factor
    return [rates]


def _stronger(experiment: Experiment) -> list[Settings]:
    """A higher alpha, never above the rank (guide T12). It acts like a higher rate, which Prodigy finds by itself."""
    lora = experiment.lora
    if experiment.optimizer.is_prodigy or lora.alpha >= lora.rank:
        return []
    return [{"lora.alpha": min(lora.alpha * STRONGER, float(lora.rank))}]


def _longer(experiment: Experiment) -> Settings:
    """Twice the epochs, and twice of whatever else ends a training: alone they would change nothing."""
    training = experiment.training
    ends = {"training.max_images": training.max_images, "training.stop_at": training.stop_at}
    return {
        **{path: images * LONGER for path, images in ends.items() if images is not None},
        "training.epochs": training.epochs * LONGER,
    }


def _wider(experiment: Experiment) -> Settings:
    """Twice the rank; alpha with it, so that the scale alpha / rank stays, but not above it, as the guide has it."""
    rank = experiment.lora.rank * WIDER
    return {"lora.rank": rank, "lora.alpha": min(experiment.lora.alpha * WIDER, float(rank))}


def in_words(found: Sequence[Settings]) -> str:
    """`optimizer.unet_lr=0.002 optimizer.text_encoder_lr=0.001, or training.epochs=20`."""
    return ", or ".join(" ".join(f"{path}={_short(value)}" for path, value in one.items()) for one in found)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
