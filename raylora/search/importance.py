"""Which settings mattered in a search, and where its trials can't tell.

A setting's share is functional ANOVA's (Hutter, Hoos & Leyton-Brown 2014, https://proceedings.mlr.press/v32/hutter14.html):
of the variance of a random forest's prediction over the whole search space, what is left once all other settings are
averaged out. It is taken again and again, the trials weighted anew each time (Bayesian bootstrap; Rubin 1981), and
compared with two kinds of made-up settings:

- shadows, the columns of the real settings shuffled, which move nothing (Boruta; Kursa & Rudnicki 2010,
  https://doi.org/10.18637/jss.v036.i11). A setting *matters* if it outdoes the best shadow of the same repetition.
- planted ones, shuffled columns of the same setting that were made to move `PLANTED` of the variance. A setting
  *hardly matters* if such a one would have stood out above it.

Everything else the trials *can't tell*. Settings that a search moved together can't be told apart by any such means.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

from raylora.config import shown
from raylora.search.axes import Axis, axes_of
from raylora.search.parameter import for_optuna
from raylora.search.ranking import PARAMS_KEY

Array = npt.NDArray[np.float64]
Verdict = Literal["matters", "can't tell", "hardly matters"]

FEWEST_TRIALS = 10
"""With 10, a setting that explains 80% of the variance was found in half of the simulated searches."""
PLANTED = 0.2
"""The share of a planted setting: what "hardly matters" stays below."""
SURE = 0.9
"""In this share of the repetitions a setting must win or lose; low and high leave out half of the rest on each side."""
REPETITIONS, PLANTINGS = 60, 20
TREES, LEAF, FEATURES = 8, 2, 0.5
"""The forest: trees, trials in a leaf at least, settings that a split chooses among. In simulated searches of 10 to
100 trials, fewer features or single trees found less; of settings in pure noise, about 1% were called important."""
POINTS = 64
"""Over how many points of the other settings a value's predictions are averaged."""


@dataclass(frozen=True)
class Importance:
    """What one setting did to the score, over the whole search space.

    Args:
        setting: Optuna's name: a dotted path, or `path / other path` for a ratio.
        share: of the score's variance, 0 to 1; None where there are too few trials.
        low, high: its 90% interval. Of what isn't seen to matter it is at best known that it lies below `PLANTED`,
            so there `low` is 0 and `high` at least that.
        best: of one that matters, its values in the best quarter of the trials, in words.
    """

    setting: str
    share: float | None
    low: float
    high: float
    verdict: Verdict
    best: str = ""


def importance(trials: Sequence[FrozenTrial], seed: int = 0, leave_out: Container[str] = ()) -> list[Importance]:
    """What the trials of a search say of each searched setting, the highest shares first; the same for the same seed.

    Trials without a score don't count. Ones that were stopped early do, with what they would have gained on average
    (`credited_scores`). A setting that a trial didn't search, because its condition didn't hold, had no effect there.

    Args:
        leave_out: names of settings that were asked for but fixed by hand.
    """
    scores = credited_scores(trials)
    judged = [trial for trial in trials if trial.number in scores]
    axes = [axis for axis in axes_of(judged) if axis.name not in leave_out]
    if len(judged) < FEWEST_TRIALS or not axes:
        return [Importance(axis.name, None, 0.0, 1.0, "can't tell") for axis in axes]
    places = np.array([[axis.place(trial) for axis in axes] for trial in judged])
    found = _judge(axes, places, _without_outliers([scores[trial.number] for trial in judged]), seed)
    best = sorted(judged, key=lambda trial: -scores[trial.number])[: math.ceil(len(judged) / 4)]
    told = [
        replace(one, best=_in_words(axis, best)) if one.verdict == "matters" else one
        for axis, one in zip(axes, found, strict=True)
    ]
    return sorted(told, key=lambda one: -(one.share or 0.0))


