"""The workers that train one LoRA together: one process alone, or a torch.distributed group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This worker's place. Alone, everything below does nothing."""

    world_rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.world_rank == 0

    def shard(self, positions: range) -> range:
        """This worker's share of a batch: every `size`-th position, so that all workers together see it once."""
        return positions[self.world_rank :: self.size]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all workers, in one transfer."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, summed in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def from_first(self, value: T) -> T:
        """The first worker's value, on every worker."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]
