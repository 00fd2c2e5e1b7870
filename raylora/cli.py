"""The command line: parse, call the library, render. Heavy imports wait until a command needs them."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from raylora import __version__
from raylora.bundled import DEMO_NAME
from raylora.cli_check import check
from raylora.cli_doctor import doctor
from raylora.cli_evaluate import evaluate
from raylora.cli_export import export
from raylora.cli_generate import generate
from raylora.cli_options import (
    FLAG,
    Address,
    AsJson,
    BaseModel,
    Dataset,
    Demo,
    DryRun,
    File,
    GpusPerTrial,
    Holdout,
    Out,
    Register,
    Settings,
    SkipBad,
    Space,
    SplitFile,
    TakeOther,
    TrackingUri,
    Trials,
    WarmStart,
)
from raylora.cli_output import (
    INTERRUPTED,
    on_stderr,
    print_plan,
    print_summary,
    reporting,
    resumable,
    say_on,
    warn_on,
    watched,
)
from raylora.cli_prepare import prepare as prepare_command
from raylora.cli_promote import promote
from raylora.cli_resume import resume
from raylora.cli_submit import WORDS_ALONE, jobs, submit, through_client
from raylora.errors import RayloraError, UserError, disk_fault, path_fault
from raylora.redaction import shown
from raylora.request import Request, Wanted, default_space, out_place, search_wanted, training_wanted

if TYPE_CHECKING:
    from rich.console import Console

    from raylora.execution.job import Job
    from raylora.execution.outputs import OutFolder
    from raylora.execution.tuner import Ready
    from raylora.search.space import SearchSpace

app = typer.Typer(
    name="raylora",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"raylora {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", metavar=FLAG, callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Finds the right settings for training a LoRA on Stable Diffusion, and hands over the LoRA.

    Each command has options and examples of its own: raylora tune --help.
    Exit status: 0; 1 where the work failed; 2 where the input is wrong, with
    one message; 130 where it was interrupted.

    A whole search on the bundled tiny model, without a GPU:

      raylora tune --demo

    From your own photos to a LoRA; the second line prints the plan alone:

      raylora check my_photos

      raylora tune --dataset my_photos --space realistic --dry-run \\
          --base-model stable-diffusion-v1-5/stable-diffusion-v1-5

      raylora tune --dataset my_photos --space realistic \\
          --base-model stable-diffusion-v1-5/stable-diffusion-v1-5

    Going on after Ctrl-C, a crash or a reboot:

      raylora resume out/realistic
    """


