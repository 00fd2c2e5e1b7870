"""What the recorded trainings of `benchmarks/recorded` say of the measures; nothing is trained for it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import mean, variance
from typing import Any

from scipy.stats import spearmanr

from benchmarks.common import Row
from benchmarks.measures.study import WEIGHTS
from benchmarks.recorded.configurations import FIRST_STYLE, SECOND_STYLE
from benchmarks.recorded.packing import TABLE, unpack
from raylora.config import ScoreConfig
from raylora.evaluation.scorecard import closeness
from raylora.search.space import Params

LOSS, GAIN, SCORE = "holdout_loss_ratio", "similarity_gain", "score"
MEASURES = (LOSS, GAIN, SCORE, "gap", "diversity", "copying", "prompt_alignment")
MOMENTS = (100, 200, 400, 800, inf)
"""Images seen; the last is each training's own end."""
OWN_THIRD, SAME_THIRD = "a third of its own length", "400 images"
"""The two ways to compare trainings of unequal length at a third; 400 is that of the longest."""
KEPT, BEST = 1 / 4, 1 / 10
"""What share of trials the demo's search keeps at a rung, and which share of all configurations it should not lose."""
WEIGHTS_OF_SIMILARITY = (0.0, 0.1, 0.25, 0.5, 1.0)
AT_END = "end"
IMAGES, SUBSETS = (2, 4, 6, 8, 10), 20

Point = Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """One recorded training; its points have the measures, and `gap`: what the training images are better known by."""

    style: str
    number: int
    seed: int
    params: Params
    points: Sequence[Point]

    @property
    def end(self) -> Point:
        return self.points[-1]

    def at(self, images: float) -> Point:
        """The last point that was reached by so many images."""
        return [point for point in self.points if point["images_seen"] <= images][-1]


def read_trainings() -> list[Training]:
    return [
        Training(row["style"], row["number"], row["seed"], row["params"], [_with_gap(point) for point in row["points"]])
        for row in unpack(TABLE)
    ]


def _with_gap(point: Point) -> Point:
    return {**point, "gap": point["holdout_loss"] - point["train_probe_loss"]}


def by_configuration(trainings: Iterable[Training], style: str = FIRST_STYLE) -> dict[int, list[Training]]:
    found: defaultdict[int, list[Training]] = defaultdict(list)
    for training in trainings:
        if training.style == style:
            found[training.number].append(training)
    return dict(found)


def repeated(trainings: Iterable[Training]) -> list[list[Training]]:
    """The configurations of the first style that have several seeds."""
    return [members for members in by_configuration(trainings).values() if len(members) > 1]


