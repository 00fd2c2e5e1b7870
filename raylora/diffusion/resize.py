"""A LoRA at a lower rank: the best low-rank approximation of what it changes.

Eckart & Young 1936 (https://doi.org/10.1007/BF02288367): of all matrices of rank k, the one made of the k largest
singular values is nearest in the Frobenius norm. sd-scripts' networks/resize_lora.py is the counterpart; it works on
the full change of a weight, where the two thin factors suffice (see `shrink`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from raylora.diffusion.lora_weights import LoraModule, LoraWeights
from raylora.errors import ModelError


@dataclass(frozen=True)
class Kept:
    """How much of the Frobenius norm of the changes a smaller rank keeps, from 0 to 1."""

    overall: float
    """Of all layers' changes together."""
    worst: float
    """Of the layer that loses most."""
    worst_layer: str


def with_rank(weights: LoraWeights, rank: int) -> tuple[LoraWeights, Kept]:
    """A LoRA whose layers have at most this rank, and what it keeps; layers of lower rank stay as they are.

    Raises:
        ModelError: the rank is above the LoRA's, or the LoRA is a DoRA.
    """
    _check(weights, rank)
    parts: dict[str, dict[str, LoraModule]] = {part: {} for part in weights.parts}
    norms: dict[str, tuple[float, float]] = {}
    for part, path, module in weights.modules():
        smaller, after, before = shrink(module, rank)
        parts[part][path] = smaller
        norms[f"{part}.{path}"] = after, before
    kept_squared, squared = (sum(norm[place] ** 2 for norm in norms.values()) for place in (0, 1))
    shares = {layer: after / before if before else 1.0 for layer, (after, before) in norms.items()}
    worst = min(shares, key=lambda layer: shares[layer])
    overall = (kept_squared / squared) ** 0.5 if squared else 1.0
    return replace(weights, parts=parts), Kept(overall, shares[worst], worst)


def _check(weights: LoraWeights, rank: int) -> None:
    if rank > weights.rank:
        raise ModelError(f"the rank can't be raised from {weights.rank} to {rank}: nothing would come of it but a "
                         f"larger file; give --rank {weights.rank} or less")  # fmt: skip
    if weights.dora:
        raise ModelError("the rank of a DoRA can't be changed: its magnitude belongs to the whole weight, base model "
                         "included, and would no longer fit the smaller change; leave out --rank")  # fmt: skip


def shrink(module: LoraModule, rank: int) -> tuple[LoraModule, float, float]:
    """One layer at a lower rank, and the Frobenius norms of its change after and before.

    With up = Q_u R_u and downᵀ = Q_d R_d, the singular values of up · down are those of the small R_u R_dᵀ. A
    convolution's `down` is taken as (rank, in · height · width), as its change is in `comfy/weight_adapter/lora.py`
    and kohya's `extract_conv`. Each factor gets the square roots of the singular values, so that neither is small in
    16 bits. alpha / rank stays what it was.
    """
    up, down = (matrix.flatten(1).to(torch.float64) for matrix in (module.up, module.down))
    left, up_rest = torch.linalg.qr(up)
    right, down_rest = torch.linalg.qr(down.T)
    u, values, vh = torch.linalg.svd(up_rest @ down_rest.T, full_matrices=False)
    before = abs(module.scale) * float(values.norm())
    if rank >= module.rank:
        return module, before, before
    roots = values[:rank].sqrt()
    new_up = (left @ u[:, :rank]) * roots
    new_down = roots[:, None] * (vh[:rank] @ right.T)
    smaller = LoraModule(
        down=new_down.reshape(-1, *module.down.shape[1:]).to(module.down.dtype),
        up=new_up.reshape(module.up.shape[0], -1, *module.up.shape[2:]).to(module.up.dtype),
        alpha=module.scale * len(roots),
    )
    return smaller, abs(module.scale) * float(values[:rank].norm()), before
