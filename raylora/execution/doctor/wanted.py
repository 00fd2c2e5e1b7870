"""What is to be run, as far as it decides what a machine must have."""

from __future__ import annotations

from dataclasses import dataclass

NUMBERS = {"sd15": 1.5e9, "sdxl": 3.9e9, "demo": 0.0}
"""Of the weights in memory: U-Net (0.86e9, 2.57e9), text encoders (0.12e9, 0.82e9) and VAE (0.08e9) of each family, and
the usual image encoder (0.43e9). The demo's are few."""
BYTES = {"no": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Wanted:
    """The family of the base model, or `demo`; number format and optimizer; what lies on a node's disks."""

    family: str = "sd15"
    mixed_precision: str = "no"
    optimizer: str = "adamw"
    writes_out: bool = True
    """Whether what runs there writes to the output folder."""
    keeps_copies: bool = False
    """Whether it brings what it works on from elsewhere."""

    @property
    def weight_bytes(self) -> float:
        """What the weights alone take; training wants about as much again."""
        return NUMBERS[self.family] * BYTES[self.mixed_precision]