def between_and_within(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Standard deviations between configurations and, pooled, between seeds.

    Means of few seeds differ by luck too, by the variance within over the number of seeds: that is taken off.
    """
    within = mean(variance(values) for values in groups)
    luck = mean(within / len(values) for values in groups)
    return sqrt(max(variance(mean(values) for values in groups) - luck, 0.0)), sqrt(within)


def better_half(groups: Sequence[list[Training]]) -> list[list[Training]]:
    """By the held-out loss, which has next to no luck in it: what a search chooses among in the end."""
    ranked = sorted(groups, key=lambda members: mean(one.end["holdout_loss"] for one in members))
    return ranked[: len(ranked) // 2]


def spread(trainings: Sequence[Training]) -> list[Row]:
    """By measure and images seen, of the configurations with several seeds."""
    groups = repeated(trainings)
    rows: list[Row] = []
    for name in MEASURES:
        for images in MOMENTS:
            found = _spread_of(groups, lambda one: one.at(images)[name])  # noqa: B023
            rows.append({"measure": name, "at": AT_END if images == inf else f"{images} images", **found})
        found = _spread_of(better_half(groups), lambda one: one.end[name])  # noqa: B023
        rows.append({"measure": name, "at": "end, better half", **found})
    return rows


def _spread_of(groups: Sequence[list[Training]], value: Callable[[Training], float]) -> Row:
    between, within = between_and_within([[value(one) for one in members] for members in groups])
    return {"between": between, "within": within, "ratio": between / within}


def early_order(trainings: Sequence[Training]) -> list[Row]:
    """Rank correlation of early with final scores, at a third of each own length and at the same number of images.

    Trainings of one style and seed are compared; they are 600 or 1,200 images long, on schedules as long as they are.
    """
    rows: list[Row] = []
    for style, seed in dict.fromkeys((one.style, one.seed) for one in trainings):
        members = [one for one in trainings if (one.style, one.seed) == (style, seed)]
        early = {OWN_THIRD: [one.at(one.end["images_seen"] / 3) for one in members]}
        early |= {f"{images} images": [one.at(images) for one in members] for images in MOMENTS[:-1]}
        for name in (SCORE, LOSS, GAIN):
            sign = -1 if name == LOSS else 1
            order = {
                at: _rank_correlation([sign * point[name] for point in points], [one.end[SCORE] for one in members])
                for at, points in early.items()
            }
            rows.append({"style": style, "seed": seed, "trainings": len(members), "measure": name, **order})
    return rows


def first_rung(trainings: Sequence[Training]) -> list[Row]:
    """How many of the best configurations a rung would keep, if it kept a quarter of all by their scores there."""
    members = [one for one in trainings if (one.style, one.seed) == (FIRST_STYLE, 0)]
    best = _top(members, BEST, lambda one: one.end["score"])
    rows: list[Row] = []
    for images in MOMENTS[:-1]:
        kept = _top(members, KEPT, lambda one: one.at(images)["score"])  # noqa: B023
        left = max(one.end["score"] for one in members if one.number in kept)
        lost = max(one.end["score"] for one in members) - left
        rows.append({"rung": images, "of the best": len(best), "kept": len(best & kept), "best score lost": lost})
    return rows


def _top(members: Sequence[Training], share: float, key: Callable[[Training], float]) -> set[int]:
    ranked = sorted(members, key=key, reverse=True)
    return {one.number for one in ranked[: round(share * len(ranked))]}


def other_style(trainings: Sequence[Training]) -> list[Row]:
    """Whether a configuration that is good on one style is so on the other, which has one seed alone."""
    first, second = by_configuration(trainings), by_configuration(trainings, SECOND_STYLE)
    return [
        {
            "measure": name,
            "configurations": len(second),
            "agreement": _rank_correlation(
                [mean(one.end[name] for one in first[number]) for number in second],
                [mean(one.end[name] for one in members) for members in second.values()],
            ),
        }
        for name in MEASURES
    ]


def weights(trainings: Sequence[Training]) -> list[Row]:
    """By weight of the similarity gain: the score's ratio of spreads, and how well one training's score tells the mean
    of the same configuration's other seeds, by the default weight: what a search wants to know."""
    groups = repeated(trainings)
    rows: list[Row] = []
    for w_sim in WEIGHTS_OF_SIMILARITY:
        tried = WEIGHTS.model_copy(update={"w_sim": w_sim})
        row: Row = {"w_sim": w_sim}
        for of, members in (("", groups), (", better half", better_half(groups))):
            row[f"ratio{of}"] = _spread_of(members, lambda one: _score(one, tried))["ratio"]  # noqa: B023
            row[f"foretells{of}"] = _foretells(members, tried)
        rows.append(row)
    return rows


def _foretells(groups: Sequence[list[Training]], tried: ScoreConfig) -> float:
    """Mean over seeds of the rank correlation of that seed's score with the others' mean by the default weight."""
    told = [[_score(one, tried) for one in members] for members in groups]
    truth = [[_score(one, WEIGHTS) for one in members] for members in groups]
    return mean(
        _rank_correlation([one[seed] for one in told], [mean(one[:seed] + one[seed + 1 :]) for one in truth])
        for seed in range(len(groups[0]))
    )


def _score(training: Training, tried: ScoreConfig) -> float:
    return float(closeness(training.end[LOSS], training.end[GAIN], tried))


def images_needed(trainings: Sequence[Training]) -> list[Row]:
    """The score's ratio of spreads from fewer held-out images, mean over random choices."""
    choices, groups = random.Random(0), repeated(trainings)
    rows: list[Row] = []
    for count in IMAGES:
        ratios = []
        for _ in range(SUBSETS if count < IMAGES[-1] else 1):
            chosen = choices.sample(range(IMAGES[-1]), count)
            found = _spread_of(groups, lambda one: mean(one.end["image_scores"][image] for image in chosen))  # noqa: B023
            ratios.append(found["ratio"])
        rows.append({"images": count, "ratio": mean(ratios)})
    return rows


def noise_by_image(trainings: Sequence[Training]) -> list[Row]:
    """What of the score's variance between seeds all held-out images share: more of them could not take that away."""
    groups = repeated(trainings)
    rows: list[Row] = []
    for of, members in (("all", groups), ("better half", better_half(groups))):
        whole, single = (
            mean(variance(values) for values in told) for told in (_mean_scores(members), _image_scores(members))
        )
        shared = whole - (single - whole) / (IMAGES[-1] - 1)
        rows.append({"configurations": of, "variance": whole, "shared": shared, "share": shared / whole})
    return rows


def _mean_scores(groups: Sequence[list[Training]]) -> list[list[float]]:
    return [[mean(one.end["image_scores"]) for one in members] for members in groups]


def _image_scores(groups: Sequence[list[Training]]) -> list[list[float]]:
    """Of each configuration and image, by seed."""
    return [[one.end["image_scores"][image] for one in members] for members in groups for image in range(IMAGES[-1])]


def late_rises(trainings: Sequence[Training]) -> list[Row]:
    """Trainings whose held-out loss ended above its lowest, and what their score was at that lowest."""
    rows: list[Row] = []
    for one in trainings:
        lowest = min(one.points, key=lambda point: point["holdout_loss"])
        if rise := one.end["holdout_loss"] / lowest["holdout_loss"] - 1:
            rows.append(
                {"style": one.style, "number": one.number, "seed": one.seed, "rise": rise, "gap": one.end["gap"]}
                | {"score there": lowest["score"], "score at the end": one.end["score"], "params": one.params}
            )
    return rows


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    return float(spearmanr(first, second).statistic)


TABLES: Mapping[str, Callable[[Sequence[Training]], list[Row]]] = {
    "recorded: spread": spread,
    "recorded: early order": early_order,
    "recorded: first rung": first_rung,
    "recorded: other style": other_style,
    "recorded: weights": weights,
    "recorded: held-out images": images_needed,
    "recorded: noise by image": noise_by_image,
    "recorded: late rises": late_rises,
}
