"""Charts of a search: its course, what its settings did, and what has to be traded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raylora.config_search import HIGHER_IS_BETTER
from raylora.execution.tradeoffs import weighed
from raylora.report.chart import WIDTH, Chart, Frame, Line, Mark, Text, path_of, steps_of
from raylora.report.reading import Work
from raylora.report.scales import Scale, fenced, free, of_setting
from raylora.report.words import MEASURES, MISSING, measure, numbered, setting_value, short_names
from raylora.search.tradeoffs import pareto_front
from raylora.tracking.recorder import TrialRecord, measures

GOOD_SHARE = 4
"""The best one of so many trials stands out among the lines of all settings."""
ROW, TOP, SIDE = 46.0, 14.0, 16.0
SLICE_HEIGHT = 220.0
SPREAD = 0.3
"""Of the room of a level, over which its trials are spread so that none hides another."""


def scored(work: Work) -> list[TrialRecord]:
    """The trials that have a score."""
    return [trial for trial in work.trials if has_score(trial)]


def has_score(trial: TrialRecord) -> bool:
    return bool(trial.history) and math.isfinite(trial.score)


def shape_of(trial: TrialRecord) -> str:
    """The guide's own settings have one of their own, unless they failed."""
    return "guide" if trial.is_baseline and trial.status != "failed" else trial.status


def told(trial: TrialRecord) -> str:
    """A trial in a line, for who points at it."""
    how = trial.status.replace("_", " ")
    return f"{trial.trial_id}: score {trial.score:.3f}, {how}, {trial.images_seen:,} images"


def history(work: Work) -> Chart | None:
    """Each trial's score in the order they began, and the best so far."""
    trials = scored(work)
    if not trials or work.is_training:
        return None
    along = Scale(-0.5, max(trial.number for trial in work.trials) + 0.5, is_whole=True)
    frame = Frame(along, fenced([trial.score for trial in trials]), "trial", "score")
    failed = [trial for trial in work.trials if not has_score(trial) and trial.status == "failed"]
    points = [(trial, frame.point(trial.number, trial.score)) for trial in trials]
    marks = [Mark(x, y, shape_of(trial), told(trial), trial.trial_id) for trial, (x, y) in points]
    marks += [
        Mark(*frame.point(trial.number, frame.y.low), "failed", f"{trial.trial_id}: failed unmeasured", trial.trial_id)
        for trial in failed
    ]
    best = work.best
    low = sum(trial.score < frame.y.low for trial in trials)
    return Chart(
        "history",
        "Each trial, and the best so far",
        f"{numbered(len(trials), 'trial')} by their scores" + (f"; the best is {told(best)}" if best else ""),
        frame.height,
        frame.grid,
        [Line(steps_of(_best_so_far(frame, trials)), "best")],
        [*_halo(best, points), *marks],
        frame.texts,
        f"{numbered(low, 'trial')} below the scale." if low else "",
    )


def _halo(best: TrialRecord | None, points: Sequence[tuple[TrialRecord, tuple[float, float]]]) -> list[Mark]:
    return [Mark(x, y, "halo", told(trial), role="winner") for trial, (x, y) in points if trial is best]


def _best_so_far(frame: Frame, trials: Sequence[TrialRecord]) -> list[tuple[float, float]]:
    """Corners of the line of the highest score yet; trials over a limit can't raise it."""
    corners: list[tuple[float, float]] = []
    highest = -math.inf
    for trial in trials:
        if trial.score > highest and not trial.over_limits and trial.status != "failed":
            highest = trial.score
            corners.append(frame.point(trial.number, highest))
    end = frame.at(1, 0)[0]
    return [*corners, (end, corners[-1][1])] if corners else []


def _axis(work: Work, path: str, trials: Sequence[TrialRecord]) -> Scale:
    values = [trial.params[path] for trial in trials if path in trial.params]
    rule = work.parameters.get(path, {})
    return of_setting(values, rule if "ratio_of" not in rule else {})


def slices(work: Work) -> list[Chart]:
    """The score over each searched setting by itself."""
    trials, names = scored(work), short_names(work.searched)
    if len(trials) < 2:
        return []
    heights = fenced([trial.score for trial in trials])
    return [_slice(work, path, name, trials, heights) for path, name in names.items()]


