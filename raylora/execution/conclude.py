"""The end of a search: the winner written, registered and summed up."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.config import LimitsConfig, SearchConfig
from raylora.errors import RayloraError, first_line
from raylora.execution.confirm import Candidate
from raylora.execution.mirror import at_work
from raylora.execution.node_cache import read_shared
from raylora.execution.outputs import NO_RESULT, NOTHING_CAME, OutFolder, verdict_on, write_json, write_trials_csv
from raylora.execution.registering import claim_of, describe, how_it_ended, log_winner, write_entry
from raylora.execution.tradeoffs import weighed
from raylora.execution.trial import base_of, encoder_of, pick_device
from raylora.execution.underway import Search
from raylora.execution.winner import lora_paths, write_best
from raylora.files import first_fold
from raylora.search.importance import importance
from raylora.search.limits import excess, in_words
from raylora.search.study import read_trials
from raylora.search.tradeoffs import pareto_front
from raylora.tracking.recorder import TrialRecord, measures
from raylora.training.fit import BEST_NAME

if TYPE_CHECKING:
    from raylora.tracking.entry import Entry
    from raylora.tracking.registry import Registered


def conclude(
    search: Search, trials: Sequence[TrialRecord], found: Sequence[Candidate], is_refit: bool,
    wall_s: Callable[[], float],
) -> dict[str, Any]:  # fmt: skip
    """Write everything that users get; the cluster is still there.

    Args:
        found: who may be the winner, the winner first.
        is_refit: whether the LoRA of `best/` is there already, trained on all images.

    Raises:
        RayloraError: no trial came to a result, or the winner's files can't be made.
    """
    out = search.out
    write_trials_csv(out.trials_csv, trials, search.job.experiment)
    if not found:
        raise _no_result(out, trials, search.job.experiment.search)
    search.say("Writing the winner …")
    winner = found[0].trial
    baseline = next((trial for trial in trials if trial.is_baseline and trial.history), None)
    strengths, encoder = _write_winner(search, [trial for trial in (baseline, winner) if trial], is_refit)
    told = verdict_on(winner, search.job.experiment, trials)
    best = {**_entry(winner), **found[0].as_dict(), **told, **strengths, **lora_paths(out)}
    summary: dict[str, Any] = {
        "best": best,
        "baseline": _baseline_entry(baseline, found, search.job.experiment.search.limits) if baseline else None,
        "confirmed": [candidate.as_dict() for candidate in found if candidate.again],
        "refit": is_refit,
        "trials": _counts(trials),
        "lost_workers": losses_of([*trials, *(record for candidate in found for record in candidate.again)]),
        "tradeoffs": tradeoffs_of(search, trials),
        "importance": what_mattered(search),
        "images_seen": sum(trial.images_seen for trial in trials) * search.job.experiment.dataset.folds,
        "wall_s": wall_s(),
        "registered": None,
        "tracking_uri": search.tracker.uri,
        "parent_run_id": search.tracker.parent_run_id,
    }
    claim = claim_of(search.job, best, out.read_state().get("base_digest"), encoder)
    entry = write_entry(out, describe(out, search.job, summary), claim)
    summary["registered"] = _track_winner(search, winner, found[0].score, entry)
    write_json(out.summary, summary)
    return summary


def losses_of(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """How often workers were lost, by cause, and of which trials, which went on from their last states."""
    causes = Counter(cause for record in records for cause in record.losses)
    return {"causes": dict(causes), "trials": [record.trial_id for record in records if record.losses]}


def _no_result(out: OutFolder, trials: Sequence[TrialRecord], config: SearchConfig) -> RayloraError:
    """Kept in the state too: `raylora resume` has nothing to go on with, and says so."""
    over, limits = [trial for trial in trials if trial.over_limits], config.limits
    failures = [trial.stop_reason or "no report" for trial in trials if not trial.over_limits]
    reasons = _causes(failures)
    told, mend = f"all {len(trials)} failed: {reasons}", "mend that"
    if config.max_failures <= len(failures) == len(trials) < config.trials:
        told = (
            f"the first {len(trials)} of {config.trials} trials failed, so it stopped there (search.max_failures "
            f"{config.max_failures}): {reasons}"
        )
    if over:
        nearest = min(over, key=lambda trial: excess(limits, trial.over_limits))
        how_near = f"the nearest, {nearest.trial_id}, has {in_words(limits, nearest.over_limits)}"
        failed = f"; the others failed: {reasons}" if reasons else ""
        reasons = told = f"{len(over)} of {len(trials)} trials broke search.limits; {how_near}{failed}"
        mend = "raise the limit, or search settings that cost less,"
    out.write_state("failed", **{NO_RESULT: reasons})
    return RayloraError(
        f"{NOTHING_CAME}; {told}. There is nothing to go on with: {mend} and start anew with another --out"
    )


def _causes(failures: Sequence[str]) -> str:
    """Reasons of failure, each kind once: what failed alike may differ in its numbers."""
    kinds: dict[str, list[str]] = {}
    for reason in sorted(set(failures)):
        kinds.setdefault(re.sub(r"[\d.]*\d(e[+-]?\d+)?", "#", reason), []).append(reason)
    return "; ".join(alike[0] + f" (others alike, with other numbers: {len(alike) - 1})" * (len(alike) > 1)
                     for alike in kinds.values())  # fmt: skip


def tradeoffs_of(search: Search, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """The trials that none beats in all of `search.tradeoffs`, of those that may be weighed."""
    named = search.job.experiment.search.tradeoffs
    points = weighed(trials, named)
    if missing := [name for name in named if points and not any(name in point for point in points.values())]:
        search.say(f"warning: search.tradeoffs can't be told, since no trial has {', '.join(missing)}; leave that out")
    front = pareto_front(points, named)
    rows = [{"trial_id": trial_id, **{name: points[trial_id][name] for name in named}} for trial_id in front]
    return {"measures": list(named), "trials": rows}


def what_mattered(search: Search) -> list[dict[str, Any]]:
    """Each searched setting's part in the score; whatever fails in it, the winner is there."""
    assert search.job.space is not None
    try:
        trials = read_trials(search.out.study)
        found = importance(trials, search.job.experiment.seed, leave_out=search.job.space.fixed)
    except Exception as error:  # a look back, over whatever a user's own space function did
        search.say(f"warning: which settings mattered can't be told ({first_line(error)})")
        return []
    return [asdict(one) for one in found]


