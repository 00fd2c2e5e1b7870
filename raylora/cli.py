"""The command line: parse, call the library, render. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
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
from raylora.bundled import DEMO_NAME
from raylora.cli_export import export
from raylora.errors import RayloraError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from raylora.config import Experiment
    from raylora.search.space import SearchSpace

INTERRUPTED = 130

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
    typer.Option("--space", help="Bundled name (demo, realistic, anime, …), YAML file, or package.module:function."),
]
Settings = Annotated[
    Optional[list[str]], typer.Option("--set", help="Override a setting: section.field=value. Repeatable.")
]
Out = Annotated[Optional[Path], typer.Option("--out", help="Output folder; new or empty.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
SplitFile = Annotated[
    Optional[Path], typer.Option("--split", help="split.json of an earlier search: hold out the same.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad-images", help="Go on without images that can't be read.")]
Address = Annotated[Optional[str], typer.Option("--address", help="Ray cluster: auto, HOST:PORT or ray://HOST:PORT.")]


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
    skip_bad_images: SkipBad = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search for the best settings; the winner is in OUT/best.

    Examples:

      raylora tune --demo

      raylora tune --dataset my_photos --base-model stable-diffusion-v1-5/stable-diffusion-v1-5 --space realistic
    """
    given = _options(demo, dataset, base_model, skip_bad_images) | {
        "search.trials": trials,
        "search.gpus_per_trial": gpus_per_trial,
        "tracking.uri": tracking_uri,
        "tracking.register_name": register,
    }
    chosen = _space(space, demo or base_model == DEMO_NAME, default="realistic")
    assert chosen is not None
    experiment = _read(experiment_file, chosen, given, settings)
    chosen = chosen.without(_pinned(settings))
    from raylora.execution.outputs import OutFolder
    from raylora.execution.prepare import prepare

    console = _stderr()
    job = prepare(experiment, chosen, split, _warn(console))
    _print_plan(console, job.plan.lines())
    if dry_run:
        return
    from raylora.execution.tuner import tune_job
    from raylora.report.live import view

    folder = OutFolder(_absolute(out or Path("out") / chosen.name))
    with _resumable(folder.root), view(console, experiment.search.trials) as listener:
        summary = tune_job(job, folder, listener, _say(console), address)
    _print_summary(summary, folder.root, as_json)


