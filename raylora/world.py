"""The workers that train and judge one LoRA together: one process alone, or a torch.distributed group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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

    def share(self, whole: Sequence[T]) -> Sequence[T]:
        """This worker's share: every `size`-th, so that all workers together have each once."""
        return whole[self.world_rank :: self.size]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all workers, in one transfer."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, summed in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def gather(self, shares: Sequence[T]) -> list[T]:
        """All workers' shares of a whole that was cut by `share`, in the whole's order, on every worker."""
        if self.size == 1:
            return list(shares)
        boxes: list[Any] = [None] * self.size
        distributed.all_gather_object(boxes, list(shares))
        longest = max(len(box) for box in boxes)
        return [box[row] for row in range(longest) for box in boxes if row < len(box)]

    def from_first(self, value: T) -> T:
        """The first worker's value, on every worker."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]
