"""`raylora promote`: a LoRA into MLflow's registry, and an alias on the best of them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from raylora.cli_options import FLAG, AsJson
from raylora.cli_output import in_registry, on_stderr, say_on, warn_on
from raylora.config import nest
from raylora.config_files import Layer, build_experiment
from raylora.errors import PromotionError

if TYPE_CHECKING:
    from raylora.tracking.registry import Placed


def promote(
    target: Annotated[
        str,
        typer.Argument(
            help="Output folder of a finished search, the id of its run in MLflow, or models:/NAME/VERSION.",
            metavar="OUT",
        ),
    ],
    name: Annotated[Optional[str], typer.Option("--name", help="Name in MLflow's registry.", metavar="NAME")] = None,
    alias: Annotated[str, typer.Option("--alias", help="The alias to give.", metavar="ALIAS")] = "champion",
    tracking_uri: Annotated[
        Optional[str],
        typer.Option(
            "--tracking-uri",
            help="MLflow server or store; by default that of OUT's search, else MLFLOW_TRACKING_URI.",
            metavar="URI",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Give the alias though the other LoRA isn't worse.", metavar=FLAG)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register a LoRA, and give it an alias unless the one that has it is better, or that can't be told.

    Recorded scores are compared, of the same measures on the same held-out
    images; nothing is measured again. Where the alias stays, the status is 1.

    Examples:

      raylora promote out/realistic --name my_lora

      raylora promote models:/my_lora/3 --tracking-uri http://mlflow:5000 --force
    """
    _check("--name", "tracking.register_name", name)
    _check("--tracking-uri", "tracking.uri", tracking_uri)
    from raylora.execution.finished import finished_search, output_named
    from raylora.tracking.names import URI_VARIABLE

    if out := output_named(target):
        finished_search(out)
    from raylora.execution.promoting import Promotion, promote  # seconds

    console, usual_uri = on_stderr(), os.environ.get(URI_VARIABLE)
    placed = promote(Promotion(target, name, alias, tracking_uri, force, usual_uri), say_on(console))
    if placed.forced:
        warn_on(console)(f"--force: version {placed.holder} had {alias}, and {placed.forced}")
    print(json.dumps(_as_dict(placed), indent=2) if as_json else _line(placed))
    if placed.why_not:
        raise PromotionError(
            f"{alias} stays with version {placed.holder} of {placed.registered['name']}: {placed.why_not}; "
            "--force moves it all the same"
        )


def _check(option: str, path: str, value: str | None) -> None:
    """Whether an option's value is what the setting of the same meaning takes.

    Raises:
        ConfigError: it isn't.
    """
    if value is not None:
        build_experiment([Layer(option, nest({path: value}))])


def _as_dict(placed: Placed) -> dict[str, Any]:
    return {**placed.registered, "previous": placed.holder, "why_not": placed.why_not, "forced": placed.forced}


def _line(placed: Placed) -> str:
    told = in_registry(placed.registered)
    if placed.why_not or placed.holder is None:
        return f"Registered: {told}"
    same = placed.holder == placed.registered["version"]
    return f"Registered: {told}, which had it already" if same else f"Registered: {told}, in place of {placed.holder}"
