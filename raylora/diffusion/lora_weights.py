"""A LoRA without its model: per part and module path the two matrices, alpha, and DoRA's magnitude.

Paths are diffusers' own, text encoders' with `text_model.`. The change of a weight is alpha / rank · up · down
(Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from raylora.diffusion.kohya_names import text_path
from raylora.errors import ModelError


@dataclass(frozen=True)
class LoraModule:
    """The LoRA of one layer."""

    down: Tensor
    """(rank, in), for a convolution (rank, in, height, width)."""
    up: Tensor
    """(out, rank), for a convolution (out, rank, 1, 1)."""
    alpha: float
    magnitude: Tensor | None = None
    """DoRA's, as kohya's layout has it: (out, 1) or (out, 1, 1, 1), one length per output as in Liu et al. 2024
    (https://arxiv.org/abs/2402.09353) and peft; LyCORIS also trains (1, in) and (1, in, 1, 1), one per input."""

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """What up · down is multiplied with."""
        return self.alpha / self.rank

    @property
    def spatial(self) -> bool:
        """Whether it belongs to a convolution that sees neighbours: kohya's `conv_dim` is about these."""
        return self.down.ndim > 2 and self.down.shape[2:].numel() > 1

    @property
    def per_output(self) -> bool:
        """Whether DoRA's magnitude has one length per output."""
        return self.magnitude is not None and self.magnitude.shape[0] == self.up.shape[0]


@dataclass(frozen=True)
class LoraWeights:
    """A whole LoRA."""

    family: str
    """`sd15` or `sdxl`."""
    parts: Mapping[str, Mapping[str, LoraModule]]
    """`unet`, `text_encoder`, `text_encoder_2` → module path → its LoRA; parts without any are left out."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What its file says about it."""

    def modules(self) -> Iterator[tuple[str, str, LoraModule]]:
        """Part, path and LoRA of every layer."""
        for part, modules in self.parts.items():
            for path, module in modules.items():
                yield part, path, module

    @property
    def rank(self) -> int:
        """The highest rank of any layer."""
        return max(module.rank for _, _, module in self.modules())

    @property
    def dora(self) -> bool:
        return any(module.magnitude is not None for _, _, module in self.modules())


def from_peft(
    family: str,
    state: Mapping[str, Mapping[str, Tensor]],
    alphas: Mapping[str, Mapping[str, float]],
    metadata: Mapping[str, str] | None = None,
) -> LoraWeights:
    """A LoRA from peft's state dicts, `<path>.lora_A.weight`, `.lora_B.weight` and `.lora_magnitude_vector`, per part.

    Args:
        family: `sd15` or `sdxl`.
        state: by part, what `get_peft_model_state_dict` gives.
        alphas: by part and module path, because layers may differ in it.
        metadata: for the file.
    """
    parts = {part: _part_from_peft(part, tensors, alphas[part]) for part, tensors in state.items() if tensors}
    return LoraWeights(family, parts, metadata or {})


def _part_from_peft(part: str, tensors: Mapping[str, Tensor], alphas: Mapping[str, float]) -> dict[str, LoraModule]:
    ending = ".lora_A.weight"
    modules = {}
    for path in (key.removesuffix(ending) for key in tensors if key.endswith(ending)):
        down, up = tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"]
        magnitude = tensors.get(f"{path}.lora_magnitude_vector")
        if magnitude is not None:
            magnitude = magnitude_to_kohya(magnitude, up)
        inside = path if part == "unet" else text_path(path)
        modules[inside] = LoraModule(down, up, alphas[path], magnitude)
    return modules


def magnitude_to_kohya(magnitude: Tensor, up: Tensor) -> Tensor:
    """peft's magnitude, (out,) or (1, out, 1, 1), as `dora_scale`: (out, 1) or (out, 1, 1, 1).

    ComfyUI (comfy/weight_adapter/base.py, `weight_decompose`) takes it for one length per output when its first axis
    is as long as the weight's. It then divides by the row lengths of the unchanged weight, where DoRA and peft take
    those of the changed one: close for a small change, not equal.
    """
    return magnitude.reshape(up.shape[0], *[1] * (up.ndim - 1))


def magnitude_to_peft(module: LoraModule) -> Tensor:
    """The way back from `magnitude_to_kohya`; call it only where `per_output`."""
    assert module.magnitude is not None
    outputs = module.up.shape[0]
    return module.magnitude.reshape(outputs) if module.up.ndim == 2 else module.magnitude.reshape(1, outputs, 1, 1)


def with_strength(weights: LoraWeights, strength: float) -> LoraWeights:
    """The LoRA that acts at 1.0 as this one at `strength`.

    It goes into alpha, not into `up`: alpha is a factor of the whole change, so that the matrices stay as they were bit
    for bit, where numbers multiplied into a 16-bit matrix would be rounded; and every loader reads alpha.

    Raises:
        ModelError: a DoRA; at a strength, loaders scale it differently (ComfyUI blends whole weights, peft scales the
            low-rank part and keeps the magnitude), so no file could stand for it.
    """
    if strength == 1:
        return weights
    if weights.dora:
        raise ModelError("a DoRA can't be exported at another strength: its magnitude belongs to the whole weight, "
                         "which isn't in the file; leave out --strength")  # fmt: skip
    parts = {
        part: {path: replace(module, alpha=module.alpha * strength) for path, module in modules.items()}
        for part, modules in weights.parts.items()
    }
    return replace(weights, parts=parts)


def with_one_alpha(weights: LoraWeights) -> LoraWeights:
    """The same LoRA with one alpha in all layers of a part, the commonest but 0; what differs goes into `up`.

    diffusers 0.42.1 reads kohya's layout as if it were so (`_convert_non_diffusers_lora_to_diffusers` keeps alphas
    apart, but attention layers then get the commonest). Layers that have that alpha stay as they are.
    """
    parts = {}
    for part, modules in weights.parts.items():
        alpha = most_common([module.alpha for module in modules.values() if module.alpha] or [0.0])
        parts[part] = {path: _with_alpha(module, alpha) for path, module in modules.items()}
    return replace(weights, parts=parts)


def _with_alpha(module: LoraModule, alpha: float) -> LoraModule:
    if module.alpha == alpha:
        return module
    exact = module.up.float() * (module.alpha / alpha)
    up = exact.to(module.up.dtype)
    fits = bool(up.float().isfinite().all())  # if not, it stays in float32
    return replace(module, up=up if fits else exact, alpha=alpha)


def only_value(values: Iterable[float]) -> float | None:
    """The value that all have, or None."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def most_common(values: Iterable[float]) -> float:
    """The value that most have; of several, the first."""
    return Counter(values).most_common(1)[0][0]
