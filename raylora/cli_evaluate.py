"""`raylora evaluate`: any LoRA file, judged by any captioned folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from raylora import completion
from raylora.bundled import DEMO_NAME
from raylora.cli_options import AsJson, BaseModel, LoraFile, Settings, SkipBad
from raylora.cli_output import on_stderr, print_metrics, warn_on
from raylora.files import is_folder
from raylora.request import Request, read_request

if TYPE_CHECKING:
    from raylora.search.space import SearchSpace


def evaluate(
    lora: LoraFile,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            help="Captioned images to judge by, or `demo`.",
            metavar="DIR",
            autocompletion=completion.datasets,
        ),
    ],
    base_model: BaseModel = None,
    train_dataset: Annotated[
        Optional[str],
        typer.Option(
            "--train-dataset",
            help="The images that it learned: for train_probe_loss and copying.",
            metavar="DIR",
            autocompletion=completion.datasets,
        ),
    ] = None,
    settings: Settings = None,
    skip_bad_images: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Every measure of any LoRA file on any captioned folder.

    Base model, image encoder and sampling come from the experiment.yaml beside
    the LoRA if there is one. Judge by images that it has not learned.

    Examples:

      raylora evaluate out/realistic/best --dataset judge_photos --json

      raylora evaluate downloaded.safetensors --dataset judge_photos \\
          --base-model stable-diffusion-v1-5/stable-diffusion-v1-5
    """
    from raylora.diffusion.places import check_lora_place
    from raylora.execution.there import check_base, check_pictures

    check_lora_place(lora)
    check_base(base_model)
    check_pictures(dataset, train_dataset)
    from raylora.execution.found_lora import experiment_beside  # seconds

    file = experiment_beside(lora)
    given = {"dataset.skip_bad_images": skip_bad_images or None, "model.base_model": base_model}
    experiment = read_request(Request(file, given, settings or ()), _space(base_model if not file else None))
    from raylora.execution.assess import evaluate_lora

    warn = warn_on(on_stderr())
    learned = train_dataset or (_still_there(experiment.dataset.path, warn) if file else None)
    print_metrics(evaluate_lora(lora, dataset, learned, experiment, warn), as_json)


def _space(base_model: str | None) -> SearchSpace | None:
    """The demo's space for the demo's model, which is judged by encoder and sampling of its own."""
    if base_model != DEMO_NAME:
        return None
    from raylora.search.space import load_space

    return load_space(DEMO_NAME)


def _still_there(dataset: str | None, warn: Callable[[str], None]) -> str | None:
    """The images that a LoRA learned, if its experiment.yaml is where they are too."""
    if dataset in (None, DEMO_NAME) or is_folder(Path(str(dataset))):
        return dataset
    warn(f"{dataset}: the images that it learned are not here; without them there is no train_probe_loss or copying")
    return None
