"""`raylora doctor`: what this machine or a cluster can run, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from raylora.bundled import DEMO_NAME
from raylora.cli_output import on_stderr
from raylora.request import Request, read_request

if TYPE_CHECKING:
    from rich.table import Table

    from raylora.execution.doctor.rows import Row

COLOURS = {"good": "green", "warning": "yellow", "bad": "bold red", "not checked": "dim"}


def doctor(
    experiment_file: Annotated[
        Optional[Path], typer.Argument(help="Experiment file (YAML).", metavar="[EXPERIMENT.yaml]")
    ] = None,
    dataset: Annotated[Optional[str], typer.Option("--dataset", help="Folder of images to read, or `demo`.")] = None,
    base_model: Annotated[
        Optional[str], typer.Option("--base-model", help="Hub id, diffusers folder or .safetensors file, or `demo`.")
    ] = None,
    settings: Annotated[
        Optional[list[str]], typer.Option("--set", help="Override a setting: section.field=value. Repeatable.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option("--out", help="Where output would go; by default out/.")] = None,
    tracking_uri: Annotated[Optional[str], typer.Option("--tracking-uri", help="MLflow tracking URI.")] = None,
    address: Annotated[
        Optional[str],
        typer.Option("--address", help="Ray cluster: auto or HOST:PORT. Without it, this machine is looked at."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of findings as JSON on stdout.")] = False,
) -> None:
    """Look at GPUs, disks, Ray, MLflow, hub and images; each is good, a warning or bad, with the mend.

    Nothing that it tries stays. The exit status is 1 if anything is bad, and 0 with warnings alone.

    Examples:

      raylora doctor

      raylora doctor experiment.yaml --address auto --out /shared/out --tracking-uri http://mlflow:5000
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
    return f"{one.level:12}{one.check}{place}: {one.found}{f'; mend: {one.mend}' if one.mend else ''}"


def _table(rows: list[Row]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    nodes = {one.node for one in rows if one.node}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("", "check", *(["node"] if len(nodes) > 1 else []), "found", "mend"):
        table.add_column(column, no_wrap=column == "")
    for one in rows:
        place = [Text(one.node or "")] if len(nodes) > 1 else []
        level = Text(one.level, style=COLOURS[one.level])
        table.add_row(level, Text(one.check), *place, Text(one.found), Text(one.mend or ""))
    return table
