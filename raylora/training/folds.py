"""The LoRAs of one trial, one for each fold of its pictures: moved on by turns, judged together.

With few pictures one split is a noisy judge: which ones happen to be held out moves the score as much as settings do.
`raylora train --holdout` and trials share this, with one split as with several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from raylora.training.fit import Fit, Report

NOT_MEANS = ("image_scores", "best_score", "images_seen", "is_finished", "train_losses", "train_s", "peak_memory_gib")
"""What a joint report does not have as the mean of its folds'."""


class Folds:
    """One or more fits of the same settings, all with the same rungs. What they report together is their mean.

    Nothing is kept beside the fits' own states: the joint history follows from theirs. A fit that was measured at a
    rung before an interruption waits there for the others.
    """

    def __init__(self, fits: Sequence[Fit]):
        self._fits = fits
        self.history: list[Report] = []
        for reports in zip(*(fit.history for fit in fits), strict=False):  # some may be a rung ahead
            self._join(reports)
        if self.history and all(len(fit.history) == len(self.history) for fit in fits):
            self._keep_best()  # what broke them off may have come before it was written

    @property
    def images_seen(self) -> int:
        """By each fit; by the one that is behind, where an interruption came between two."""
        return min(fit.trainer.images_seen for fit in self._fits)

    def run(self, points: Sequence[int], report: Callable[[Report], bool]) -> None:
        """Go through the evaluation points that are still ahead; `report` says whether to go on.

        Raises:
            TrainingDivergedError: a loss or a measure of some fit is no longer a number.
        """
        for point in points:
            if point > self.images_seen and not report(self.step(point)):
                return

    def pass_by(self, images: int) -> None:
        """Train each to `images` images seen and keep the states, unmeasured."""
        for fit in self._fits:
            fit.pass_by(images)

    def step(self, images: int) -> Report:
        """Train each to `images` images seen and measure it there.

        Raises:
            TrainingDivergedError: a loss or a measure of some fit is no longer a number.
        """
        place = len(self.history)
        reports = [fit.history[place] if len(fit.history) > place else fit.step(images) for fit in self._fits]
        self._join(reports)
        self._keep_best()
        return self.history[-1]

    def _join(self, reports: Sequence[Report]) -> None:
        self.history.append(joined(reports, _best_score(self.history)))

    def _keep_best(self) -> None:
        """The best rung is the one with the best mean, for all fits together."""
        if self.history[-1]["score"] > _best_score(self.history[:-1]):
            for fit in self._fits:
                fit.keep_best()


def _best_score(reports: Sequence[Report]) -> float:
    return max((report["score"] for report in reports), default=float("-inf"))


def joined(reports: Sequence[Report], best_before: float) -> Report:
    """One report of what each fold reported at the same rung: measures are means, held-out images stand in a row.

    Seconds are added up, and memory is the most of any.

    Args:
        best_before: the best mean score at earlier rungs.
    """
    first = reports[0]
    means = {key: fmean(report[key] for report in reports) for key in first if key not in NOT_MEANS}
    steps = zip(*(report["train_losses"] for report in reports), strict=True)
    return {
        **means,
        "train_s": sum(report["train_s"] for report in reports),
        "peak_memory_gib": max(report["peak_memory_gib"] for report in reports),
        "image_scores": [score for report in reports for score in report["image_scores"]],
        "best_score": max(means["score"], best_before),
        "images_seen": first["images_seen"],
        "is_finished": first["is_finished"],
        "train_losses": [(same[0][0], fmean(loss for _, loss in same)) for same in steps],
    }
