"""What the recordings say: spread between seeds and configurations, how early the order settles, known truths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import mean, stdev, variance

import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.common import Row
from benchmarks.measures.cases import CASES, GOOD
from benchmarks.measures.record import NOISES, POINTS, SAMPLE_SEEDS, TIMESTEPS
from raylora.config import ScoreConfig
from raylora.evaluation.scorecard import Metrics, Reference, score, similarity_gain
from raylora.evaluation.similarity import copying, diversity, paired_similarity
from raylora.evaluation.verdict import judge

WEIGHTS = ScoreConfig(ratio_ref=0.37)
"""The demo's."""
MEASURES = ("holdout_loss", "similarity_gain", "copying", "diversity", "gap", "score")
STEP_IMAGES = 4
WEIGHTS_OF_SIMILARITY = (0.0, 0.25, 0.5, 1.0)
SUBSETS = 20
"""Random choices of cells for each size of grid."""


@dataclass(frozen=True)
class Recording:
    """One training, or the base model of a style; the numbers are told in `record`."""

    style: str
    case: str
    seed: int
    numbers: dict[str, Tensor]


@dataclass(frozen=True)
class Study:
    """All recordings of all styles."""

    bases: dict[str, Recording]
    trainings: list[Recording]

    @property
    def searched(self) -> list[Recording]:
        """The trainings whose quality is not known beforehand."""
        return [training for training in self.trainings if not CASES[training.case].is_truth]

    def metrics(self, training: Recording, point: int = POINTS) -> Metrics:
        """The measures at the end of the `point`-th share of a training."""
        numbers, base = training.numbers, self.bases[training.style].numbers
        losses, samples = numbers["holdout"][point - 1], numbers["samples"][point - 1]
        found = _metrics(losses, samples, base, "holdout")
        # The probe has one noise for each timestep; so has every second draw of the held-out grid.
        return found | {"gap": float(losses[::NOISES].mean() - numbers["probe"][point - 1].mean())}

    def verdict(self, training: Recording) -> Metrics:
        """The measures at the end on the judge's pictures."""
        numbers, base = training.numbers, self.bases[training.style].numbers
        return _metrics(numbers["judge"], numbers["judge_samples"], base, "judge")


def read_study(work: Path) -> Study:
    """All recordings below a folder."""
    found = []
    for file in sorted(work.glob("*/*.safetensors")):
        case, _, seed = file.stem.rpartition(" ")
        found.append(Recording(file.parent.name, case, int(seed), load_file(file)))
    trained = {recording.style for recording in found if recording.case in CASES}
    return Study(
        bases={one.style: one for one in found if one.case not in CASES and one.style in trained},
        trainings=[recording for recording in found if recording.case in CASES],
    )


def _metrics(losses: Tensor, samples: Tensor, base: dict[str, Tensor], pictures: str) -> Metrics:
    real = base[f"{pictures}_real"]
    base_losses, base_samples = base[pictures], base["samples" if pictures == "holdout" else "judge_samples"]
    reference = Reference(
        holdout_loss=float(base_losses.mean()),
        sample_similarity=paired_similarity(base_samples, real),
        ceiling_similarity=paired_similarity(base[f"{pictures}_ceiling"], real),
    )
    metrics = {
        "holdout_loss": float(losses.mean()),
        "holdout_loss_ratio": float(losses.mean()) / reference.holdout_loss,
        "similarity_gain": similarity_gain(paired_similarity(samples, real), reference),
        "copying": copying(samples, real, base["train_real"]),
        "diversity": diversity(samples),
    }
    return metrics | {"score": score(metrics, WEIGHTS)}


def groups(recordings: Iterable[Recording], *keys: str) -> dict[tuple[object, ...], list[Recording]]:
    """Recordings by their style, case or seed."""
    found: dict[tuple[object, ...], list[Recording]] = {}
    for recording in recordings:
        found.setdefault(tuple(getattr(recording, key) for key in keys), []).append(recording)
    return found


def spread(study: Study) -> list[Row]:
    """Of each style and measure at the end: the spread between configurations against that between seeds."""
    rows = []
    for style, name in product(study.bases, MEASURES):
        cases = [
            [study.metrics(training)[name] for training in members]
            for (of_style, _), members in groups(study.searched, "style", "case").items()
            if of_style == style and len(members) > 1
        ]
        within = sqrt(mean(variance(values) for values in cases))
        between = stdev(mean(values) for values in cases)
        rows.append({"style": style, "measure": name, "between": between, "within": within, "ratio": between / within})
    return rows


def early_order(study: Study) -> list[Row]:
    """By share of training: the rank correlation of each measure with the judge's score at the end."""
    rows: list[Row] = [
        {"share": f"{point}/{POINTS}"} | {name: _agreement(study, name, point) for name in MEASURES}
        for point in range(1, POINTS + 1)
    ]
    at_images = {name: _agreement(study, name, None) for name in MEASURES}
    return [*rows, {"share": "at the same number of images, a third of the longest", **at_images}]


