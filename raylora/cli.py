"""The command line: parse, call the library, render. Heavy imports wait until a command needs them."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from raylora import __version__
from raylora.bundled import DEMO_NAME, search_spaces
from raylora.cli_check import check
from raylora.cli_doctor import doctor
from raylora.cli_export import export
from raylora.cli_output import (
    INTERRUPTED,
    on_stderr,
    print_metrics,
    print_plan,
    print_summary,
    reporting,
    resumable,
    say_on,
    warn_on,
    watched,
)
from raylora.cli_prepare import prepare as prepare_command
from raylora.cli_submit import WORDS_ALONE, jobs, submit, through_client
from raylora.errors import OutputError, RayloraError, UserError, disk_fault, path_fault
from raylora.files import is_file, is_folder
from raylora.redaction import shown
from raylora.request import Request, default_space, out_place, read_request, search_wanted, training_wanted

if TYPE_CHECKING:
    from raylora.execution.job import Job
    from raylora.execution.outputs import OutFolder
    from raylora.search.space import SearchSpace

app = typer.Typer(
    name="raylora",
    help="Finds the right settings for training a LoRA on Stable Diffusion, and hands over the LoRA.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Optional[Path], typer.Argument(help="Experiment file (YAML).", metavar="[EXPERIMENT.yaml]")]
Demo = Annotated[bool, typer.Option("--demo", help="The bundled model, data set and search space.")]
Dataset = Annotated[Optional[str], typer.Option("--dataset", help="Folder of captioned images, or `demo`.")]
BaseModel = Annotated[
    Optional[str], typer.Option("--base-model", help="Hub id, diffusers folder or .safetensors file, or `demo`.")
]
Space = Annotated[
    Optional[str],
    typer.Option(
        "--space",
        help=f"Bundled name ({', '.join(search_spaces())}), YAML file, or package.module:function. "
        "A search takes realistic, or the demo's own, if none is given.",
    ),
]
Settings = Annotated[
    Optional[list[str]], typer.Option("--set", help="Override a setting: section.field=value. Repeatable.")
]
Out = Annotated[
    Optional[Path],
    typer.Option("--out", help="Output folder, new or empty; by default out/ and the space's name, or out/train."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
SplitFile = Annotated[
    Optional[Path], typer.Option("--split", help="split.json of an earlier search: hold out the same.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad-images", help="Go on without images that can't be read.")]
WarmStart = Annotated[
    Optional[list[Path]],
    typer.Option("--warm-start", help="Output folder of an earlier search to learn from. Repeatable.", metavar="OUT"),
]
Address = Annotated[
    Optional[str], typer.Option("--address", help="Ray cluster: auto, local, HOST:PORT or ray://HOST:10001.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"raylora {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Finds the right settings for training a LoRA on Stable Diffusion, and hands over the LoRA."""


