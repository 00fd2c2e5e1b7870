"""`raylora check`: everything in a data set that would spoil a LoRA, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from raylora import completion
from raylora.bundled import DEMO_NAME
from raylora.cli_options import FLAG, AsJson, Settings
from raylora.cli_output import on_stderr
from raylora.errors import ConfigError
from raylora.files import is_file
from raylora.redaction import redacted
from raylora.request import Request, read_request

if TYPE_CHECKING:
    from rich.table import Table

    from raylora.config import Experiment
    from raylora.dataset.findings import Finding
    from raylora.dataset.survey import Survey

COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}

Checked = Annotated[
    str,
    typer.Argument(
        help="Folder of images, s3:// or gs:// URI, `demo`, or an experiment file that names one.",
        metavar="DIR",
        autocompletion=completion.datasets,
    ),
]
Against = Annotated[
    Optional[list[str]],
    typer.Option(
        "--against",
        help="Another folder that must share no image, as one to judge by. Repeatable.",
        metavar="DIR",
        autocompletion=completion.datasets,
    ),
]
SplitFile = Annotated[
    Optional[Path], typer.Option("--split", help="split.json of a search: no image on both sides.", metavar="FILE")
]
Space = Annotated[
    Optional[str],
    typer.Option(
        "--space",
        help="Search space, for the size at which images are learned.",
        metavar="SPACE",
        autocompletion=completion.spaces,
    ),
]
Download = Annotated[
    bool,
    typer.Option("--download", help="Fetch evaluation.encoder, which compares poses, if it isn't here.", metavar=FLAG),
]


def check(
    dataset: Checked,
    against: Against = None,
    split: SplitFile = None,
    space: Space = None,
    settings: Settings = None,
    download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Look for what would spoil a LoRA: near-duplicates, small or blurred images, captions, leakage between sets.

    Nothing is changed. The exit status is 1 with errors, and 0 with warnings
    and notes alone.

    Examples:

      raylora check my_photos --set dataset.trigger=sks

      raylora check my_photos --space sdxl-character --against judge_photos \\
          --set dataset.regularization=people
    """
    experiment = _experiment(dataset, space, settings or [])
    reference = experiment.dataset.path
    if reference is None:
        raise ConfigError(f"{dataset}: names no dataset; set dataset.path in it, or give the folder itself")
    from raylora.dataset.check import check_survey
    from raylora.dataset.survey import survey
    from raylora.execution.check_data import embed_with, not_compared

    with on_stderr().status("reading the images …") as status:
        seen = survey(reference, experiment.dataset.trigger)
        status.update(f"looking at {len(seen.pictures)} images …")
        embed = embed_with(experiment.evaluation.encoder, download)
        findings = check_survey(seen, experiment, against or [], split, embed)
        findings += [not_compared(experiment.evaluation.encoder)] if embed is None else []
    _print(findings, seen, experiment, as_json)
    raise typer.Exit(int(any(finding.level == "error" for finding in findings)))


def _experiment(dataset: str, space: str | None, settings: list[str]) -> Experiment:
    """The settings that say what is looked for; the demo's own where its data set is looked at."""
    file = Path(dataset) if is_file(Path(dataset)) else None
    given = {"dataset.path": None if file else dataset}
    name = space or (DEMO_NAME if dataset == DEMO_NAME else None)
    if name is None:
        return read_request(Request(file, given, settings))
    from raylora.search.space import load_space

    return read_request(Request(file, given, settings), load_space(name))


def _print(findings: list[Finding], seen: Survey, experiment: Experiment, as_json: bool) -> None:
    """A table for people, or all of it for programs."""
    if as_json:
        print(json.dumps(_as_dict(findings, seen, experiment), indent=2))
        return
    from rich.console import Console

    from raylora.dataset.findings import counted

    wide, high = experiment.dataset.resolution
    console = Console(highlight=False)
    how = "in buckets of about" if experiment.dataset.buckets else "at"
    console.print(f"{len(seen.pictures)} images, learned {how} {wide}x{high}", markup=False)
    if findings:
        console.print(_table(findings))
    console.print(counted(findings), markup=False)


def _as_dict(findings: list[Finding], seen: Survey, experiment: Experiment) -> dict[str, Any]:
    from raylora.dataset.findings import LEVELS

    return {
        "dataset": redacted(str(experiment.dataset.path)),
        "images": len(seen.pictures),
        "resolution": list(experiment.dataset.resolution),
        **{f"{level}s": sum(finding.level == level for finding in findings) for level in LEVELS},
        "findings": [finding.as_dict() for finding in findings],
    }


def _table(findings: list[Finding]) -> Table:
    """What was found and in which files; what it does, and the mend."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, leading=1)
    for column in ("", "found", "what it does; what to do"):
        table.add_column(column, no_wrap=column == "", ratio=None if column == "" else 1)
    for finding in findings:
        level = Text(finding.level, style=COLOURS[finding.level])
        found = Text(finding.found).append(f"\n{finding.named}" if finding.files else "", style="dim")
        advice = Text(finding.effect).append(f"\n→ {finding.mend}", style="bold")
        table.add_row(level, found, advice)
    return table
