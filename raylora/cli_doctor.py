"""`raylora doctor`: what this machine or a cluster can run, and what is wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from raylora import completion
from raylora.bundled import DEMO_NAME
from raylora.cli_options import AsJson, BaseModel, Dataset, File, Settings, TrackingUri
from raylora.cli_output import on_stderr
from raylora.redaction import one_line, shown
from raylora.request import Request, read_request

if TYPE_CHECKING:
    from rich.table import Table

    from raylora.execution.doctor.rows import Row

COLOURS = {"good": "green", "warning": "yellow", "bad": "bold red", "not checked": "dim"}


def doctor(
    experiment_file: File = None,
    dataset: Dataset = None,
    base_model: BaseModel = None,
    settings: Settings = None,
    out: Annotated[
        Optional[Path],
        typer.Option("--out", help="Where output would go; by default out/.", metavar="OUT"),
    ] = None,
    tracking_uri: TrackingUri = None,
    address: Annotated[
        Optional[str],
        typer.Option(
            "--address",
            help="Ray cluster: auto or HOST:PORT. Without it, this machine is looked at.",
            metavar="RAY",
            autocompletion=completion.one_of("auto"),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at GPUs, disks, Ray, MLflow, hub and images; each is good, a warning or bad, with the mend.

    Nothing that it tries stays, but for a small file where MLflow's artifacts
    can't be deleted, which a warning names. The exit status is 1 if anything
    is bad, and 0 with warnings alone.

    Examples:

      raylora doctor

      raylora doctor --dataset my_photos \\
          --base-model stable-diffusion-v1-5/stable-diffusion-v1-5

      raylora doctor experiment.yaml --address auto --out /shared/out \\
          --tracking-uri http://mlflow:5000
    """
    given = {"dataset.path": dataset, "model.base_model": base_model, "tracking.uri": tracking_uri}
    space = None
    if base_model == DEMO_NAME:
        from raylora.search.space import load_space

        space = load_space(DEMO_NAME)
    experiment = read_request(Request(experiment_file, given, settings or ()), space)
    from raylora.execution.doctor.examine import examine
    from raylora.execution.doctor.rows import exit_status

    console = on_stderr()
    with console.status("looking at the machine, Ray, MLflow, the hub and the images …"):
        rows = examine(experiment, (out or Path("out")).expanduser().resolve(), address)
    _print(rows, as_json)
    raise typer.Exit(exit_status(rows))


def _print(rows: list[Row], as_json: bool) -> None:
    """A table on a terminal, a line for each row elsewhere, or JSON."""
    from rich.console import Console

    from raylora.execution.doctor.rows import counted

    if as_json:
        print(json.dumps([one.as_dict() for one in rows], indent=2))
        return
    console = Console()
    if console.is_terminal:
        console.print(_table(rows))
    else:
        for one in rows:
            print(_line(one))
    print(counted(rows))


def _line(one: Row) -> str:
    place = f" on {one.node}" if one.node else ""
    mend = f"; {_named_mend(one.mend)}" if one.mend else ""
    return one_line(shown(f"{one.level:12}{one.check}{place}: {one.found}{mend}"))


def _named_mend(mend: str) -> str:
    """What to do, called a mend once: its own words may do so."""
    return mend if re.search(r"\bmend\b", mend) else f"mend: {mend}"


def _table(rows: list[Row]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    nodes = {one.node for one in rows if one.node}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("", "check", *(["node"] if len(nodes) > 1 else []), "found", "mend"):
        table.add_column(column, no_wrap=column == "")
    for one in rows:
        place = [one.node] if len(nodes) > 1 else []
        cells = [Text(shown(cell or "")) for cell in (one.check, *place, one.found, one.mend)]
        table.add_row(Text(one.level, style=COLOURS[one.level]), *cells)
    return table
