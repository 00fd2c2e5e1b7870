"""The answer of a search in two sentences, and its reasons in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylora.evaluation.words import BASE_MEASURES, MEANINGS
from raylora.report.certainty import Lead, lead_of
from raylora.report.reading import Work
from raylora.report.scales import is_number, levels_of
from raylora.report.words import (
    MEASURES,
    MISSING,
    NOTHING,
    duration,
    listed,
    lost_workers,
    measure,
    numbered,
    setting_value,
    tells_verdict,
    typeset,
)
from raylora.tracking.recorder import TrialRecord, measures

MOST_NAMED = 4
"""Values of a number that are named one by one."""
STANDS = {
    "running": "Under way",
    "interrupted": "Interrupted",
    "failed": "Broken off",
    "finished": "Finished, but its summary is gone",
}
ENDS = {"finished": "finished", "stopped_early": "stopped early", "failed": "failed"}


@dataclass(frozen=True)
class Reason:
    """One measure of the winner, the guide's settings and the base model."""

    name: str
    meaning: str
    winner: str
    guide: str
    base: str


@dataclass(frozen=True)
class Setting:
    """One searched setting of the winner and of the guide."""

    path: str
    winner: str
    guide: str
    tried: str
    """What all trials had of it."""

    @property
    def differs(self) -> bool:
        return self.guide not in (NOTHING, self.winner)


@dataclass(frozen=True)
class Fact:
    """A number at the top."""

    name: str
    value: str
    more: str = ""


@dataclass(frozen=True)
class Answer:
    """The top of the page."""

    headline: str
    sentence: str
    course: str
    """How long it took, and what became of the trials."""
    lost: str
    """Workers; empty if none."""
    facts: Sequence[Fact]
    reasons: Sequence[Reason]
    settings: Sequence[Setting]


def make_answer(work: Work) -> Answer:
    """What a page begins with."""
    headline, sentence = _of_training(work) if work.is_training else _of_search(work)
    return Answer(
        headline=headline,
        sentence=sentence,
        course=_course(work),
        lost=_lost(work),
        facts=_facts(work),
        reasons=_reasons(work),
        settings=[] if work.is_training else _settings(work),
    )


def _of_search(work: Work) -> tuple[str, str]:
    if work.summary:
        return _of_winner(work)
    if work.no_result:
        return "No trial came to a result", f"{work.no_result}. Mend that and start anew with another --out."
    ended = sum(trial.status != "running" for trial in work.trials)
    head = f"{STANDS[work.state['state']]}: {ended} of {numbered(work.experiment.search.trials, 'trial')} ended"
    best, guide = work.best, work.baseline
    if best is None:
        return head, "No trial has been measured yet, so there is no answer to tell."
    told = f"Best so far is {best.trial_id} with score {best.score:.3f}"
    if guide is not None and guide is not best:
        told += f"; the guide’s own settings have {guide.score:.3f}"
    return head, f"{told}. Scores are of one training each: new seeds decide at the end."


def _of_winner(work: Work) -> tuple[str, str]:
    best, guide = work.summary["best"], work.summary.get("baseline")
    total = numbered(work.summary["trials"]["total"], "trial")
    if guide is None:
        return f"{best['trial_id']} is the best of {total}, with score {best['score']:.3f}", _without_guide(work)
    if guide["trial_id"] == best["trial_id"]:
        return (
            f"The guide’s own settings won: none of {total} did better",
            f"They reach {best['score']:.3f}{_on_seeds(best)}.",
        )
    if guide.get("over_limits"):
        return (
            f"{best['trial_id']} is the best of {total} that kept the limits, with score {best['score']:.3f}",
            f"The guide’s own settings reach {guide['score']:.3f}, but break a limit: {guide['over_limits']}.",
        )
    return _over_guide(work, f"{best['trial_id']} is the best of {total}")


def _without_guide(work: Work) -> str:
    """Why there is nothing to compare a winner with."""
    first = work.first_point
    if first is None:
        return "The search space has no first point, so there are no guide’s settings to compare it with."
    reason = first.stop_reason or "no report"
    return f"The guide’s own settings failed before they were measured ({reason}), so there is nothing to compare with."


def _over_guide(work: Work, head: str) -> tuple[str, str]:
    """The winner beside the guide's settings: means over new seeds, or one training of each, and never one of each."""
    best, guide = work.summary["best"], work.summary["baseline"]
    told = f"Its score is {best['score']:.3f}{_on_seeds(best)}, the guide’s {guide['score']:.3f}{_on_seeds(guide)}"
    lead = _lead(work)
    if bool(best.get("new_seed_scores")) != bool(guide.get("new_seed_scores")):
        return (
            f"{head}, with score {best['score']:.3f}",
            f"{told}. Only one of them has a mean over new seeds, so no lead can be told.",
        )
    size = typeset(f"{best['score'] - guide['score']:+.3f}")
    head = f"{head}: {size} over the guide’s own settings"
    if lead is None:
        why = "came to an end with a new seed" if best.get("failed_seeds") else "was trained again with new seeds"
        return head, f"{told}. Neither {why}, so the lead is partly the luck of being chosen."
    return head, f"{told}. {lead.in_words}"


def _on_seeds(candidate: Mapping[str, Any]) -> str:
    """What a score is the mean of, and which trainings it lacks."""
    seeds, failed = len(candidate.get("new_seed_scores", ())), candidate.get("failed_seeds", 0)
    if not seeds:
        return f" in the search (with {numbered(failed, 'new seed')} it failed)" if failed else ""
    return f" on {numbered(seeds, 'new seed')}" + (f" ({failed} more failed)" if failed else "")