def weights(study: Study) -> list[Row]:
    """By weight of the similarity gain: the score's spread between configurations to that between seeds, and how far
    the nearest of what is known to be bad lies below the good configuration, in SDs between seeds."""
    rows: list[Row] = []
    for style, w_sim in product(study.bases, WEIGHTS_OF_SIMILARITY):
        tried = WEIGHTS.model_copy(update={"w_sim": w_sim})
        by_case = {
            str(case): [score(study.metrics(training), tried) for training in members]
            for (of_style, case), members in groups(study.trainings, "style", "case").items()
            if of_style == style
        }
        searched = [values for case, values in by_case.items() if not CASES[case].is_truth and len(values) > 1]
        within, between = (
            sqrt(mean(variance(values) for values in searched)),
            stdev(mean(values) for values in searched),
        )
        bad = {case: (mean(by_case[case]) - mean(by_case[GOOD])) / within for case in by_case if CASES[case].is_truth}
        nearest = max(bad, key=lambda case: bad[case])
        rows.append(
            {"style": style, "w_sim": w_sim, "ratio": between / within, "nearest bad": nearest, "SD": bad[nearest]}
        )
    return rows


def verdicts(study: Study) -> list[Row]:
    """What `raylora` says of each training, beside the best of its style and seed; with its curve."""
    rows: list[Row] = []
    for (style, seed), members in groups(study.trainings, "style", "seed").items():
        curves = {training.case: _curve(study, training) for training in members}
        best = max(curves, key=lambda case: curves[case][-1]["score"])
        rows += [
            {
                "style": style,
                "seed": seed,
                "case": case,
                "verdict": judge(curve, best=curves[best]).label,
                "curve": curve,
            }
            for case, curve in curves.items()
        ]
    return rows


def _curve(study: Study, training: Recording) -> list[Metrics]:
    """The reports of a training, as many as `judge` looks at, of three digits more than seeds differ by."""
    found = []
    for point in range(1, POINTS + 1):
        metrics = study.metrics(training, point)
        told = {name: round(metrics[name], 6) for name in ("holdout_loss", "holdout_loss_ratio", "score")}
        told["train_probe_loss"] = round(float(training.numbers["probe"][point - 1].mean()), 6)
        told["images_seen"] = int(training.numbers["images_seen"][point - 1])
        found.append({**told, "is_over": point == POINTS})
    return found


def _agreement(study: Study, name: str, point: int | None) -> float:
    """Mean over styles and seeds; a smaller loss, copying or gap is better. No point: at the same number of images."""
    sign = -1 if name in ("holdout_loss", "copying", "gap") else 1
    found = []
    for members in groups(study.searched, "style", "seed").values():
        longest = max(int(training.numbers["images_seen"][-1]) for training in members)
        early = [
            sign * study.metrics(training, point or _point_at(training, longest / 3))[name] for training in members
        ]
        found.append(float(spearmanr(early, [study.verdict(training)["score"] for training in members]).statistic))
    return mean(found)


def _point_at(training: Recording, images: float) -> int:
    """The last point that a training has reached by so many images, and a step more."""
    return sum(int(seen) <= images + STEP_IMAGES for seen in training.numbers["images_seen"])


def truths(study: Study) -> list[Row]:
    """How far each measure moves for what is known to be bad, from the good configuration, in SDs between seeds."""
    within = {(row["style"], row["measure"]): row["within"] for row in spread(study)}
    by_case = groups(study.trainings, "style", "case")

    def level(style: str, case: str, name: str) -> float:
        return mean(study.metrics(training)[name] for training in by_case[style, case])

    return [
        {"style": style, "case": case}
        | {
            name: (level(str(style), str(case), name) - level(str(style), GOOD, name)) / within[str(style), name]
            for name in MEASURES
        }
        for style, case in by_case
        if CASES[str(case)].is_truth
    ]


def grid_sizes(study: Study) -> list[Row]:
    """How well the held-out loss of fewer cells orders trainings as the judge's loss does."""
    images_most = next(iter(study.bases.values())).numbers["holdout"].shape[1]
    rows: list[Row] = []
    for images, timesteps, noises in product((2, 4, 6, 8, images_most), ((500,), (300, 700), TIMESTEPS), (1, NOISES)):
        draws = [TIMESTEPS.index(timestep) * NOISES + noise for timestep in timesteps for noise in range(noises)]

        def loss(training: Recording, chosen: Tensor, draws: Sequence[int] = draws) -> float:
            return float(training.numbers["holdout"][-1][draws][:, chosen].mean())

        agreement = _subset_agreement(study, images_most, images, loss, "holdout_loss")
        rows.append({"images": images, "timesteps": len(timesteps), "noises": noises, "agreement": agreement})
    return rows


def sample_sizes(study: Study) -> list[Row]:
    """The same for similarity with fewer samples."""
    base = next(iter(study.bases.values())).numbers
    images_most, most = base["holdout"].shape[1], len(SAMPLE_SEEDS)
    rows: list[Row] = []
    for images, seeds in product((2, 4, 6, 8, images_most), range(1, most + 1)):

        def similarity(training: Recording, chosen: Tensor, seeds: int = seeds) -> float:
            samples = training.numbers["samples"][-1].view(images_most, most, -1)[chosen, :seeds]
            real = study.bases[training.style].numbers["holdout_real"][chosen]
            return paired_similarity(samples.flatten(0, 1), real)

        agreement = _subset_agreement(study, images_most, images, similarity, "similarity_gain")
        rows.append({"images": images, "seeds": seeds, "agreement": agreement})
    return rows


def _subset_agreement(
    study: Study, images_most: int, images: int, value: Callable[[Recording, Tensor], float], judged: str
) -> float:
    """Mean rank correlation with the judge over random choices of images, styles and seeds."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(SUBSETS if images < images_most else 1):
        chosen = torch.randperm(images_most, generator=generator)[:images]
        for members in groups(study.searched, "style", "seed").values():
            ours = [value(training, chosen) for training in members]
            found.append(float(spearmanr(ours, [study.verdict(member)[judged] for member in members]).statistic))
    return mean(found)
