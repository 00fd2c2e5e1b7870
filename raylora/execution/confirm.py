"""The best trials trained again with new seeds, so that no lucky seed makes a winner; and which of them that is.

A search's best score is the best of many noisy ones, so it promises too much. A mean over seeds that had no part in
choosing promises nothing that it can't keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from raylora.config import Experiment
from raylora.tracking.recorder import TrialRecord

SEEDS = 2**31
"""As many as `seed` may be."""


@dataclass(frozen=True)
class Candidate:
    """A trial that may be the winner, and what its settings reach with new seeds."""

    trial: TrialRecord
    again: tuple[TrialRecord, ...] = ()

    @property
    def scores(self) -> list[float]:
        """Of each new seed whose training came to its end."""
        return [record.score for record in self.again if record.status == "finished"]

    @property
    def score(self) -> float:
        """The mean over new seeds; without any, the trial's own."""
        return mean(self.scores) if self.scores else self.trial.score

    @property
    def spread(self) -> float | None:
        """The standard deviation between new seeds, if there are two or more."""
        return stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def rank(self) -> tuple[bool, float, float]:
        """The guide's trial, where it broke a limit, comes last, and settings that fail with some seed after all that
        don't; then the higher score is better."""
        seeds_kept = len(self.scores) / len(self.again) if self.again else 1.0
        return not self.trial.over_limits, seeds_kept, self.score

    def as_dict(self) -> dict[str, Any]:
        return {
            "trial_id": self.trial.trial_id,
            "score": self.score,
            "spread": self.spread,
            "new_seed_scores": self.scores,
            "failed_seeds": len(self.again) - len(self.scores),
            "selection_score": self.trial.score,
            "expected_score": self.trial.expected,
        }


def best_trials(trials: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """The most promising trials that kept all limits, failed ones left out unless there are no others.

    By what their settings can be expected to reach, since the highest score is also the luckiest. Where that isn't
    known, as of trials that were stopped early, by their scores, after all others.
    """
    scored = [trial for trial in trials if math.isfinite(trial.score) and not trial.over_limits]
    sound = [trial for trial in scored if trial.status != "failed"] or scored
    return sorted(sound, key=_promise, reverse=True)[:count]


def _promise(trial: TrialRecord) -> tuple[bool, float]:
    return trial.expected is not None, trial.score if trial.expected is None else trial.expected


def confirmations(trials: Sequence[TrialRecord], experiment: Experiment) -> list[dict[str, Any]]:
    """What to train again: a configuration for each of the best trials and each new seed, the best trial's first.

    The baseline comes last if it is not among them, since the answer is compared with it. Each runs on its trial's own
    schedule for as many images as did that trial best, and is measured there, once.
    """
    search = experiment.search
    chosen = {trial.number: trial for trial in best_trials(trials, search.confirm_trials)}
    if chosen:
        chosen |= {trial.number: trial for trial in trials if trial.is_baseline and trial.history}
    seeds = [(experiment.seed + place) % SEEDS for place in range(1, search.confirm_seeds + 1)]
    pairs = [(trial, seed) for trial in chosen.values() for seed in seeds]
    return [
        {
            "number": number,
            "params": {**trial.params, "seed": seed, "training.stop_at": (trial.best or {})["images_seen"]},
            "is_baseline": False,
            "confirms": trial.trial_id,
        }
        for number, (trial, seed) in enumerate(pairs)
    ]


def candidates(trials: Sequence[TrialRecord], again: Sequence[TrialRecord]) -> list[Candidate]:
    """The trials that were trained again, the winner first; without any, the most promising trial alone."""
    by_trial = {trial.trial_id: trial for trial in trials}
    confirmed = dict.fromkeys(record.confirms for record in again if record.confirms)
    if not confirmed:
        return [Candidate(trial) for trial in best_trials(trials, 1)]
    found = [
        Candidate(by_trial[trial_id], tuple(record for record in again if record.confirms == trial_id))
        for trial_id in confirmed
    ]
    return sorted(found, key=lambda candidate: candidate.rank, reverse=True)
