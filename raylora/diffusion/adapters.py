"""LoRA adapters on a shared base model, through peft.

LoRA: W x + (alpha / rank) B A x, with A (rank, in) random and B (out, rank) zero at the start
(Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from raylora.config import LoraConfig
from raylora.diffusion.families import BaseModel

UNET_TARGETS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2"),
    "projections": ("proj_in", "proj_out"),
}
TEXT_ENCODER_TARGETS = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "feed_forward": ("fc1", "fc2"),
    "projections": (),
}
PARTS = ("unet", "text_encoder")

StateDict = dict[str, Tensor]


def target_modules(part: str, config: LoraConfig) -> list[str]:
    """Name endings of the layers of a part that get a LoRA."""
    table: Mapping[str, tuple[str, ...]] = UNET_TARGETS if part == "unet" else TEXT_ENCODER_TARGETS
    return [ending for target in config.targets for ending in table[target]]


class Adapter:
    """One LoRA on a base model, under a name of its own; other adapters may live beside it."""

    def __init__(self, base: BaseModel, config: LoraConfig, name: str, train_text_encoder: bool, seed: int):
        self.base, self.config, self.name = base, config, name
        self.peft_configs: dict[str, PeftLoraConfig] = {}
        # Both A's initial values and peft's own draws come from the seed; the caller's RNG stays as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for part in PARTS:
                if targets := self._targets(part, train_text_encoder):
                    self._inject(part, targets)
        self._to_training_format()

    def _targets(self, part: str, train_text_encoder: bool) -> list[str]:
        trained = part == "unet" or train_text_encoder
        return target_modules(part, self.config) if trained else []

    def _inject(self, part: str, targets: list[str]) -> None:
        config = PeftLoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            target_modules=targets,
        )
        module = self.module(part)
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

    def module(self, part: str) -> nn.Module:
        module: nn.Module = getattr(self.base, part)
        return module

    def _layers(self) -> Iterator[BaseTunerLayer]:
        for part in self.peft_configs:
            yield from tuner_layers(self.module(part))

    def activate(self) -> None:
        """Switch this adapter on and every other off; only its weights take gradients."""
        if self.base.active_adapter != self.name:
            for part in PARTS:
                for layer in tuner_layers(self.module(part)):
                    layer.set_adapter(self.name)
            self.base.active_adapter = self.name

    def parameters(self, part: str) -> list[nn.Parameter]:
        """The trainable tensors of a part, in a fixed order."""
        if part not in self.peft_configs:
            return []
        marks = (f".lora_A.{self.name}.", f".lora_B.{self.name}.")
        return [weight for name, weight in self.module(part).named_parameters() if any(mark in name for mark in marks)]

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

    def close(self) -> None:
        """Take the adapter off the base model."""
        for part in self.peft_configs:
            module: Any = self.module(part)
            for layer in tuner_layers(module):
                layer.delete_adapter(self.name)
            module.peft_config.pop(self.name, None)
        if self.base.active_adapter == self.name:
            self.base.active_adapter = None


def tuner_layers(module: nn.Module) -> list[BaseTunerLayer]:
    """The layers of a model that carry adapters."""
    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]


def count_parameters(module: nn.Module, part: str, config: LoraConfig) -> int:
    """How many numbers a LoRA of this configuration holds for a part; the weights need not be loaded."""
    endings = tuple("." + ending for ending in target_modules(part, config))
    return sum(
        config.rank * (layer.weight.shape[0] + layer.weight.shape[1])
        for name, layer in module.named_modules()
        if name.endswith(endings) and isinstance(layer, nn.Linear | nn.Conv2d)
    )