def _slice(work: Work, path: str, name: str, trials: Sequence[TrialRecord], heights: Scale) -> Chart:
    having = [trial for trial in trials if path in trial.params]
    frame = Frame(_axis(work, path, having), heights, name, "score", SLICE_HEIGHT)
    seen: dict[float, int] = {}
    points = []
    for trial in having:
        place = frame.x.place(trial.params[path]) or 0.0
        seen[place] = seen.get(place, 0) + 1
        if frame.x.levels:
            place += _aside(seen[place]) / len(frame.x.levels)
        points.append((trial, frame.at(place, frame.y.place(trial.score) or 0.0)))
    marks = [
        Mark(x, y, shape_of(trial), f"{told(trial)}, {name} {setting_value(trial.params[path])}", trial.trial_id)
        for trial, (x, y) in points
    ]
    says = f"The score over {path} of {numbered(len(having), 'trial')}"
    drawn = [*_halo(work.best, points), *marks]
    title = f"Score by {name}"
    return Chart(f"slice-{path}", title, says, frame.height, frame.grid, [], drawn, frame.texts)


def _aside(place: int) -> float:
    """How far from the middle of its level the n-th trial stands: by turns left and right, never beyond `SPREAD`."""
    golden = (place - 1) * 0.618 % 1.0
    return (golden if place == 1 else golden - 0.5) * 2 * SPREAD * (place > 1)


def parallel(work: Work) -> Chart | None:
    """Every trial as a line through all its settings, down to its score."""
    trials, paths = scored(work), work.searched
    if len(trials) < 2 or not paths:
        return None
    scales = [*(_axis(work, path, trials) for path in paths), fenced([trial.score for trial in trials])]
    names = [*short_names(paths).values(), "score"]
    height = TOP + ROW * len(names)
    rows = [TOP + ROW * (place + 0.45) for place in range(len(names))]
    worse = len(trials) - math.ceil(len(trials) / GOOD_SHARE)
    lines = [
        Line(_through(trial, paths, scales, rows), "good" if at >= worse else "all", told(trial), trial.trial_id)
        for at, trial in enumerate(sorted(trials, key=lambda trial: trial.score))
    ]
    return Chart(
        "parallel",
        "All settings at once",
        f"{numbered(len(trials), 'trial')} as lines through {len(paths)} settings, down to the score",
        height,
        [Line(path_of([(SIDE, y), (WIDTH - SIDE, y)]), "axis") for y in rows],
        lines,
        texts=[
            text for name, scale, y in zip(names, scales, rows, strict=True) for text in _axis_words(name, scale, y)
        ],
    )


def _across(place: float) -> float:
    return round(SIDE + place * (WIDTH - 2 * SIDE), 1)


def _through(trial: TrialRecord, paths: Sequence[str], scales: Sequence[Scale], rows: Sequence[float]) -> str:
    """A line with gaps where a trial had no such setting."""
    values = [*(trial.params.get(path, MISSING) for path in paths), trial.score]
    places = [None if value is MISSING else scale.place(value) for value, scale in zip(values, scales, strict=True)]
    parts: list[list[tuple[float, float]]] = [[]]
    for place, y in zip(places, rows, strict=True):
        if place is None:
            parts.append([])
        else:
            parts[-1].append((_across(place), y))
    return "".join(path_of(part) for part in parts)


def _axis_words(name: str, scale: Scale, y: float) -> list[Text]:
    ticks = scale.ticks
    ends = ticks if scale.levels else [ticks[0], ticks[-1]] if len(ticks) > 1 else ticks
    labels = [Text(_across(tick.place), y + 14, tick.label, _side(tick.place), "tick") for tick in ends]
    return [Text(SIDE, y - 7, name, "start", "axis-name"), *labels]


def _side(place: float) -> str:
    return "start" if place < 0.08 else "end" if place > 0.92 else "middle"


def tradeoffs(work: Work) -> list[Chart]:
    """The first of `search.tradeoffs` over each other one, with the trials that none beats in all of them."""
    named = work.experiment.search.tradeoffs
    points = {trial.trial_id: measures(trial.best or {}) for trial in scored(work)}
    able = weighed(work.trials, named)
    front = [name for name in _front(work, named, able) if name in points]
    return [chart for other in named[1:] if (chart := _tradeoff(work, (named[0], other), points, able, front))]


def _front(work: Work, named: Sequence[str], able: Mapping[str, Mapping[str, float]]) -> list[str]:
    """As the summary has it; of a search under way, of the trials so far."""
    if work.summary:
        return [row["trial_id"] for row in work.summary.get("tradeoffs", {"trials": []})["trials"]]
    return pareto_front(able, named)


Points = Mapping[str, Mapping[str, float]]


