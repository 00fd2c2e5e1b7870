"""LoRA adapters on a shared base model, through peft.

LoRA: W x + (alpha / rank) B A x, with A (rank, in) random and B (out, rank) zero at the start
(Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, Literal

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from raylora.config import LoraConfig
from raylora.diffusion.base import UNET, BaseModel
from raylora.errors import ConfigError

UNET_TARGETS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2"),
    "projections": ("proj_in", "proj_out"),
    "convolutions": ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"),
}
"""kohya's names for them: LoRA-LierLa is the first three, LoRA-C3Lier also the fourth (networks/lora.py)."""
TEXT_ENCODER_TARGETS = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "feed_forward": ("fc1", "fc2"),
    "projections": (),
    "convolutions": (),
}

PEFT_INITS: Mapping[str, Literal[True, "gaussian"]] = {"kaiming": True, "gaussian": "gaussian"}
"""kohya's (networks/lora.py: `kaiming_uniform_(lora_down.weight, a=sqrt(5))`) is peft's default; diffusers' is not."""

StateDict = dict[str, Tensor]


def target_modules(part: str, config: LoraConfig) -> list[str]:
    """Name endings of the layers of a part that get a LoRA."""
    table: Mapping[str, tuple[str, ...]] = UNET_TARGETS if part == UNET else TEXT_ENCODER_TARGETS
    return [ending for target in config.targets for ending in table[target]]


def module_rank(part: str, path: str, config: LoraConfig) -> int:
    """The rank of the module at a path: its block's own if it has one, the longest block name winning."""
    ranks = (config.block_ranks or {}) if part == UNET else {}
    blocks = [block for block in ranks if f"{path}.".startswith(f"{block}.")]
    return ranks[max(blocks, key=len)] if blocks else config.rank


def module_alpha(part: str, path: str, config: LoraConfig) -> float:
    """Its alpha, so that alpha / rank is the same everywhere."""
    return config.alpha * module_rank(part, path, config) / config.rank


class Adapter:
    """One LoRA on a base model, under a name of its own; other adapters may live beside it.

    Raises:
        ConfigError: `block_ranks` names a block that has no LoRA.
    """

    def __init__(self, base: BaseModel, config: LoraConfig, name: str, train_text_encoder: bool, seed: int):
        self.base, self.config, self.name = base, config, name
        self.peft_configs: dict[str, PeftLoraConfig] = {}
        parts = list(base.parts) if train_text_encoder else [UNET]
        # Both A's initial values and peft's own draws come from the seed; the caller's RNG stays as it was.
        with torch.random.fork_rng(devices=random_devices(base)):
            torch.manual_seed(seed)
            for part in parts:
                if targets := target_modules(part, config):
                    self._inject(part, targets)
        self._to_training_format()

    def _inject(self, part: str, targets: list[str]) -> None:
        module = self.module(part)
        paths = targeted_paths(module, targets)
        ranks = {path: module_rank(part, path, self.config) for path in paths}
        if part == UNET:
            check_block_ranks(self.config, paths)
        config = PeftLoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            target_modules=targets,
            use_dora=self.config.use_dora,
            init_lora_weights=PEFT_INITS[self.config.init],
            rank_pattern={re.escape(path): rank for path, rank in ranks.items() if rank != self.config.rank},
            alpha_pattern={
                re.escape(path): module_alpha(part, path, self.config)
                for path, rank in ranks.items()
                if rank != self.config.rank
            },
        )
        inject_adapter_in_model(config, module, adapter_name=self.name)
        module.train(module.training)  # new layers begin in train mode, whatever the model's is
        self.peft_configs[part] = config

    def _to_training_format(self) -> None:
        """Adapter weights are float32 on the base's device, whatever the base's format."""
        for layer in self._layers():
            for name in layer.adapter_layer_names:
                weights = getattr(layer, name)
                if self.name in weights:
                    weights[self.name].to(device=self.base.device, dtype=torch.float32)
            if self.config.use_dora:
                self._set_magnitude(layer)

    @torch.no_grad()
    def _set_magnitude(self, layer: Any) -> None:
        """DoRA's magnitude as the norm that its forward pass divides by: a DoRA begins as the base model, exactly.

        peft takes the norm in the base's format when it makes the layer, and in the forward pass of a linear layer in
        float32, of a convolution under autocast.
        """
        dora, of_base, dtype = layer.lora_magnitude_vector[self.name], layer.get_base_layer(), self.base.dtype
        weight = of_base.weight.float() if isinstance(of_base, nn.Linear) else of_base.weight
        with torch.autocast(self.base.device.type, dtype=dtype, enabled=dtype != torch.float32):
            dora.weight.copy_(dora.get_weight_norm(weight, torch.zeros_like(weight), scaling=1.0))

    def module(self, part: str) -> nn.Module:
        return self.base.parts[part]

    def _layers(self) -> Iterator[BaseTunerLayer]:
        for part in self.peft_configs:
            yield from tuner_layers(self.module(part))

    def activate(self) -> None:
        """Switch this adapter on and every other off; only its weights take gradients."""
        if self.base.active_adapter != self.name:
            for part, module in self.base.parts.items():
                for layer in tuner_layers(module):
                    layer.set_adapter(self.name)
                    layer.cast_input_dtype_enabled = self._casts_inputs(part)
            self.base.active_adapter = self.name

    def _casts_inputs(self, part: str) -> bool:
        """Whether peft brings each input to float32, the adapter's format, before its layers see it.

        The U-Net runs under autocast, which brings it straight back to the base's: two copies for nothing, forward and
        backward. DoRA takes its norms in the input's format. Text encoders run without autocast.
        """
        return part != UNET or self.config.use_dora

    def parameters(self, part: str) -> list[tuple[str, nn.Parameter]]:
        """The trainable tensors of a part with their names, in a fixed order."""
        if part not in self.peft_configs:
            return []
        mark = f".{self.name}."
        return [
            (name, weight)
            for name, weight in self.module(part).named_parameters()
            if ".lora_" in name and mark in f"{name}."
        ]

    def state_dict(self) -> dict[str, StateDict]:
        """Per part: `<module>.lora_A.weight` (rank, in, …) and `.lora_B.weight` (out, rank, …), detached copies."""
        return {
            part: {
                key: value.detach().clone()
                for key, value in get_peft_model_state_dict(self.module(part), adapter_name=self.name).items()
            }
            for part in self.peft_configs
        }

    def load_state_dict(self, state: Mapping[str, StateDict]) -> None:
        """Take the weights that `state_dict` gave."""
        for part, weights in state.items():
            set_peft_model_state_dict(self.module(part), weights, adapter_name=self.name)

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """The adapter's change times `strength` while the block lasts, as programs that load a LoRA offer it."""
        self._set_strength(strength)
        try:
            yield
        finally:
            self._set_strength(1.0)

    def _set_strength(self, strength: float) -> None:
        for layer in self._layers():
            if isinstance(layer, LoraLayer):
                layer.set_scale(self.name, strength)

    def close(self) -> None:
        """Take the adapter off the base model."""
        for part in self.peft_configs:
            module: Any = self.module(part)
            for layer in tuner_layers(module):
                layer.delete_adapter(self.name)
                layer.cast_input_dtype_enabled = True  # peft's own, for adapters that are not ours
                if isinstance(layer, LoraLayer):  # an older peft may leave it, and names come again
                    layer.lora_variant.pop(self.name, None)
            module.peft_config.pop(self.name, None)
        if self.base.active_adapter == self.name:
            self.base.active_adapter = None


