"""The training loop, turned inside out: an object that others move on.

A trainer holds nothing process-wide. It takes a base model that others may use too, gives its adapter a
name of its own, leaves random state and train/eval modes as it found them, and takes the adapter away on
`close()`. Two trainers moved on by turns on one base model give the losses of each alone, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from raylora.config import Experiment
from raylora.dataset.batches import ImageOrder, Schedule, batch_positions, shuffle_tags
from raylora.diffusion.adapters import PARTS, Adapter, StateDict
from raylora.diffusion.encode import encode_prompts
from raylora.diffusion.families import BaseModel
from raylora.diffusion.objective import denoising_losses
from raylora.errors import TrainingDivergedError
from raylora.training.optimizers import build_lr_scheduler, build_optimizer
from raylora.training.world import World

_adapter_numbers = count()


@dataclass(frozen=True)
class TrainingSet:
    """What is learned: latents (images, 4, height, width), a caption and repeats for each."""

    latents: Tensor
    captions: Sequence[str]
    repeats: Sequence[int]


class Trainer:
    """Trains one LoRA.

    Args:
        base: the frozen base model; several trainers may share it.
        data: what to learn.
        config: one trial's settings.
        schedule: the length of the run; the LR schedule's horizon comes from it and never from a rung.
        world: this worker's place among those that train the same LoRA.
    """

    def __init__(
        self, base: BaseModel, data: TrainingSet, config: Experiment, schedule: Schedule, world: World = World()
    ):
        self.base, self.config, self.schedule = base, config, schedule
        self._data, self._world = data, world
        self._latents = data.latents.to(base.device)
        self._trains_text = config.model.train_text_encoder
        self._embeddings = self._embed_once()
        self.adapter = Adapter(base, config.lora, f"raylora{next(_adapter_numbers)}", self._trains_text, config.seed)
        self.adapter.activate()
        self._optimizer = build_optimizer(self._param_groups(), config.optimizer)
        self._lr_scheduler = build_lr_scheduler(self._optimizer, config.lr_scheduler, schedule.optimizer_steps)
        self._scaler = torch.amp.GradScaler(base.device.type, enabled=base.dtype == torch.float16)
        self._order = ImageOrder(data.repeats, config.seed)
        self._micro_step = 0
        self.images_seen = 0
        self.losses: list[tuple[int, float]] = []
        """(images seen, training loss) after each optimizer step."""

    def _param_groups(self) -> list[dict[str, Any]]:
        rates = {"unet": self.config.optimizer.unet_rate, "text_encoder": self.config.optimizer.text_encoder_rate}
        groups = [{"params": self.adapter.parameters(part), "lr": rates[part]} for part in PARTS]
        return [group for group in groups if group["params"]]

    def _embed_once(self) -> Tensor | None:
        """Embeddings of all captions, if neither the text encoder nor the captions change."""
        if self._trains_text or self.config.dataset.shuffle_caption:
            return None
        with torch.no_grad():
            return torch.cat([encode_prompts(self.base, [caption]) for caption in self._data.captions])

    @property
    def is_done(self) -> bool:
        return self.images_seen >= self.schedule.images_total

    def advance(self, images: int) -> None:
        """Train until `images` were seen in all, or the run's end; always to a whole optimizer step.

        Raises:
            TrainingDivergedError: the loss is no longer a number.
        """
        steps: list[tuple[int, Tensor]] = []
        self.adapter.activate()
        with self._own_surroundings():
            while self.images_seen < min(images, self.schedule.images_total):
                loss = self._optimizer_step()
                steps.append((self.images_seen, loss))
        self._record(steps)

    @contextmanager
    def _own_surroundings(self) -> Iterator[None]:
        """Train modes and random state of this trainer, the caller's put back afterwards."""
        modules = [self.base.unet] + ([self.base.text_encoder] if self._trains_text else [])
        modes = [module.training for module in modules]
        devices = [self.base.device.index or 0] if self.base.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            for module in modules:
                module.train()
            try:
                yield
            finally:
                for module, mode in zip(modules, modes, strict=True):
                    module.train(mode)

    def _optimizer_step(self) -> Tensor:
        """One optimizer step over up to `gradient_accumulation` batches; the mean loss of its images."""
        group = self._positions_of_step()
        images = sum(len(positions) for positions in group)
        loss_sum = torch.zeros((), device=self.base.device)
        for positions in group:
            loss_sum += self._micro_step_losses(positions, images)
        parameters = [weight for entry in self._optimizer.param_groups for weight in entry["params"]]
        self._world.sum([_gradient(weight) for weight in parameters])
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, self.config.optimizer.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._lr_scheduler.step()
        self._optimizer.zero_grad()
        self.images_seen += images
        return loss_sum / images

    def _positions_of_step(self) -> list[range]:
        last = min(self._micro_step + self.schedule.gradient_accumulation, self.schedule.micro_steps)
        return [batch_positions(step, self.schedule) for step in range(self._micro_step, last)]

    def _micro_step_losses(self, positions: range, images_in_step: int) -> Tensor:
        """Forward and backward of this worker's share of a batch; the sum of its losses.

        Random numbers are a function of (seed, micro step): every worker draws those of the whole batch and
        takes its share, so the worker count changes nothing, and a stopped run goes on with the same numbers.
        """
        torch.manual_seed((self.config.seed << 32) + self._micro_step)
        noise = torch.randn((len(positions), *self._latents.shape[1:]))
        timesteps = torch.randint(0, self.base.noise_scheduler.config.num_train_timesteps, (len(positions),))
        self._micro_step += 1
        mine = self._world.shard(range(len(positions)))
        if not mine:
            return torch.zeros((), device=self.base.device)
        share = torch.tensor(mine)
        pictures = [self._order[positions[index]] for index in mine]
        losses = denoising_losses(
            self.base,
            latents=self._latents[pictures],
            embeddings=self._embed(pictures, [positions[index] for index in mine]),
            noise=noise[share].to(self.base.device),
            timesteps=timesteps[share].to(self.base.device),
        )
        self._scaler.scale(losses.sum() / images_in_step).backward()  # type: ignore[no-untyped-call]
        return losses.detach().sum()

    def _embed(self, pictures: Sequence[int], positions: Sequence[int]) -> Tensor:
        if self._embeddings is not None:
            return self._embeddings[list(pictures)]
        captions = [self._data.captions[picture] for picture in pictures]
        dataset = self.config.dataset
        if dataset.shuffle_caption:
            captions = [
                shuffle_tags(caption, dataset.keep_tokens, self.config.seed, position)
                for caption, position in zip(captions, positions, strict=True)
            ]
        with torch.set_grad_enabled(self._trains_text):
            return encode_prompts(self.base, captions)

    def _record(self, steps: list[tuple[int, Tensor]]) -> None:
        """Move the losses off the device, once per rung rather than once per step."""
        if not steps:
            return
        losses = torch.stack([loss for _, loss in steps])
        self._world.sum([losses])
        if not bool(torch.isfinite(losses).all()):
            raise TrainingDivergedError(f"the training loss stopped being a number before {self.images_seen} images")
        self.losses += zip([images for images, _ in steps], losses.tolist(), strict=True)

    @property
    def train_loss(self) -> float:
        """Mean training loss over the last epoch's images, as kohya's `avr_loss`."""
        since = self.images_seen - self.schedule.images_per_epoch
        recent = [loss for images, loss in self.losses if images > since]
        return sum(recent) / len(recent) if recent else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on: tensors, numbers and strings only."""
        return {
            "adapter": self.adapter.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "lr_scheduler": self._lr_scheduler.state_dict(),
            "scaler": self._scaler.state_dict(),
            "micro_step": self._micro_step,
            "images_seen": self.images_seen,
            "losses": self.losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.adapter.load_state_dict(state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._lr_scheduler.load_state_dict(state["lr_scheduler"])
        self._scaler.load_state_dict(state["scaler"])
        self._micro_step, self.images_seen = state["micro_step"], state["images_seen"]
        self.losses = [(int(images), float(loss)) for images, loss in state["losses"]]

    def weights(self) -> dict[str, StateDict]:
        """The adapter's weights, detached copies."""
        return self.adapter.state_dict()

    def close(self) -> None:
        """Take the adapter off the base model."""
        self.adapter.close()


def _gradient(weight: torch.nn.Parameter) -> Tensor:
    """The gradient, zero where this worker had no share of the batch."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad
