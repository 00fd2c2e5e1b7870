"""`raylora generate`: pictures of a LoRA."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from raylora import completion
from raylora.bundled import DEMO_NAME
from raylora.cli_options import FLAG, AsJson, Settings
from raylora.cli_output import interruptible, on_stderr, print_plan, say_on, warn_on
from raylora.config import nest
from raylora.config_files import Layer, build_experiment
from raylora.errors import RayloraError
from raylora.redaction import shown
from raylora.request import OPTIONS, Request, out_place

if TYPE_CHECKING:
    from rich.console import Console

    from raylora.config import Experiment
    from raylora.execution.found_lora import FoundLora
    from raylora.execution.generate import Generation, Made

Lora = Annotated[
    str,
    typer.Argument(
        help="LoRA file in kohya's or diffusers' layout, an output folder, or a registered LoRA: models:/NAME@ALIAS or "
        "models:/NAME/VERSION.",
        metavar="LORA",
    ),
]
Prompts = Annotated[
    Optional[list[str]],
    typer.Option("--prompt", help="What to show; {trigger} is the trigger word. Repeatable.", metavar="TEXT"),
]
PromptsFile = Annotated[
    Optional[Path],
    typer.Option(
        "--prompts",
        help="Text file with a prompt a line; kohya's --n --w --h --d --s --l may follow it.",
        metavar="FILE",
    ),
]
Negative = Annotated[Optional[str], typer.Option("--negative-prompt", help="What not to show.", metavar="TEXT")]
Seeds = Annotated[
    Optional[list[int]],
    typer.Option("--seed", help="0 to 4294967295: one picture per prompt and seed. Repeatable.", metavar="N"),
]
Count = Annotated[
    Optional[int], typer.Option("--count", help="So many seeds in a row, from each --seed on.", metavar="N")
]
Strengths = Annotated[
    Optional[list[float]],
    typer.Option(
        "--strength",
        help="1 is the LoRA as trained, 0 the base model. Repeatable. By default what the search recommends, else 1.",
        metavar="X",
    ),
]
Steps = Annotated[Optional[int], typer.Option("--steps", help="Denoising steps.", metavar="N")]
Guidance = Annotated[Optional[float], typer.Option("--guidance-scale", help="Classifier-free guidance.", metavar="X")]
Size = Annotated[
    Optional[str],
    typer.Option("--size", help="Width x height in px, multiples of 8; by default as it was trained.", metavar="WxH"),
]
Out = Annotated[
    Path, typer.Option("--out", help="Folder; pictures are added to those in it, numbered on.", metavar="OUT")
]
WithGrid = Annotated[
    bool, typer.Option("--grid", help="Also write all pictures side by side, with labels.", metavar=FLAG)
]
BatchSize = Annotated[
    Optional[int], typer.Option("--batch-size", help="Pictures at once; changes speed and memory.", metavar="N")
]
BaseModel = Annotated[
    Optional[str],
    typer.Option(
        "--base-model",
        help="Hub id, diffusers folder or .safetensors file, or `demo`; by default the one that it was trained on.",
        metavar="MODEL",
        autocompletion=completion.base_models,
    ),
]
TrackingUri = Annotated[
    Optional[str],
    typer.Option(
        "--tracking-uri", help="MLflow's, of a registered LoRA; by default MLFLOW_TRACKING_URI.", metavar="URI"
    ),
]


def generate(
    lora: Lora,
    prompt: Prompts = None,
    prompts: PromptsFile = None,
    negative_prompt: Negative = None,
    seed: Seeds = None,
    count: Count = None,
    strength: Strengths = None,
    steps: Steps = None,
    guidance_scale: Guidance = None,
    size: Size = None,
    out: Out = Path("out") / "generated",
    grid: WithGrid = False,
    batch_size: BatchSize = None,
    base_model: BaseModel = None,
    tracking_uri: TrackingUri = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Make pictures with a LoRA: every prompt with every seed at every strength, each file saying how it was made.

    Examples:

      raylora generate out/realistic --prompt "{trigger}, portrait" --count 4

      raylora generate models:/my_lora@champion --prompts prompts.txt --grid
    """
    _check_there(lora, base_model)
    from raylora.execution.found_lora import found_lora
    from raylora.execution.generate import Generation, check_generation, usual_batch
    from raylora.execution.recipes import Wish, recipes_of

    root, console = out_place(out), on_stderr()
    given = {
        "model.base_model": base_model, "sampling.negative_prompt": negative_prompt, "sampling.steps": steps,
        "sampling.guidance_scale": guidance_scale,
    }  # fmt: skip
    wish = Wish(prompt or (), prompts, seed or (), count, strength or (), size, batch_size)
    with found_lora(lora, _checked_uri(tracking_uri), os.environ) as found:
        experiment = _experiment(found, Request(found.experiment_file, given, settings or ()))
        recipes = recipes_of(wish, experiment, found.strength)
        wanted = Generation(found, experiment, recipes, root, batch_size or usual_batch(experiment, recipes))
        check_generation(wanted, warn_on(console))
        print_plan(console, _plan(wanted, is_told=not strength))
        made, failure = _made(wanted, console)
    if failure and not made:
        raise failure
    is_grid_made = grid and (failure is None or isinstance(failure, RayloraError))  # others are of the disk, say
    grid_file = _write_grid(made, root) if is_grid_made else None
    _print(wanted, made, grid_file, as_json)
    if failure:
        raise failure


