"""Commands for a cluster elsewhere: `raylora submit`, `raylora jobs`, and `--address ray://` of the others."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from raylora import completion
from raylora.cli_options import FLAG
from raylora.cli_output import INTERRUPTED
from raylora.errors import ConfigError

SENT = ("tune", "train", "resume", "evaluate")
"""Commands that a cluster can run."""
CLIENT = "ray://"
WORDS_ALONE = {"allow_interspersed_args": False}
"""Options after the command are the command's."""

Dashboard = Annotated[
    str,
    typer.Option(
        "--address",
        help="The cluster's dashboard; by default RAY_API_SERVER_ADDRESS, or this machine's.",
        default_factory=lambda: os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265"),
        show_default=False,
        metavar="URL",
    ),
]
JobId = Annotated[str, typer.Argument(help="As `raylora submit` prints it.", metavar="ID")]

jobs = typer.Typer(no_args_is_help=True)


@jobs.callback()
def jobs_root() -> None:
    """Jobs that `raylora submit` has sent to a cluster: listed, shown, followed and stopped.

    Each takes --address, the cluster's dashboard.

    Examples:

      raylora jobs list --address http://head:8265

      raylora jobs logs --follow raysubmit_8vBGRJ4CJFW2DMwU
    """


def submit(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(
            help="tune, train, resume or evaluate, and its options.",
            metavar="COMMAND",
            autocompletion=completion.one_of(*SENT),
        ),
    ],
    address: Dashboard,
    working_dir: Annotated[
        Path,
        typer.Option(
            "--working-dir", help="What relative paths start from.", metavar="DIR", file_okay=False, exists=True
        ),
    ] = Path(),
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow it to its end, or print its id alone.", metavar=FLAG)
    ] = True,
    env: Annotated[
        Optional[list[str]],
        typer.Option("--env", help="Take this environment variable along, by its name. Repeatable.", metavar="NAME"),
    ] = None,
    gpus: Annotated[
        Optional[float],
        typer.Option(
            "--gpus", help="Of a training or an evaluation; by default 1 if the cluster has any.", metavar="N", min=0
        ),
    ] = None,
) -> None:
    """Send a command to a Ray cluster, and follow it there.

    What it names by relative paths is sent along: experiment file, search
    space, own modules, small datasets. Absolute paths are the cluster's. --out
    must be one, on storage that all nodes share.

    Examples:

      raylora submit -- tune --dataset my_photos --space realistic \\
          --base-model /shared/sd15 --out /shared/out

      raylora submit --address http://head:8265 --env MLFLOW_TRACKING_TOKEN \\
          --no-wait -- resume /shared/out
    """
    name, params = _parsed(context, command)
    out = _checked_out(params.get("out"), "is gone with the job's working directory" if name != "evaluate" else "")
    environment = _taken_along(env or ())
    _check_secrets(command)
    _check_gpus(gpus, name)
    words = [*command, "--address", "auto"] if name == "tune" and params["address"] is None else list(command)
    from raylora.execution.jobs import Order, has_gpus, jobs_at, packed, send

    with packed(params, working_dir.resolve()) as package, jobs_at(address) as client:
        if gpus is None:
            gpus = float(name in ("train", "evaluate") and has_gpus(address))
        job_id = send(client, Order(words, package, out, gpus, environment))
        print(job_id, flush=True) if not wait else print(f"job {job_id}", file=sys.stderr, flush=True)
    if wait:
        raise typer.Exit(_followed(address, job_id))


@jobs.command("list")
def list_jobs(address: Dashboard) -> None:
    """All jobs that the cluster remembers, the latest last.

    Example:

      raylora jobs list --address http://head:8265
    """
    from raylora.execution.jobs import jobs_at

    with jobs_at(address) as client:
        for job in sorted(client.list_jobs(), key=lambda job: job.start_time or 0):
            if job.submission_id:  # others are drivers that no job has started
                print(_in_a_line(job))


@jobs.command()
def status(job_id: JobId, address: Dashboard) -> None:
    """What has become of a job.

    Example:

      raylora jobs status raysubmit_8vBGRJ4CJFW2DMwU
    """
    from raylora.execution.jobs import jobs_at, why_it_failed

    with jobs_at(address) as client:
        job = client.get_job_info(job_id)
    print(_in_a_line(job))
    if reason := why_it_failed(job):
        print(reason)


@jobs.command()
def logs(
    job_id: JobId,
    address: Dashboard,
    follow: Annotated[
        bool, typer.Option("--follow", help="To its end; the exit status is then the job's.", metavar=FLAG)
    ] = False,
) -> None:
    """What a job has said so far.

    Example:

      raylora jobs logs --follow raysubmit_8vBGRJ4CJFW2DMwU
    """
    if follow:
        raise typer.Exit(_followed(address, job_id))
    from raylora.execution.jobs import jobs_at

    with jobs_at(address) as client:
        print(client.get_job_logs(job_id), end="")


@jobs.command()
def stop(job_id: JobId, address: Dashboard) -> None:
    """Stop a job as Ctrl-C would, so that it can be gone on with; waits until it has ended.

    Example:

      raylora jobs stop raysubmit_8vBGRJ4CJFW2DMwU
    """
    from raylora.execution import jobs as running

    with running.jobs_at(address) as client:
        job = running.stop(client, job_id)
    print(_in_a_line(job))
    if out := running.out_of(job):
        print(f"go on with: raylora submit -- resume {shlex.quote(out)}")