@app.command()
def tune(
    context: typer.Context,
    experiment_file: File = None,
    demo: Demo = False,
    dataset: Dataset = None,
    base_model: BaseModel = None,
    space: Space = None,
    trials: Annotated[Optional[int], typer.Option("--trials", help="How many trials in all.")] = None,
    settings: Settings = None,
    out: Out = None,
    tracking_uri: Annotated[Optional[str], typer.Option("--tracking-uri", help="MLflow tracking URI.")] = None,
    register: Annotated[Optional[str], typer.Option("--register", help="Register the winner under this name.")] = None,
    address: Address = None,
    gpus_per_trial: Annotated[
        Optional[float], typer.Option("--gpus-per-trial", help="Part of a GPU (0.5) or several (2).")
    ] = None,
    split: SplitFile = None,
    warm_start: WarmStart = None,
    force: Annotated[bool, typer.Option("--force", help="Let --warm-start take another base model's search.")] = False,
    skip_bad_images: SkipBad = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search for the best settings; the winner is in OUT/best.

    Examples:

      raylora tune --demo

      raylora tune --dataset my_photos --base-model stable-diffusion-v1-5/stable-diffusion-v1-5 --space realistic
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
    job = _planned(Request(experiment_file, given, settings or ()), space, split, warn)
    from raylora.execution.warm_start import warm_started

    job = warm_started(job, warm_start or (), warn, force)
    assert job.space is not None
    from raylora.execution.cluster import device_line
    from raylora.execution.outputs import OutFolder
    from raylora.execution.tuner import check_start, tune_job

    folder = OutFolder(out_place(out or Path("out") / job.space.name.replace(":", "-")))
    device = device_line(job.experiment.search, address)
    print_plan(console, [*job.lines(), ("Device", device), ("Output", str(folder.root))])
    check_start(job, folder, address, warn if dry_run else None)
    if dry_run:
        return
    with watched(folder, console, job.experiment.search) as listener:
        summary = tune_job(job, folder, listener, say_on(console), address)
    print_summary(summary, folder.root, as_json)


def _planned(request: Request, space: str | None, split: Path | None, warn: Callable[[str], None]) -> Job:
    """The search that was asked for, looked at from all sides."""
    from raylora.search.space import load_space

    wanted = search_wanted(request, load_space(space or default_space(request)))
    from raylora.execution.prepare import prepare

    for warning in wanted.warnings:
        warn(warning)
    return prepare(wanted.experiment, wanted.space, split, warn)


@app.command()
def resume(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="Output folder of a search or training that was interrupted.")],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Go on after any kill: finished trials stay, what was running goes on from its last rung or epoch."""
    through_client(context, address)
    from raylora.execution.outputs import OutFolder

    folder = OutFolder(out_place(out))
    folder.read_unfinished()
    go_on = _resume_training if folder.holds_training else _resume_search
    print_summary(go_on(folder, address), folder.root, as_json)


def _resume_search(folder: OutFolder, address: str | None) -> dict[str, Any]:
    from raylora.config_files import read_experiment
    from raylora.execution.tuner import resume_job
    from raylora.tracking.recorder import read_records

    console = on_stderr()
    search = read_experiment(folder.experiment).search
    earlier = read_records(folder.trials)
    with watched(folder, console, search, earlier) as listener:
        return resume_job(folder.root, listener, say_on(console), address)


def _resume_training(folder: OutFolder, address: str | None) -> dict[str, Any]:
    if address is not None:
        raise OutputError(f"{folder.root}: holds a training, which needs no cluster; leave --address out")
    from raylora.execution.alone import resume_training

    console = on_stderr()
    with resumable(folder.root), reporting(folder, warn_on(console)):
        return resume_training(folder, say_on(console))


@app.command()
def train(
    experiment_file: File = None,
    demo: Demo = False,
    dataset: Dataset = None,
    base_model: BaseModel = None,
    space: Space = None,
    settings: Settings = None,
    out: Out = None,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Hold images out as a search does, and measure on them.")
    ] = False,
    split: SplitFile = None,
    skip_bad_images: SkipBad = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train one configuration, without a search; with --space its first point, the guide's own.

    Examples:

      raylora train out/demo/best/experiment.yaml --out out/again

      raylora train --dataset my_photos --base-model … --space anime --set lora.rank=8
    """
    given = _options(demo, dataset, base_model, skip_bad_images)
    chosen = _space(space, demo or base_model == DEMO_NAME)
    wanted = training_wanted(Request(experiment_file, given, settings or ()), chosen)
    from raylora.execution.outputs import OutFolder
    from raylora.execution.prepare import check_hub, prepare
    from raylora.execution.trial import devices_here

    console = on_stderr()
    warn = warn_on(console)
    for warning in wanted.warnings:
        warn(warning)
    holds_out = holdout or split is not None
    job = prepare(wanted.experiment, None, split, warn, holds_out)
    folder = OutFolder(out_place(out or Path("out") / "train"))
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
    out: Annotated[Path, typer.Argument(help="Output folder of a search or training, also while it runs.")],
) -> None:
    """Write OUT/report.html again: the answer, its reasons, pictures and curves, in one file that needs no network."""
    from raylora.execution.outputs import OutFolder
    from raylora.report.page import write_report

    print(write_report(OutFolder(out_place(out))))


@app.command()
def evaluate(
    lora: Annotated[Path, typer.Argument(help="LoRA file in kohya's or diffusers' layout, or an output folder.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Captioned images to judge by, or `demo`.")],
    base_model: BaseModel = None,
    train_dataset: Annotated[
        Optional[str],
        typer.Option("--train-dataset", help="The images that it learned: for train_probe_loss and copying."),
    ] = None,
    settings: Settings = None,
    skip_bad_images: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Every measure of any LoRA file on any captioned folder.

    Base model, image encoder and sampling come from the experiment.yaml beside the LoRA if there is one.

    Example:

      raylora evaluate out/demo/best/lora.safetensors --dataset judge_photos --json
    """
    from raylora.diffusion.lora_file import lora_file_in

    beside = lora_file_in(lora).parent / "experiment.yaml"
    file = beside if is_file(beside) else None
    space = _space(None, demo=base_model == DEMO_NAME and not file)
    given = _options(False, None, base_model, skip_bad_images)
    experiment = read_request(Request(file, given, settings or ()), space)
    from raylora.execution.assess import evaluate_lora

    warn = warn_on(on_stderr())
    learned = train_dataset or (_still_there(experiment.dataset.path, warn) if file else None)
    print_metrics(evaluate_lora(lora, dataset, learned, experiment, warn), as_json)


app.command()(check)
app.command(name="prepare")(prepare_command)
app.command()(export)
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


def _still_there(dataset: str | None, warn: Callable[[str], None]) -> str | None:
    """The images that a LoRA learned, if its experiment.yaml is where they are too."""
    if dataset in (None, DEMO_NAME) or is_folder(Path(str(dataset))):
        return dataset
    warn(f"{dataset}: the images that it learned are not here; without them there is no train_probe_loss or copying")
    return None


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
