"""Options and arguments that several commands share, with what a shell proposes for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from raylora import completion
from raylora.bundled import search_spaces

FLAG = ""
"""The metavar of an option that takes no value: else typer calls its type."""

File = Annotated[Optional[Path], typer.Argument(help="Experiment file (YAML).", metavar="EXPERIMENT.yaml")]
Demo = Annotated[bool, typer.Option("--demo", help="The bundled model, data set and search space.", metavar=FLAG)]
Dataset = Annotated[
    Optional[str],
    typer.Option(
        "--dataset",
        help="Folder of captioned images, s3:// or gs:// URI, or `demo`.",
        metavar="DIR",
        autocompletion=completion.datasets,
    ),
]
BaseModel = Annotated[
    Optional[str],
    typer.Option(
        "--base-model",
        help="Hub id, diffusers folder or .safetensors file, or `demo`.",
        metavar="MODEL",
        autocompletion=completion.base_models,
    ),
]
Space = Annotated[
    Optional[str],
    typer.Option(
        "--space",
        help=f"Bundled name ({', '.join(search_spaces())}), YAML file, or package.module:function. "
        "A search takes realistic, or the demo's own, if none is given.",
        metavar="SPACE",
        autocompletion=completion.spaces,
    ),
]
Settings = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set",
        help="Override a setting: section.field=value. Repeatable.",
        metavar="KEY=VALUE",
        autocompletion=completion.settings,
    ),
]
Out = Annotated[
    Optional[Path],
    typer.Option(
        "--out",
        help="Output folder, new or empty; by default out/ and the space's name, or out/train.",
        metavar="OUT",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.", metavar=FLAG)]
SplitFile = Annotated[
    Optional[Path],
    typer.Option("--split", help="split.json of an earlier search: hold out the same.", metavar="FILE"),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad-images", help="Go on without images that can't be read.", metavar=FLAG)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.", metavar=FLAG)]
Trials = Annotated[
    Optional[int], typer.Option("--trials", help="How many trials in all; by default the space's.", metavar="N")
]
WarmStart = Annotated[
    Optional[list[Path]],
    typer.Option("--warm-start", help="Output folder of an earlier search to learn from. Repeatable.", metavar="OUT"),
]
TakeOther = Annotated[
    bool, typer.Option("--force", help="Let --warm-start take another base model's search.", metavar=FLAG)
]
TrackingUri = Annotated[
    Optional[str],
    typer.Option("--tracking-uri", help="MLflow server or store; by default mlflow.db in OUT.", metavar="URI"),
]
Register = Annotated[
    Optional[str],
    typer.Option(
        "--register", help="Register the winner under this name; champion unless the other is better.", metavar="NAME"
    ),
]
GpusPerTrial = Annotated[
    Optional[float],
    typer.Option("--gpus-per-trial", help="Part of a GPU (0.5) or several (2); by default 1.", metavar="GPUS"),
]
Holdout = Annotated[
    bool, typer.Option("--holdout", help="Hold images out as a search does, and measure on them.", metavar=FLAG)
]
Address = Annotated[
    Optional[str],
    typer.Option(
        "--address",
        help="Ray cluster: auto, local, HOST:PORT or ray://HOST:10001.",
        metavar="RAY",
        autocompletion=completion.addresses,
    ),
]
LoraFile = Annotated[
    Path, typer.Argument(help="LoRA file in kohya's or diffusers' layout, or an output folder.", metavar="LORA")
]