def through_client(context: typer.Context, address: str | None) -> None:
    """Where the address is Ray Client's, run this very command on the cluster's head, and end with it.

    Raises:
        ConfigError: it names what is on this machine.
    """
    if address is None or not address.startswith(CLIENT):
        return
    out = _checked_out(context.params.get("out"), "would lie wherever Ray runs on the cluster's head")
    _check_all_there(context.params)
    from raylora.execution.client import run_on_head

    how_to_go_on = f"`{shlex.join(['raylora', 'resume', str(out), '--address', address])}`"
    raise typer.Exit(run_on_head(address, _with_address(sys.argv[1:], address), how_to_go_on))


def _with_address(words: Sequence[str], address: str) -> list[str]:
    """The same command line for one who is on the cluster."""
    return [word.replace(address, "auto") if word in (address, f"--address={address}") else word for word in words]


def _check_all_there(params: Mapping[str, Any]) -> None:
    """Whether a command names nothing by a relative path: it runs elsewhere, and nothing is sent along.

    Raises:
        ConfigError: it does.
    """
    from raylora.execution.packing import files_of, named_by

    here = Path.cwd()
    for named in named_by(params, here):
        if files_of([named], here):
            raise ConfigError(
                f"{named.by} {named.value}: is on this machine, and through {CLIENT} nothing is sent along; name it by "
                "its absolute path on the cluster, or use `raylora submit`, which sends it"
            )


def _parsed(context: typer.Context, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """A command's name and parameters, as it reads them itself; what is wrong is told as there.

    Raises:
        ConfigError: there is no such command, or it is none for a cluster.
    """
    name, *rest = words
    if name not in SENT:
        raise ConfigError(f"raylora submit -- {name}: can't be sent to a cluster; {', '.join(SENT)} can")
    root: Any = context.find_root().command
    parsed = root.commands[name].make_context(name, list(rest), parent=context.find_root())
    return name, dict(parsed.params)


def _checked_out(out: Any, otherwise: str) -> Path | None:
    """An absolute output folder.

    Args:
        otherwise: what becomes of any other; empty where there needs none to be.

    Raises:
        ConfigError: it is relative, or there is none.
    """
    if out is not None and str(out).startswith(("/", "~")):
        return Path(str(out))
    if not otherwise:
        return None
    what = f"--out {out}" if out is not None else "the default --out"
    raise ConfigError(
        f"{what}: {otherwise}; give an absolute path on storage that all nodes share, as --out /shared/out"
    )


def _taken_along(names: Sequence[str]) -> dict[str, str]:
    """Variables of this environment for the job; their values are nowhere printed.

    Raises:
        ConfigError: one isn't set, or a value was given with it.
    """
    for name in names:
        if "=" in name:
            raise ConfigError(
                f"--env {name.partition('=')[0]}: give the name alone, so that the value stays out of command lines; "
                "it is taken from the environment here"
            )
        if name not in os.environ:
            raise ConfigError(f"--env {name}: is not set here; set it, or leave it out")
    return {name: os.environ[name] for name in names}


def _check_secrets(words: Sequence[str]) -> None:
    """Ray writes a job's command into its log and its list of jobs.

    Raises:
        ConfigError: an address in it has a password.
    """
    if any(re.search(r"://[^/\s@]*:[^/\s@]+@", word) for word in words):
        raise ConfigError(
            "an address in the command has a password, which the cluster's list of jobs would show; give an MLflow "
            "server's by --env MLFLOW_TRACKING_USERNAME --env MLFLOW_TRACKING_PASSWORD, or put the address into the "
            "experiment file, as tracking.uri"
        )


def _check_gpus(gpus: float | None, command: str) -> None:
    if gpus and command == "tune":
        raise ConfigError(f"--gpus {gpus:g}: a search's trials take GPUs, and its driver none; use --gpus-per-trial")


def _followed(address: str, job_id: str) -> int:
    """A job's log to its end; Ctrl-C leaves the job alone."""
    from raylora.execution.jobs import follow, jobs_at, why_it_failed

    def write(text: str) -> None:
        print(text, end="", flush=True)

    try:
        with jobs_at(address) as client:
            status = follow(client, job_id, write)
            if reason := why_it_failed(client.get_job_info(job_id)):
                print(f"raylora: failed: job {job_id}: {reason}", file=sys.stderr)
            return status
    except KeyboardInterrupt:
        at = f" --address {address}"
        print(f"\njob {job_id} goes on; follow it with: raylora jobs logs --follow {job_id}{at}\n"
              f"stop it with: raylora jobs stop {job_id}{at}", file=sys.stderr)  # fmt: skip
        return INTERRUPTED


def _in_a_line(job: Any) -> str:
    """Id, state, beginning and command of a job."""
    from datetime import datetime

    from raylora.execution.jobs import command_of

    began = datetime.fromtimestamp((job.start_time or 0) / 1000).strftime("%Y-%m-%d %H:%M:%S")
    ended = f", status {job.driver_exit_code}" if job.driver_exit_code is not None else ""
    return f"{job.submission_id}  {job.status.lower()}{ended}  {began}  {command_of(job)}"