@app.command()
def resume(
    out: Annotated[Path, typer.Argument(help="Output folder of a search that was interrupted.")],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a search after any kill: finished trials stay, running ones go on from their last rung."""
    from raylora.config_files import read_experiment
    from raylora.execution.outputs import OutFolder

    folder = OutFolder(_absolute(out))
    folder.read_unfinished()
    from raylora.execution.tuner import resume_job
    from raylora.report.live import view

    console = _stderr()
    with _resumable(folder.root), view(console, read_experiment(folder.experiment).search.trials) as listener:
        summary = resume_job(folder.root, listener, _say(console), address)
    _print_summary(summary, folder.root, as_json)


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
    chosen = _space(space, demo or base_model == DEMO_NAME, default=None)
    experiment = _read(experiment_file, chosen, given, settings, first_point=True)
    from raylora.execution.outputs import OutFolder
    from raylora.execution.prepare import prepare

    console = _stderr()
    job = prepare(experiment, None, split, _warn(console))
    _print_plan(console, job.plan.lines())
    if dry_run:
        return
    from raylora.execution.alone import train_job

    folder = OutFolder(_absolute(out or Path("out") / "train"))
    summary = train_job(job, folder, holdout or split is not None, _say(console))
    _print_summary(summary, folder.root, as_json)


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
    file = beside if beside.is_file() else None
    space = _space(None, demo=base_model == DEMO_NAME and not file, default=None)
    experiment = _read(file, space, _options(False, None, base_model, skip_bad_images), settings)
    from raylora.execution.assess import evaluate_lora

    learned = train_dataset or (experiment.dataset.path if file else None)
    metrics = evaluate_lora(lora, dataset, learned, experiment, _warn(_stderr()))
    names = ("score", "holdout_loss", "holdout_loss_ratio", "train_probe_loss", "sample_similarity", "similarity_gain",
             "prompt_alignment", "diversity", "copying")  # fmt: skip
    table = {name: metrics.get(name) for name in names}
    if as_json:
        print(json.dumps({"metrics": table}, indent=2))
    else:
        for name, value in table.items():
            print(f"{name:20} {'needs --train-dataset or another encoder' if value is None else f'{value:.4f}'}")


app.command()(export)


def _read(
    file: Path | None,
    space: SearchSpace | None,
    given: dict[str, Any],
    settings: list[str] | None,
    first_point: bool = False,
) -> Experiment:
    """Settings in layers: the space's, the file's, the options', `--set`. Later ones win."""
    from raylora.config import nest
    from raylora.config_files import Layer, build_experiment, parse_assignments, read_yaml
    from raylora.search.space import space_layer

    layers = [space_layer(space)] if space else []
    if space and first_point and space.first_points:
        layers.append(Layer(f"search space {space.name}, first point", nest(space.first_points[0])))
    if file:
        layers.append(Layer(str(file), read_yaml(file)))
    options = nest({path: value for path, value in given.items() if value is not None})
    return build_experiment([*layers, Layer("command line", options), parse_assignments(settings or [])])


def _options(demo: bool, dataset: str | None, base_model: str | None, skip_bad_images: bool) -> dict[str, Any]:
    """Options as settings by dotted path; None where nothing was said."""
    bundled = DEMO_NAME if demo else None
    return {
        "dataset.path": dataset or bundled,
        "dataset.skip_bad_images": skip_bad_images or None,
        "model.base_model": base_model or bundled,
    }


def _pinned(settings: list[str] | None) -> list[str]:
    """Paths that `--set` names: what is set by hand is not searched."""
    from raylora.config import flatten
    from raylora.config_files import parse_assignments

    return list(flatten(parse_assignments(settings or []).settings))


def _space(name: str | None, demo: bool, default: str | None) -> SearchSpace | None:
    """The named space; `--demo` is short for the bundled one."""
    from raylora.search.space import load_space

    chosen = name or (DEMO_NAME if demo else default)
    return load_space(chosen) if chosen else None


def _absolute(path: Path) -> Path:
    """Ray's workers run in other folders."""
    return path.expanduser().resolve()


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _warn(console: Console) -> Callable[[str], None]:
    return lambda message: console.print(
        f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True
    )


def _say(console: Console) -> Callable[[str], None]:
    return lambda message: console.print(message, markup=False, highlight=False, soft_wrap=True)


def _print_plan(console: Console, lines: list[tuple[str, str]]) -> None:
    for label, text in lines:
        console.print(f"{label:12}{text}", markup=False, highlight=False, soft_wrap=True)


class _resumable:  # noqa: N801  # used as a function
    """Turns Ctrl-C into exit status 130 and a word on how to go on."""

    def __init__(self, root: Path):
        self._root = root

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is KeyboardInterrupt and (self._root / "state.json").is_file():
            print(f"interrupted; go on with: raylora resume {self._root}", file=sys.stderr)
            raise SystemExit(INTERRUPTED)


def _print_summary(summary: dict[str, Any], root: Path, as_json: bool) -> None:
    """The answer on stdout."""
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    best, baseline, trials = summary["best"], summary["baseline"], summary["trials"]
    if best["score"] is not None:
        against = f"; the guide's own settings reach {baseline['score']:.3f}" if baseline else ""
        print(f"Best: {best['trial_id']} with score {best['score']:.3f}{against}")
    for path, value in best["params"].items():
        print(f"  {path} = {value:.4g}" if isinstance(value, float) else f"  {path} = {value}")
    print(f"Trials: {trials['finished']} finished, {trials['stopped_early']} stopped early, {trials['failed']} failed; "
          f"{summary['images_seen']:,} images in {summary['wall_s']:.0f} s")  # fmt: skip
    print(f"LoRA for A1111 and ComfyUI: {best['lora_kohya']}")
    print(f"LoRA for diffusers:         {best['lora_diffusers']}")
    print(f"Samples:                    {root / 'best' / 'samples' / 'grid.png'}")
    print(f"Everything:                 {root}")
    if summary["tracking_uri"]:
        print(f"MLflow:                     mlflow ui --backend-store-uri {summary['tracking_uri']}")
    if summary["registered"]:
        print("Registered:                 models:/{name}@{alias} (version {version})".format(**summary["registered"]))


def _quieten() -> None:
    """Libraries' warnings are for developers; users get raylora's own words."""
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main() -> NoReturn:
    """Run the command line; every error of raylora's own becomes one message and an exit status."""
    _quieten()
    try:
        app(standalone_mode=True)
    except RayloraError as error:
        kind = "error" if isinstance(error, UserError) else "failed"
        print(f"raylora: {kind}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        print(f"raylora: failed: {type(error).__name__}: {error}\n{_keep_traceback()}", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(0)


def _keep_traceback() -> str:
    """Put the traceback where a developer can have it, and say where."""
    with tempfile.NamedTemporaryFile("w", prefix="raylora-", suffix=".log", delete=False, encoding="utf-8") as file:
        traceback.print_exc(file=file)
    return f"This is a bug in raylora; please report it with {file.name}"