def _lead(work: Work) -> Lead | None:
    """The winner's over the guide's, where both were trained again."""
    best, guide = work.summary["best"], work.summary["baseline"]
    scores = [candidate["new_seed_scores"] for candidate in work.summary.get("confirmed", ())]
    if not best.get("new_seed_scores") or not guide.get("new_seed_scores"):
        return None
    return lead_of(best["new_seed_scores"], guide["new_seed_scores"], scores, len(scores) - 1)


def _of_training(work: Work) -> tuple[str, str]:
    if not work.summary:
        return (
            f"{STANDS[work.state['state']]}: one training, no search",
            "It has not come to its end, so there is no LoRA yet.",
        )
    best = work.summary["best"]
    seen = numbered(work.summary["images_seen"], "image")
    if best["score"] is None:
        return (
            f"One LoRA, trained on all images: {seen} seen",
            f"Nothing was held out, so nothing was measured but the training loss ({_train_loss(best)} at the end). "
            "raylora train --holdout measures, raylora tune searches.",
        )
    return (
        f"One LoRA, {seen} seen, with score {best['score']:.3f} on held-out images",
        f"The verdict is {best['verdict']}: {best['evidence']}.",
    )


def _train_loss(best: Mapping[str, Any]) -> str:
    return measure("train_loss", best["metrics"].get("train_loss"))


def _course(work: Work) -> str:
    """How many trials ended how, and how long all of it took."""
    ends = {**ENDS, "running": work.word_for_running}
    counts = {how: sum(trial.status == status for trial in work.trials) for status, how in ends.items()}
    told = listed([f"{count} {how}" for how, count in counts.items() if count] or ["none begun"])
    wall = work.summary.get("wall_s", work.state.get("wall_s"))
    spent = f" It took {duration(wall)} in all." if is_number(wall) and wall else ""
    if work.is_training:
        return spent.strip()
    folds = work.experiment.dataset.folds
    images = sum(trial.images_seen for trial in work.trials) * folds
    each = f", each trained on {folds} folds" * (folds > 1)
    return f"Of {numbered(len(work.trials), 'trial')}{each}, {told}; they saw {numbered(images, 'image')}.{spent}"


def _lost(work: Work) -> str:
    records = [*work.trials, *work.again]
    causes = [cause for record in records for cause in record.losses]
    if not causes:
        return ""
    names = [record.trial_id for record in records if record.losses]
    return lost_workers({cause: causes.count(cause) for cause in dict.fromkeys(causes)}, names)


def _facts(work: Work) -> list[Fact]:
    best = work.summary.get("best")
    if not best:
        return []
    metrics = best["metrics"]
    facts = [Fact("score", measure("score", best["score"]), _spread(best))] if best["score"] is not None else []
    if "strength" in best:
        facts.append(Fact("use at strength", f"{best['strength']:g}", "measured on held-out images"))
    if "holdout_loss_ratio" in metrics:
        facts.append(Fact("held-out loss", f"{metrics['holdout_loss_ratio']:.3f} ×", "the base model’s"))
    if tells_verdict(best):
        facts.append(Fact("verdict", best["verdict"], "by its curves"))
    if "lora_mb" in metrics:
        facts.append(
            Fact("LoRA file", f"{measure('lora_mb', metrics['lora_mb'])} MB", work.experiment.training.save_precision)
        )
    if "train_s" in metrics:
        facts.append(Fact("one training", duration(metrics["train_s"]), "measuring left out"))
    return facts


def _spread(best: Mapping[str, Any]) -> str:
    seeds, failed = len(best.get("new_seed_scores", ())), best.get("failed_seeds", 0)
    if not seeds:
        return "of one training"
    spread = best.get("spread")
    told = "on a new seed" if spread is None else f"± {spread:.3f} between {seeds} new seeds"
    return f"{told}, {failed} more failed" if failed else told


def _reasons(work: Work) -> list[Reason]:
    winner, guide = _metrics(work.summary.get("best"), work.best), _metrics(work.summary.get("baseline"), work.baseline)
    return [
        Reason(
            MEASURES[name], meaning, measure(name, winner.get(name)), measure(name, guide.get(name)),
            measure(name, BASE_MEASURES.get(name)),
        )
        for name, meaning in MEANINGS
        if name in winner
    ]  # fmt: skip


def _metrics(told: Mapping[str, Any] | None, record: TrialRecord | None) -> Mapping[str, float]:
    """Of the trial itself, not of the new seeds, of which only the score is known."""
    return told["metrics"] if told else measures(record.best or {}) if record else {}


def _settings(work: Work) -> list[Setting]:
    winner = work.summary["best"]["params"] if work.summary else work.best.params if work.best else {}
    told = work.summary.get("baseline")
    guide = told["params"] if told else work.baseline.params if work.baseline else {}
    return [
        Setting(path, setting_value(winner[path]), setting_value(guide.get(path, MISSING)), _tried(work, path))
        for path in winner
    ]


def _tried(work: Work, path: str) -> str:
    """Which values the trials had: the ends of numbers, or each of a few."""
    values = [trial.params[path] for trial in work.trials if path in trial.params]
    if not values:
        return NOTHING
    each = levels_of(values)
    if len(each) > MOST_NAMED and all(is_number(value) for value in values):
        return f"{each[0]} to {each[-1]}"
    return ", ".join(each)