def _write_winner(search: Search, trials: list[TrialRecord], is_refit: bool) -> tuple[dict[str, Any], str]:
    """`best/`, made where the trials ran.

    Returns:
        the strength to use the LoRA at with the score at each tried, and the image encoder's identity.
    """
    experiment, root, mirror = search.job.experiment, search.out.root, search.mirror
    folders = [Path(trial.folder).relative_to(root) for trial in trials]

    def write() -> tuple[dict[str, Any], str]:
        with at_work(mirror, root, ["cache", *map(str, folders)], ["best"], is_for_winner) as out:
            there = [replace(trial, folder=str(out.root / at)) for trial, at in zip(trials, folders, strict=True)]
            shared = read_shared(first_fold(out.cache))
            base, encoder = base_of(experiment, pick_device()), encoder_of(experiment, pick_device())
            sweep = write_best(out, base, shared.evaluator(encoder, experiment), experiment, there, shared, is_refit)
        scores = {f"{at:g}": score for at, score in sweep.scores.items()}
        return {"strength": sweep.recommended, "strength_scores": scores}, encoder.identity

    made = search.run_in_cluster(write, "writes the winner")
    if mirror:
        mirror.bring(search.out, "best")
        mirror.bring(search.out, "epochs")
    return made


def is_for_winner(name: str) -> bool:
    """Of what trials share and of their folders, what the winner's files are made of: no states, no samples."""
    return name.startswith("cache/") or name.endswith(f"/{BEST_NAME}")


def _track_winner(search: Search, winner: TrialRecord, score: float, entry: Entry) -> Registered | None:
    """The winner in MLflow, each step for itself. Its files are written by now, so what fails costs nothing else."""
    measured = {**measures(winner.best or {}), "score": score}
    best = {f"best.{key}": value for key, value in measured.items()}
    search.tracker.catch_up()
    name = search.job.experiment.tracking.register_name or "NAME"
    later = shlex.join(["raylora", "promote", str(search.out.root), "--name", name])
    registered = search.out.read_state().get("registered") or _try(
        search, "as a model", lambda: _register(search, entry), mend=f"; `{later}` does that"
    )
    search.out.write_state("running", registered=registered)  # a resume doesn't register it again
    _try(search, "in full", lambda: search.tracker.finish(best, search.out.best))
    return registered


def _try(search: Search, how: str, step: Callable[[], Registered | None], mend: str = "") -> Registered | None:
    try:
        return step()
    except Exception as error:  # MLflow, requests and SQLAlchemy raise many kinds
        reason = first_line(error)
        search.say(f"warning: the winner could not be written to MLflow {how} ({reason}); its files are there{mend}")
        return None


def _register(search: Search, entry: Entry) -> Registered | None:
    """Log the winner to the parent run; where a name was given, register it, and let it be champion if it may."""
    from raylora.tracking.registry import place, register  # MLflow takes seconds, and only the end needs it here

    out, tracker, name = search.out, search.tracker, search.job.experiment.tracking.register_name
    model_uri = out.read_state().get("model_uri")
    if model_uri is None:
        model_uri = log_winner(out, tracker.uri, tracker.parent_run_id, entry, as_folder=name is not None)
        out.write_state("running", model_uri=model_uri)  # a resume doesn't log it again
    if name is None:
        return None
    placed = place(tracker.uri, name, register(tracker.uri, model_uri, name, entry))
    if why := how_it_ended(placed, str(out.root)):
        search.say(f"warning: {why}")
    return placed.registered


def _entry(trial: TrialRecord) -> dict[str, Any]:
    return {
        "trial_id": trial.trial_id,
        "score": trial.score,
        "params": trial.params,
        "metrics": measures(trial.best or {}),
        "images_seen": (trial.best or {}).get("images_seen"),
    }


def _baseline_entry(baseline: TrialRecord, found: Sequence[Candidate], limits: LimitsConfig) -> dict[str, Any]:
    """The guide's own settings, by their mean over new seeds too where they were trained again.

    `over_limits` says in words which limits it broke, and so couldn't win; it is empty otherwise.
    """
    candidate = next((one for one in found if one.trial is baseline), Candidate(baseline))
    return {**_entry(baseline), **candidate.as_dict(), "over_limits": in_words(limits, baseline.over_limits)}


def _counts(trials: Sequence[TrialRecord]) -> dict[str, int]:
    counts = {
        status: sum(trial.status == status for trial in trials) for status in ("finished", "stopped_early", "failed")
    }
    return {**counts, "total": len(trials)}