@contextmanager
def loaded_at_strength(base: BaseModel, strength: float) -> Iterator[None]:
    """The LoRA that `load_lora` put onto a base model, its change times `strength` while the block lasts.

    At 0 it is switched off: a DoRA's magnitudes would still act.
    """
    layers = [layer for part in base.parts.values() for layer in tuner_layers(part)]
    _scale(layers, strength)
    try:
        yield
    finally:
        _scale(layers, 1.0)


def _scale(layers: Iterable[BaseTunerLayer], strength: float) -> None:
    for layer in layers:
        layer.enable_adapters(strength != 0)
        for name in layer.active_adapters if isinstance(layer, LoraLayer) else ():
            layer.set_scale(name, strength)


def free_name(base: BaseModel) -> str:
    """A name that no adapter on the base model has now. Names come again: torch.compile compiles anew for each."""
    taken = {name for part in base.parts.values() for name in getattr(part, "peft_config", ())}
    return next(name for number in count() if (name := f"raylora{number}") not in taken)


def random_devices(base: BaseModel) -> list[int]:
    """The GPU that has random state of its own beside the CPU's, by its index: `torch.manual_seed` sets both."""
    return [base.device.index or 0] if base.device.type == "cuda" else []


def tuner_layers(module: nn.Module) -> list[BaseTunerLayer]:
    """The layers of a model that carry adapters."""
    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]


def targeted_paths(module: nn.Module, endings: list[str]) -> list[str]:
    """Paths of the layers that a LoRA with these name endings lies on."""
    wanted = tuple("." + ending for ending in endings)
    return [
        name.removesuffix(".base_layer")
        for name, layer in module.named_modules()
        if name.removesuffix(".base_layer").endswith(wanted) and isinstance(layer, nn.Linear | nn.Conv2d)
    ]


def check_block_ranks(config: LoraConfig, paths: list[str]) -> None:
    """Whether each block that has a rank of its own has a LoRA too."""
    for block in config.block_ranks or {}:
        if not any(f"{path}.".startswith(f"{block}.") for path in paths):
            blocks = sorted({".".join(path.split(".")[: 1 if path.startswith("mid") else 2]) for path in paths})
            raise ConfigError(f"lora.block_ranks: no LoRA lies on a block {block}; blocks are {', '.join(blocks)}")


def count_parameters(module: nn.Module, part: str, config: LoraConfig) -> int:
    """How many numbers a LoRA of this configuration holds for a part; the weights need not be loaded."""
    paths = targeted_paths(module, target_modules(part, config))
    layers: dict[str, Any] = dict(module.named_modules())
    if part == UNET:
        check_block_ranks(config, paths)
    return sum(_layer_parameters(layers[path], module_rank(part, path, config), config.use_dora) for path in paths)


def count_trained(parts: Mapping[str, nn.Module], config: LoraConfig, train_text_encoder: bool) -> int:
    """The same for all parts of a base model that are trained."""
    return sum(count_parameters(parts[part], part, config) for part in (parts if train_text_encoder else [UNET]))


def _layer_parameters(layer: Any, rank: int, use_dora: bool) -> int:
    outputs, *inputs = (int(size) for size in layer.weight.shape)
    return rank * (math.prod(inputs) + outputs) + (outputs if use_dora else 0)