def credited_scores(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Scores by trial number; failed and unfinished trials have none.

    A trial that was stopped early gets its last score and what finished trials gained on average after as many images:
    by its own score, being stopped would itself look like an effect of its settings. On recorded searches without
    stopping, cut as ASHA would, this kept the order of the final scores best (rank correlations 0.85 and 0.69; as they
    were 0.82 and 0.64; all at the first rung 0.80 and 0.67).
    """
    finished = {
        trial.number: float(trial.value)
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.value is not None and math.isfinite(trial.value)
    }
    curves = [(finished[trial.number], trial.intermediate_values) for trial in trials if trial.number in finished]
    stopped: dict[int, float] = {}
    for trial in trials:
        images = max(trial.intermediate_values, default=None)
        if trial.state is TrialState.PRUNED and images is not None:
            reached = [(end, _reached(curve, images)) for end, curve in curves]
            gains = [end - score for end, score in reached if score is not None]
            stopped[trial.number] = trial.intermediate_values[images] + (float(np.mean(gains)) if gains else 0.0)
    return finished | {number: score for number, score in stopped.items() if math.isfinite(score)}


def _reached(curve: dict[int, float], images: int) -> float | None:
    """The best score after that many images; None before the first report."""
    return max((score for seen, score in curve.items() if seen <= images and math.isfinite(score)), default=None)


def _without_outliers(scores: Sequence[float]) -> Array:
    """Scores with the very bad raised to Tukey's lower fence.

    A few diverged trials would otherwise be the whole variance; Hutter et al. 2014 cap the scores for this too.
    """
    values = np.array(scores)
    first, third = np.percentile(values, [25, 75])
    return np.maximum(values, first - 1.5 * (third - first)) if third > first else values


def _judge(axes: Sequence[Axis], places: Array, scores: Array, seed: int) -> list[Importance]:
    """Shares of each setting, of the best shadow and of planted settings, over and over, and what follows from them.

    Args:
        places: (trials, settings), NaN where not searched.
        scores: (trials,)
    """
    rng = np.random.default_rng(seed)
    count = len(axes)
    shares, shadows = np.empty((REPETITIONS, count)), np.empty(REPETITIONS)
    planted = np.empty((PLANTINGS, count))
    for repetition in range(REPETITIONS):
        table = _with_shadows(axes, places, rng)
        drawn = _shares(axes, table, scores, range(2 * count), rng)
        shares[repetition], shadows[repetition] = drawn[:count], drawn[count:].max()
    for repetition in range(PLANTINGS):
        for setting in range(count):
            table, moved = _plant(axes, places, scores, setting, rng)
            planted[repetition, setting] = _shares(axes, table, moved, [count + setting], rng)[0]
    wins = (shares > shadows[:, None]).mean(axis=0)
    loses = (shares[:, None] < planted[None]).mean(axis=(0, 1))
    return [_importance(axis, shares[:, at], wins[at], loses[at]) for at, axis in enumerate(axes)]


def _importance(axis: Axis, shares: Array, wins: float, loses: float) -> Importance:
    low, high = np.quantile(shares, [(1 - SURE) / 2, (1 + SURE) / 2])
    verdict: Verdict = "matters" if wins >= SURE else "hardly matters" if loses >= SURE else "can't tell"
    if verdict != "matters":
        low, high = 0.0, max(high, PLANTED)
    return Importance(axis.name, round(float(shares.mean()), 3), round(float(low), 3), round(float(high), 3), verdict)


def _with_shadows(axes: Sequence[Axis], places: Array, rng: np.random.Generator) -> Array:
    """The settings and as many shadows: (trials, 2 × settings). Random values stand where one wasn't searched."""
    table = np.hstack([places, rng.permuted(places, axis=0)])
    for column, axis in zip(table.T, [*axes, *axes], strict=True):
        missing = np.isnan(column)
        column[missing] = axis.draw(int(missing.sum()), rng)
    return table


def _plant(
    axes: Sequence[Axis], places: Array, scores: Array, setting: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """A table, and scores moved by the setting's shadow in it, where that was searched: `PLANTED` of their variance."""
    moving = rng.permutation(places[:, setting])
    searched = ~np.isnan(moving)
    effect = np.where(searched, moving - moving[searched].mean(), 0.0)
    table = _with_shadows(axes, places, rng)
    table[searched, len(axes) + setting] = moving[searched]
    table[~searched, len(axes) + setting] = axes[setting].draw(int((~searched).sum()), rng)
    spread = effect.std()
    size = math.sqrt(PLANTED / (1 - PLANTED)) * scores.std() / spread if spread > 0 else 0.0
    return table, scores + size * effect


def _shares(
    axes: Sequence[Axis], table: Array, scores: Array, columns: Sequence[int], rng: np.random.Generator
) -> Array:
    """Main effects by functional ANOVA of a forest on the trials, weighted at random: (columns,), 0 to 1.

    The marginals are averages over random points of the space and not sums over the leaves, as Optuna's are: a page
    less, and shadows and weights come along.
    """
    from sklearn.tree import DecisionTreeRegressor  # a second to import, and needed only once a search has ended

    data, weights = table.astype(np.float32), rng.exponential(size=len(scores))
    forest = [
        DecisionTreeRegressor(max_features=FEATURES, min_samples_leaf=LEAF, random_state=int(seed)).fit(
            data, scores, sample_weight=weights, check_input=False
        )
        for seed in rng.integers(2**31, size=TREES)
    ]
    laid = [axes[column % len(axes)] for column in range(table.shape[1])]
    points = np.column_stack([axis.draw(POINTS, rng) for axis in laid])
    blocks = [points]
    for column in columns:
        block = np.repeat(points[None], len(laid[column].grid), axis=0)
        block[:, :, column] = laid[column].grid[:, None]
        blocks.append(block.reshape(-1, len(laid)))
    rows = np.concatenate(blocks).astype(np.float32)
    predicted = np.mean([tree.predict(rows, check_input=False) for tree in forest], axis=0)
    overall, *marginals = np.split(predicted, np.cumsum([len(block) for block in blocks])[:-1])
    effects = np.array([marginal.reshape(-1, POINTS).mean(axis=1).var() for marginal in marginals])
    return np.clip(effects / overall.var(), 0.0, 1.0) if overall.var() > 0 else np.zeros(len(effects))


def _in_words(axis: Axis, best: Sequence[FrozenTrial]) -> str:
    """A setting's values in the best trials, as the trials were configured: a range, or the most frequent value."""
    values = [
        trial.user_attrs.get(PARAMS_KEY, {}).get(axis.name, trial.params[axis.name])
        for trial in best
        if axis.name in trial.params
    ]
    if not values:
        return f"not searched in the best {len(best)} trials"
    if axis.levels is None:
        return f"{min(values):.3g} to {max(values):.3g} in the best {len(best)} trials"
    value, times = Counter(shown(for_optuna(value)) for value in values).most_common(1)[0]
    return f"{value} in {times} of the best {len(best)} trials"
