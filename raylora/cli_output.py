"""What the commands print: plans and progress on stderr, answers on stdout."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.redaction import shown
from raylora.report.words import lost_workers, setting_name, tells_verdict

if TYPE_CHECKING:
    from rich.console import Console

    from raylora.config import SearchConfig
    from raylora.execution.outputs import OutFolder
    from raylora.tracking.recorder import Listener, TrialRecord

INTERRUPTED = 130
AT_LEISURE_S, HURRIED_S = 60.0, 5.0
"""For trials' samples in the page, as work ends and as it is broken off: who sends SIGTERM soon sends SIGKILL."""


def on_stderr() -> Console:
    """A console that leaves stdout to answers."""
    from rich.console import Console

    return Console(stderr=True)


def warn_on(console: Console) -> Callable[[str], None]:
    """Prints warnings, in yellow where there are colours; each once."""
    told: set[str] = set()

    def warn(message: str) -> None:
        if message not in told:
            told.add(message)
            console.print(f"warning: {shown(message)}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    return warn


def say_on(console: Console) -> Callable[[str], None]:
    """Prints progress."""
    return lambda message: console.print(shown(message), markup=False, highlight=False, soft_wrap=True)


def print_plan(console: Console, lines: list[tuple[str, str]]) -> None:
    """Label and text of each line."""
    for label, text in lines:
        console.print(f"{label:12}{shown(text)}", markup=False, highlight=False, soft_wrap=True)


def resumable(root: Path) -> AbstractContextManager[None]:
    """What a search or a training runs in: interrupted, it says how to go on."""
    how = shlex.join(["raylora", "resume", str(root)])
    return interruptible(lambda: f"go on with: {how}" if (root / "state.json").is_file() else "")


@contextmanager
def watched(
    folder: OutFolder, console: Console, search: SearchConfig, earlier: Sequence[TrialRecord] = ()
) -> Iterator[Listener]:
    """A search at work: shown as it goes, with a page at its end, and with how to go on where it is broken off.

    Args:
        earlier: its trials before it was interrupted.
    """
    from raylora.execution.usage import usage
    from raylora.report.live import view
    from raylora.report.standing import After

    shown_by = view(console, search.trials, earlier, usage, After.of(search))
    with resumable(folder.root), reporting(folder, warn_on(console)), shown_by as listener:
        yield listener


@contextmanager
def interruptible(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C, a closed terminal and what a cluster's manager sends before it kills: status 130, and how to go on."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print("; ".join(filter(None, ["interrupted", how_to_go_on()])), file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


@contextmanager
def reporting(folder: OutFolder, warn: Callable[[str], None]) -> Iterator[None]:
    """Write the page of whatever work there is as the block ends, however it does. No page is worth an answer."""
    from raylora.errors import AtWorkError

    try:
        yield
    except AtWorkError:  # whose page it is
        raise
    except BaseException:
        if folder.state_file.is_file() and _write_page(folder, warn, HURRIED_S):
            print(f"a report of what there is: {folder.report}", file=sys.stderr)
        raise
    _write_page(folder, warn, AT_LEISURE_S)


def _write_page(folder: OutFolder, warn: Callable[[str], None], seconds: float) -> bool:
    from raylora.errors import first_line

    try:
        from raylora.report.page import write_report

        write_report(folder, seconds)
    except Exception as error:  # of disks, pictures and templates
        how = shlex.join(["raylora", "report", str(folder.root)])
        warn(f"{folder.report.name} was not written ({first_line(error)}); `{how}` tries again")
        return False
    return True


def print_summary(summary: dict[str, Any], root: Path, as_json: bool) -> None:
    """The answer of a search or a training."""
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    best, trials = summary["best"], summary["trials"]
    if best["score"] is not None:
        print(f"Best: {best['trial_id']} with score {_with_spread(best)}{_against(summary['baseline'], best)}")
    told = (best, summary["baseline"] or best)
    for candidate in _others(summary.get("confirmed", []), [one["trial_id"] for one in told]):
        print(f"  next: {candidate['trial_id']} with {_with_spread(candidate)}")
    for path, value in best["params"].items():
        print(f"  {path} = {f'{value:.4g}' if isinstance(value, float) else 'null' if value is None else value}")
    _print_verdict(best)
    print(f"Trials: {trials['finished']} finished, {trials['stopped_early']} stopped early, {trials['failed']} failed; "
          f"they saw {_images(summary)}; {summary['wall_s']:.0f} s in all")  # fmt: skip
    _print_findings(summary)
    print(f"LoRA for A1111 and ComfyUI: {best['lora_kohya']}")
    print(f"LoRA for diffusers:         {best['lora_diffusers']}")
    if "strength" in best:
        print(f"Best used at strength:      {best['strength']:g} (scores: {_by_strength(best)})")
    print(f"Samples:                    {root / 'best' / 'samples' / 'grid.png'}")
    if (root / "report.html").is_file():
        print(f"Report:                     {root / 'report.html'}")
    print(f"Everything:                 {root}")
    if summary["tracking_uri"]:
        print(f"MLflow:                     {_how_to_look(summary['tracking_uri'])}")
    if summary["registered"]:
        print(f"Registered:                 {in_registry(summary['registered'])}")


def in_registry(registered: Mapping[str, Any]) -> str:
    """What loads a LoRA from the registry: its alias, where it got that, else its version."""
    if registered["alias"] is None:
        return "models:/{name}/{version}".format(**registered)
    return "models:/{name}@{alias} (version {version})".format(**registered)


def _print_findings(summary: Mapping[str, Any]) -> None:
    """What a search lost and found out, where there is any of it."""
    trials = summary["trials"]
    if summary.get("lost_workers", {}).get("causes"):
        print(f"Lost workers: {lost_workers(**summary['lost_workers'])}")
    if len(summary.get("tradeoffs", {"trials": []})["trials"]) > 1:
        print(f"Trade-offs: {trade_offs(**summary['tradeoffs'])}")
    if summary["importance"]:
        print(f"What mattered: {what_mattered(summary['importance'], trials['finished'] + trials['stopped_early'])}")


def _print_verdict(best: Mapping[str, Any]) -> None:
    """What the curves say, where they were measured, and what to try next."""
    if tells_verdict(best):
        print(f"Verdict: {best['verdict']}, {best['evidence']}{'; try ' * bool(best['cure'])}{best['cure']}")


def _how_to_look(tracking_uri: str) -> str:
    """A server shows itself; a store wants `mlflow ui`."""
    if tracking_uri.startswith(("http://", "https://")):
        return tracking_uri
    return f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}"


def _others(confirmed: Sequence[dict[str, Any]], told: Sequence[str]) -> list[dict[str, Any]]:
    """Who was trained again beside the winner and the guide's own, which the first line has."""
    return [candidate for candidate in confirmed[1:] if candidate["trial_id"] not in told]


def _against(baseline: dict[str, Any] | None, best: dict[str, Any]) -> str:
    """The guide's own settings beside the winner's, where a search has tried them."""
    if baseline is None:
        return ""
    if baseline["trial_id"] == best["trial_id"] and not baseline["over_limits"]:
        return "; these are the guide's own settings"
    broke = f", but break a limit: {baseline['over_limits']}" if baseline["over_limits"] else ""
    return f"; the guide's own settings reach {_with_spread(baseline)}{broke}"


def _with_spread(candidate: dict[str, Any]) -> str:
    """A score as the mean over new seeds, beside what the search itself saw."""
    seeds = len(candidate.get("new_seed_scores", ()))
    if not seeds:
        return f"{candidate['score']:.3f}"
    spread = f" ± {candidate['spread']:.3f}" if candidate["spread"] is not None else ""
    named = f"{seeds} new seeds" if seeds > 1 else "a new seed"
    failed = f", {candidate['failed_seeds']} more failed" if candidate["failed_seeds"] else ""
    return f"{candidate['score']:.3f}{spread} ({named}{failed}; {candidate['selection_score']:.3f} in the search)"


def _images(summary: Mapping[str, Any]) -> str:
    """How many images the trials saw; not counted is what came after them, where anything did."""
    again = ["new seeds"] * bool(summary.get("confirmed")) + ["training on all images"] * bool(summary.get("refit"))
    without = f", without {' and '.join(again)}" if again else ""
    return f"{summary['images_seen']:,} images, repeats counted{without}"


def _by_strength(best: Mapping[str, Any]) -> str:
    """The score at each strength, and why the highest may not be the recommended one's."""
    scores, recommended = best["strength_scores"], best["strength"]
    told = ", ".join(f"{score:.3f} at {strength}" for strength, score in scores.items())
    highest = max(scores, key=lambda strength: scores[strength])
    return told if float(highest) == recommended else f"{told}; the lead of {highest} may be chance"


def what_mattered(importance: list[dict[str, Any]], trials: int) -> str:
    """One line on the settings of a search, as `search.importance` found them."""
    if all(one["share"] is None for one in importance):
        return f"too few trials to tell ({trials})"
    names: dict[str, list[str]] = {"matters": [], "can't tell": [], "hardly matters": []}
    for one in importance:
        more = f" ({one['share']:.0%}: {one['best']})" if one["verdict"] == "matters" else ""
        names[one["verdict"]].append(f"{setting_name(one['setting'])}{more}")
    surely = ", ".join(names["matters"]) or "nothing for sure"
    others = [f"{label}: {', '.join(names[label])}" for label in ("hardly matters", "can't tell") if names[label]]
    return f"{'; '.join([surely, *others])} ({trials} trials)"


def trade_offs(measures: Sequence[str], trials: Sequence[Mapping[str, Any]]) -> str:
    """One line on the trials that none beats in all measures: `t009 (score 1.229, 1.9 MB), t004 (…)`."""
    return ", ".join(
        f"{trial['trial_id']} ({', '.join(_measured(name, trial[name]) for name in measures)})" for trial in trials
    )


def _measured(name: str, value: float) -> str:
    """A cost with its unit, any other measure with its name."""
    with_unit = {"lora_mb": f"{value:.1f} MB", "train_s": f"{value:.0f} s", "peak_memory_gib": f"{value:.1f} GiB"}
    return with_unit.get(name, f"{name} {value:.3f}")


def print_metrics(metrics: dict[str, float], as_json: bool) -> None:
    """The answer of `evaluate`."""
    names = ("score", "holdout_loss", "holdout_loss_ratio", "train_probe_loss", "sample_similarity", "similarity_gain",
             "prompt_alignment", "diversity", "copying")  # fmt: skip
    table = {name: metrics.get(name) for name in names}
    if as_json:
        print(json.dumps({"metrics": table}, indent=2))
        return
    for name, value in table.items():
        print(f"{name:20} {'needs --train-dataset or another encoder' if value is None else f'{value:.4f}'}")
