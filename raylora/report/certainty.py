"""How sure it is that a winner is better than the guide's settings, and not just luckier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.special import stdtr

SURE, LIKELY = 0.01, 0.1
"""Chances of so large a lead among equals below which it is called sure, or likely."""


@dataclass(frozen=True)
class Lead:
    """A difference between two means over new seeds."""

    size: float
    error: float | None = None
    """Its standard error; None where no settings have two seeds or more."""
    chance: float | None = None
    """That settings which are no better would show such a lead, at most 1."""

    @property
    def in_words(self) -> str:
        """How sure it is, as a sentence."""
        if self.error is None or self.chance is None:
            return "A single new seed can’t tell how much of the lead is luck (search.confirm_seeds sets more)."
        if self.size <= 0:
            return f"That is no lead (standard error {self.error:.3f})."
        often = "fewer than 1" if self.chance < SURE else f"about {round(100 * self.chance)}"
        how = (
            "is surely real" if self.chance < SURE else "is likely real" if self.chance < LIKELY else "may well be luck"
        )
        return (
            f"The lead has a standard error of {self.error:.3f} and {how}: if neither were better, "
            f"{often} of 100 searches would show one as large."
        )


def lead_of(winner: Sequence[float], guide: Sequence[float], others: Sequence[Sequence[float]], rivals: int) -> Lead:
    """The winner's lead over the guide's settings.

    Trainings of the same settings differ by luck alone; how much by is taken from all settings that were trained with
    several new seeds together, as one alone has two. Then Student's t, one-sided; since the best of several rivals was
    chosen by these very scores, its chance counts as often as there were rivals (Bonferroni).

    Args:
        winner, guide: scores with new seeds, one or more of each.
        others: scores of all settings that were trained again, these two among them.
        rivals: how many might have been the winner.
    """
    size = fmean(winner) - fmean(guide)
    several = [scores for scores in others if len(scores) > 1]
    freedom = sum(len(scores) - 1 for scores in several)
    if not freedom:
        return Lead(size)
    pooled = sum(variance(scores) * (len(scores) - 1) for scores in several) / freedom
    error = math.sqrt(pooled * (1 / len(winner) + 1 / len(guide)))
    chance = float(stdtr(freedom, -size / error)) if error else float(size <= 0)
    return Lead(size, error, min(1.0, max(1, rivals) * chance))