@app.command()
def tune(
    context: typer.Context,
    experiment_file: File = None,
    demo: Demo = False,
    dataset: Dataset = None,
    base_model: BaseModel = None,
    space: Space = None,
    trials: Trials = None,
    settings: Settings = None,
    out: Out = None,
    tracking_uri: TrackingUri = None,
    register: Register = None,
    address: Address = None,
    gpus_per_trial: GpusPerTrial = None,
    split: SplitFile = None,
    warm_start: WarmStart = None,
    force: TakeOther = False,
    skip_bad_images: SkipBad = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Search for the best settings; the winner is in OUT/best.

    It prints its plan first: images, steps, file size, disk, trials, device.
    The LoRA is OUT/best/lora.safetensors, and OUT/report.html tells all of it.
    What is set by --set or in the file is not searched.

    Examples:

      raylora tune --demo

      raylora tune --dataset my_photos --space realistic \\
          --base-model stable-diffusion-v1-5/stable-diffusion-v1-5 \\
          --set dataset.trigger=sks --out out/anna

      raylora tune --dataset my_photos --space sdxl-character --trials 12 \\
          --base-model stabilityai/stable-diffusion-xl-base-1.0 --dry-run

      raylora tune --demo --out out/second --warm-start out/demo
    """
    through_client(context, address)
    given = _options(demo, dataset, base_model, skip_bad_images) | {
        "search.trials": trials,
        "search.gpus_per_trial": gpus_per_trial,
        "tracking.uri": tracking_uri,
        "tracking.register_name": register,
    }
    console = on_stderr()
    warn = warn_on(console)
    wanted = _looked_at(Request(experiment_file, given, settings or ()), space, split, warm_start or (), force)
    folder = _folder(out, wanted, is_plan_alone=dry_run)
    job = _planned(wanted, split, warm_start or (), force, warn)
    from raylora.execution.tuner import tune_job

    search = _announced(job, folder, address, console, warn if dry_run else None)
    if dry_run:
        return
    with watched(search.out, console, job.experiment.search) as listener:
        summary = tune_job(search, listener, say_on(console))
    print_summary(summary, search.out.root, as_json)


def _announced(
    job: Job, folder: OutFolder, address: str | None, console: Console, warn: Callable[[str], None] | None
) -> Ready:
    """The search's plan printed and what it needs looked at; nothing has begun.

    Args:
        warn: told of what a search would be refused for, where nothing is to begin.
    """
    from raylora.execution.cluster import device_line
    from raylora.execution.tuner import ready

    device = device_line(job.experiment.search, address)
    print_plan(console, [*job.lines(), ("Device", device), ("Output", str(folder.root))])
    return ready(job, folder, address, warn)


def _looked_at(
    request: Request, space: str | None, split: Path | None, warm_start: Sequence[Path], force: bool
) -> Wanted:
    """The search that was asked for; what it names is there, as far as that is told at once."""
    from raylora.execution.there import check_there
    from raylora.execution.warm_start import check_earlier
    from raylora.search.space import load_space

    wanted = search_wanted(request, load_space(space or default_space(request)))
    check_there(wanted.experiment, split)
    check_earlier(warm_start, force)
    return wanted


def _folder(out: Path | None, wanted: Wanted, is_plan_alone: bool) -> OutFolder:
    """Where the work goes: told at once where that is in use, unless a plan is wanted, which is printed first.

    Raises:
        OutputError: it is in use, or can't be a folder.
    """
    from raylora.execution.outputs import OutFolder

    name = wanted.space.name.replace(":", "-") if wanted.space else "train"
    folder = OutFolder(out_place(out or Path("out") / name))
    if not is_plan_alone:
        folder.check_new()
    return folder


def _planned(
    wanted: Wanted, split: Path | None, warm_start: Sequence[Path], force: bool, warn: Callable[[str], None]
) -> Job:
    """The search, looked at from all sides."""
    from raylora.execution.checked_job import checked_job  # seconds
    from raylora.execution.warm_start import warm_started

    for warning in wanted.warnings:
        warn(warning)
    return warm_started(checked_job(wanted.experiment, wanted.space, split, warn), warm_start, warn, force)


app.command()(resume)


@app.command()
def train(
    experiment_file: File = None,
    demo: Demo = False,
    dataset: Dataset = None,
    base_model: BaseModel = None,
    space: Space = None,
    settings: Settings = None,
    out: Out = None,
    holdout: Holdout = False,
    split: SplitFile = None,
    skip_bad_images: SkipBad = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train one configuration, without a search; with --space its first point, the guide's own.

    It learns all images unless --holdout or --split is given. The LoRA is
    OUT/best/lora.safetensors.

    Examples:

      raylora train out/demo/best/experiment.yaml --out out/again

      raylora train --dataset my_drawings --space anime --set lora.rank=8 \\
          --base-model stable-diffusion-v1-5/stable-diffusion-v1-5 --holdout
    """
    given = _options(demo, dataset, base_model, skip_bad_images)
    chosen = _space(space, demo or base_model == DEMO_NAME)
    wanted = training_wanted(Request(experiment_file, given, settings or ()), chosen)
    from raylora.execution.there import check_there

    check_there(wanted.experiment, split)
    folder = _folder(out, wanted, is_plan_alone=dry_run)
    from raylora.execution.checked_job import check_hub, checked_job  # seconds
    from raylora.execution.trial import devices_here

    console = on_stderr()
    warn = warn_on(console)
    for warning in wanted.warnings:
        warn(warning)
    holds_out = holdout or split is not None
    job = checked_job(wanted.experiment, None, split, warn, holds_out)
    print_plan(console, [*job.plan.lines(), ("Device", devices_here()), ("Output", str(folder.root))])
    folder.check_free(job.plan.disk_bytes)
    check_hub(job.experiment, holds_out, warn=warn if dry_run else None)
    if dry_run:
        return
    from raylora.execution.alone import train_job

    with resumable(folder.root), reporting(folder, warn):
        summary = train_job(job, folder, holds_out, say_on(console))
    print_summary(summary, folder.root, as_json)


@app.command()
def report(
    out: Annotated[
        Path, typer.Argument(help="Output folder of a search or training, also while it runs.", metavar="OUT")
    ],
) -> None:
    """Write OUT/report.html again: the answer, its reasons, pictures and curves, in one file that needs no network.

    A search and a training write it themselves as they end. The file's path is
    printed.

    Example:

      raylora report out/demo
    """
    from raylora.execution.outputs import OutFolder
    from raylora.report.page import write_report

    print(write_report(OutFolder(out_place(out))))


app.command()(check)
app.command(name="prepare")(prepare_command)
app.command()(evaluate)
app.command()(export)
app.command()(generate)
app.command()(promote)
app.command(context_settings=WORDS_ALONE)(submit)
app.add_typer(jobs, name="jobs")
app.command()(doctor)


def _options(demo: bool, dataset: str | None, base_model: str | None, skip_bad_images: bool) -> dict[str, Any]:
    """Options as settings by dotted path; None where nothing was said."""
    bundled = DEMO_NAME if demo else None
    return {
        "dataset.path": bundled if dataset is None else dataset,
        "dataset.skip_bad_images": skip_bad_images or None,
        "model.base_model": bundled if base_model is None else base_model,
    }


def _space(name: str | None, demo: bool) -> SearchSpace | None:
    """The named space; `--demo` is short for the bundled one."""
    if name is None and not demo:
        return None
    from raylora.search.space import load_space

    return load_space(name or DEMO_NAME)


def _quieten() -> None:
    """Libraries' warnings are for developers; users get raylora's own words."""
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # which begins when MLflow is imported
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main() -> NoReturn:
    """Run the command line; every error of raylora's own becomes one message and an exit status."""
    _quieten()
    try:
        app(standalone_mode=True)
    except RayloraError as error:
        kind = "error" if isinstance(error, UserError) else "failed"
        print(f"raylora: {kind}: {shown(str(error))}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if told := path_fault(error):
            print(f"raylora: error: {shown(told)}", file=sys.stderr)
            raise SystemExit(UserError.exit_status) from None
        told = disk_fault(error) or f"{type(error).__name__}: {error}\n{_keep_traceback()}"
        print(f"raylora: failed: {shown(told)}", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(0)


def _keep_traceback() -> str:
    """Put the traceback where a developer can have it, its owner alone, and say where."""
    with tempfile.NamedTemporaryFile("w", prefix="raylora-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(shown(traceback.format_exc()))
    return f"This is a bug in raylora; please report it with {file.name}"