def _check_there(lora: str, base_model: str | None) -> None:
    """Whether LoRA and base model may be where they are said to be, before what takes seconds to load.

    Raises:
        ModelError: one of them isn't.
    """
    from raylora.diffusion.places import check_is_file, check_lora_place, lora_file_in
    from raylora.execution.there import check_base
    from raylora.files import expanded
    from raylora.tracking.names import REGISTRY

    if not lora.startswith(REGISTRY):
        place = expanded(Path(lora))
        check_lora_place(place)
        check_is_file(lora_file_in(place))
    check_base(base_model)


def _checked_uri(uri: str | None) -> str | None:
    """A tracking URI that holds no password, as the settings want theirs."""
    return build_experiment([Layer(OPTIONS["tracking.uri"], nest({"tracking.uri": uri}))]).tracking.uri if uri else None


def _experiment(found: FoundLora, request: Request) -> Experiment:
    """Settings from what is known of the LoRA, the file beside it, and the options."""
    layers = [*found.layers, *request.layers()]
    flat = {path: value for layer in layers for path, value in layer.flat.items()}
    if flat.get("model.base_model") == DEMO_NAME and found.experiment_file is None:
        from raylora.search.space import load_space

        layers.insert(0, Layer("the demo's settings", load_space(DEMO_NAME).experiment))
    return build_experiment(layers)


def _plan(wanted: Generation, is_told: bool) -> list[tuple[str, str]]:
    """What will be done, before it takes its time; `is_told` where nobody gave a strength."""
    from raylora.execution.trial import devices_here

    found, recipes = wanted.lora, wanted.recipes
    strengths = ", ".join(f"{at:g}" for at in dict.fromkeys(recipe.strength for recipe in recipes))
    source = f" ({found.strength_source})" if is_told and found.strength_source else ""
    prompts, seeds = len({recipe.prompt for recipe in recipes}), len({recipe.seed for recipe in recipes})
    return [
        ("LoRA", str(found.reference)),
        ("Base model", str(wanted.experiment.model.base_model)),
        ("Precision", _precision(wanted.experiment)),
        ("Strength", f"{strengths}{source}"),
        ("Pictures", f"{len(recipes)}: {_counted(prompts, 'prompt')}, {_counted(seeds, 'seed')}"),
        ("Device", devices_here()),
        ("Output", str(wanted.folder)),
    ]


def _precision(experiment: Experiment) -> str:
    """The number format that pictures are made in, and which setting it is of."""
    chosen = experiment.training.mixed_precision
    return f"{'fp32' if chosen == 'no' else chosen} (training.mixed_precision {chosen})"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _made(wanted: Generation, console: Console) -> tuple[list[Made], Exception | None]:
    """All pictures, as they are made; an interruption or a failure, which is told, leaves those that are there."""
    from raylora.execution.generate import generate_pictures
    from raylora.report.steps import steps

    made: list[Made] = []

    def kept() -> str:
        return f"{_counted(len(made), 'picture')} made so far in {wanted.folder}" if made else ""

    try:
        with interruptible(kept), steps(console) as tell:
            for one in generate_pictures(wanted, warn_on(console)):
                made.append(one)
                tell("made", len(made), len(wanted.recipes))
    except Exception as error:
        if made:
            say_on(console)(f"{kept()}, of {len(wanted.recipes)}")
        return made, error
    return made, None


def _write_grid(made: Sequence[Made], root: Path) -> Path:
    from raylora.execution.numbered import NumberedFolder
    from raylora.report.labelled_grid import labelled_grid

    return NumberedFolder(root).save_grid(labelled_grid([(one.recipe, one.file) for one in made]))


def _print(wanted: Generation, made: Sequence[Made], grid: Path | None, as_json: bool) -> None:
    """The files on stdout, each with what tells it apart."""
    if as_json:
        print(json.dumps(_summary(wanted, made, grid), indent=2))
        return
    for one in made:
        recipe = one.recipe
        print(shown(f"{one.file}  strength {recipe.strength:g}  seed {recipe.seed}  {recipe.prompt}"))
    if grid:
        print(shown(f"Grid: {grid}"))


def _summary(wanted: Generation, made: Sequence[Made], grid: Path | None) -> dict[str, Any]:
    """For programs."""
    found = wanted.lora
    return {
        "folder": str(wanted.folder),
        "lora": {"reference": found.reference, "name": found.name, "hash": found.digest},
        "base_model": wanted.experiment.model.base_model,
        "pictures": [{"file": str(one.file), **asdict(one.recipe)} for one in made],
        "grid": str(grid) if grid else None,
    }
