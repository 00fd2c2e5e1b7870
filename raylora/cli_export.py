"""`raylora export`; apart from the other commands because it needs none of their helpers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from raylora import completion
from raylora.cli_options import AsJson, LoraFile

if TYPE_CHECKING:
    from raylora.diffusion.export import Exported


def export(
    lora: LoraFile,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="Layout: kohya (A1111, ComfyUI) or diffusers.",
            metavar="LAYOUT",
            autocompletion=completion.one_of("kohya", "diffusers"),
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The new file, .safetensors.", metavar="FILE")],
    strength: Annotated[
        float, typer.Option("--strength", help="What 1.0 of the new file is of the old.", metavar="NUMBER")
    ] = 1.0,
    rank: Annotated[Optional[int], typer.Option("--rank", help="Lower rank, by SVD.", metavar="RANK")] = None,
    save_precision: Annotated[
        Optional[str],
        typer.Option(
            "--save-precision",
            help="fp16, bf16 or fp32; by default as it was.",
            metavar="TYPE",
            autocompletion=completion.one_of("fp16", "bf16", "fp32"),
        ),
    ] = None,
    base_model: Annotated[
        Optional[str],
        typer.Option("--base-model", help="Its diffusers folder: only for an SDXL of unusual shape.", metavar="DIR"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a LoRA file between layouts, bake a strength in, or lower its rank; needs no base model.

    It tells how much of the LoRA is left where the rank is lowered.

    Examples:

      raylora export out/demo/best --to diffusers --out my_lora.safetensors \\
          --strength 0.8

      raylora export big.safetensors --to kohya --out small.safetensors \\
          --rank 8 --save-precision fp16
    """
    from raylora.diffusion.places import check_is_file, lora_file_in

    check_is_file(lora_file_in(lora))
    from raylora.diffusion.export import Export, export_lora  # seconds

    done = export_lora(Export(lora, to, out, strength, rank, save_precision, base_model))
    print(json.dumps(_summary(done), indent=2) if as_json else "\n".join(_lines(done)))


def _summary(done: Exported) -> dict[str, Any]:
    kept = done.kept
    return {
        "file": str(done.file),
        "layout": done.layout,
        "family": done.family,
        "layers": done.layers,
        "rank": done.rank,
        "alpha": done.alpha,
        "size_bytes": done.size_bytes,
        "norm_kept": kept.overall if kept else 1.0,
        "norm_kept_worst": kept.worst if kept else 1.0,
        "norm_kept_worst_layer": kept.worst_layer if kept else None,
    }


def _lines(done: Exported) -> list[str]:
    made = f"{done.file}: {done.layout} layout, {done.family}, {done.layers} layers, rank {done.rank}, " \
           f"alpha {done.alpha}, {done.size_bytes / 1e6:.1f} MB"  # fmt: skip
    if not done.kept:
        return [made]
    return [made, f"kept {done.kept.overall:.1%} of the Frobenius norm; {done.kept.worst:.1%} in the layer that lost "
                  f"most, {done.kept.worst_layer}"]  # fmt: skip