def _tradeoff(work: Work, axes: tuple[str, str], points: Points, able: Points, front: Sequence[str]) -> Chart | None:
    """The first measure over the other one.

    Args:
        able: of the trials that may be on the front; the others are drawn pale.
    """
    first, other = axes
    known = {name: (point[other], point[first]) for name, point in points.items() if other in point and first in point}
    if len(known) < 2 or not front:
        return None
    heights = fenced([y for _, y in known.values()], HIGHER_IS_BETTER[first])
    frame = Frame(free([x for x, _ in known.values()]), heights, MEASURES[other], MEASURES[first])
    placed = {name: frame.point(*point) for name, point in known.items()}
    best_first = [name for name in front if name in placed]
    drawn = [trial for trial in work.trials if trial.trial_id in placed]
    marks = [
        Mark(*placed[trial.trial_id], shape_of(trial), _weighed(trial, first, other, known), trial.trial_id,
             "" if trial.trial_id in able else "pale")
        for trial in drawn
    ]  # fmt: skip
    halos = [Mark(*placed[name], "halo", name, role="front") for name in best_first]
    edge = sorted((placed[name] for name in best_first), reverse=HIGHER_IS_BETTER[other])
    return Chart(
        f"tradeoff-{other}",
        f"{MEASURES[first][:1].upper()}{MEASURES[first][1:]} against {MEASURES[other]}",
        f"{numbered(len(known), 'trial')}; none beats {', '.join(best_first)} in everything that counts",
        frame.height,
        frame.grid,
        [Line(steps_of(edge), "front")] if len(work.experiment.search.tradeoffs) == 2 else [],
        [*halos, *marks],
        [*frame.texts, *(Text(placed[name][0], placed[name][1] - 11, name, kind="name") for name in best_first[:6])],
        _reading_aid(other, any(mark.role for mark in marks)),
    )


def _reading_aid(other: str, has_pale: bool) -> str:
    better = "more" if HIGHER_IS_BETTER[other] else "less"
    told = f"Ringed: no trial beats it in everything that counts. Of {MEASURES[other]}, {better} is better."
    pale = " Pale ones don’t count: failed, over a limit, or cut off where that alone would make them cheap."
    return told + pale * has_pale


def _weighed(trial: TrialRecord, first: str, other: str, known: Mapping[str, tuple[float, float]]) -> str:
    x, y = known[trial.trial_id]
    return f"{trial.trial_id}: {MEASURES[first]} {measure(first, y)}, {MEASURES[other]} {measure(other, x)}"


def new_seeds(work: Work) -> Chart | None:
    """What each of the best trials reached with new seeds, beside what the search saw of it."""
    found: Sequence[Mapping[str, Any]] = work.summary.get("confirmed", ())
    found = [candidate for candidate in found if candidate["new_seed_scores"]]
    if not found:
        return None
    values = [score for one in found for score in (*one["new_seed_scores"], one["selection_score"])]
    height = TOP + ROW * 0.8 * len(found) + 44
    frame = Frame(free(values), Scale(0, 1), "score", "", height, left=88, top=TOP, has_heights=False)
    rows = [TOP + ROW * 0.8 * (place + 0.5) for place in range(len(found))]
    guide = work.baseline.trial_id if work.baseline else None
    marks, lines, texts = [], [], []
    for one, y in zip(found, rows, strict=True):
        name = one["trial_id"]
        lines.append(Line(path_of([(frame.left, y), (WIDTH - frame.right, y)]), "grid"))
        texts.append(Text(frame.left - 8, y + 4, f"{name} guide" if name == guide else name, "end", "name", name))
        marks += _seed_marks(frame, one, y)
    return Chart(
        "new-seeds",
        "The best again, with new seeds",
        "; ".join(
            f"{one['trial_id']}: mean {one['score']:.3f}, {one['selection_score']:.3f} in the search" for one in found
        ),
        height,
        [*lines, frame.grid[-1]],
        [],
        marks,
        [*texts, *frame.texts],
        "Squares: the search’s own scores, which chose them. Circles: new seeds. Bars: their means, which decide."
        + _failed_seeds(work),
    )


def _failed_seeds(work: Work) -> str:
    """Trainings with new seeds that failed, also of trials that have no row for that."""
    failed = {one["trial_id"]: one.get("failed_seeds", 0) for one in work.summary.get("confirmed", ())}
    told = [f"{name} with {numbered(count, 'new seed')}" for name, count in failed.items() if count]
    return f" Failed: {', '.join(told)}." if told else ""


def _seed_marks(frame: Frame, one: Mapping[str, Any], y: float) -> list[Mark]:
    name = one["trial_id"]

    def x(score: float) -> float:
        return frame.point(score, 0)[0]

    seeds = [
        Mark(x(score), y, "seed", f"{name}: {score:.3f} with a new seed", name) for score in one["new_seed_scores"]
    ]
    own = Mark(x(one["selection_score"]), y, "search", f"{name}: {one['selection_score']:.3f} in the search", name)
    return [own, *seeds, Mark(x(one["score"]), y, "mean", f"{name}: mean {one['score']:.3f}", name)]
