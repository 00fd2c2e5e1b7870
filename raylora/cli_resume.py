"""`raylora resume`: a search or a training that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raylora.cli_options import Address, AsJson
from raylora.cli_output import on_stderr, print_summary, reporting, resumable, say_on, warn_on, watched
from raylora.cli_submit import through_client
from raylora.errors import OutputError
from raylora.request import out_place

if TYPE_CHECKING:
    from raylora.execution.outputs import OutFolder


def resume(
    context: typer.Context,
    out: Annotated[
        Path, typer.Argument(help="Output folder of a search or training that was interrupted.", metavar="OUT")
    ],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Go on after any kill: finished trials stay, what was running goes on from its last rung or epoch.

    The settings are those that it began with, from OUT/experiment.yaml and
    OUT/space.yaml.

    Examples:

      raylora resume out/realistic

      raylora resume /shared/first --address auto
    """
    through_client(context, address)
    from raylora.execution.outputs import OutFolder

    folder = OutFolder(out_place(out))
    folder.read_unfinished()
    with folder.locked():  # told before anything is loaded or said; who goes on takes it once more
        pass
    go_on = _resume_training if folder.holds_training else _resume_search
    print_summary(go_on(folder, address), folder.root, as_json)


def _resume_search(folder: OutFolder, address: str | None) -> dict[str, Any]:
    from raylora.config_files import read_experiment
    from raylora.execution.tuner import resume_job
    from raylora.tracking.recorder import read_records

    console = on_stderr()
    search = read_experiment(folder.experiment).search
    earlier = [*read_records(folder.trials), *read_records(folder.confirmations)]
    with watched(folder, console, search, earlier) as listener:
        return resume_job(folder.root, listener, say_on(console), address)


def _resume_training(folder: OutFolder, address: str | None) -> dict[str, Any]:
    if address is not None:
        raise OutputError(f"{folder.root}: holds a training, which needs no cluster; leave --address out")
    from raylora.execution.alone import resume_training

    console = on_stderr()
    with resumable(folder.root), reporting(folder, warn_on(console)):
        return resume_training(folder, say_on(console))
