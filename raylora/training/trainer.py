"""The training loop, turned inside out: an object that others move on.

A trainer holds nothing process-wide. It takes a base model that others may use too, gives its adapter a
name of its own, leaves random state and train/eval modes as it found them, and takes the adapter away on
`close()`. Two trainers moved on by turns on one base model give the losses of each alone, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from raylora.config import Experiment
from raylora.dataset.batches import Schedule, batch_positions
from raylora.diffusion.adapters import Adapter, StateDict, free_name, random_devices
from raylora.diffusion.base import UNET, BaseModel
from raylora.diffusion.losses import min_snr_weights, training_loss
from raylora.diffusion.objective import predict, target_of
from raylora.errors import TrainingDivergedError
from raylora.training.averages import EvaluationWeights
from raylora.training.costs import Meter
from raylora.training.feed import Batch, Feed, TrainingSet, stream_seed
from raylora.training.optimizers import build_lr_scheduler, build_optimizer, param_groups
from raylora.world import World

SMALLEST_LOSS_SCALE = 1.0
"""Gradients that overflow fp16 at this scale overflow without any: nothing will be learned any more."""

RECORDED_TOGETHER = 50
"""Steps between two looks at losses and loss scale: each makes a GPU wait, and a scale falls to nothing in 17."""

DROPOUT_STREAM = 1 << 31
"""Beyond all positions, whose own numbers are the feed's: masks must not be of the noise's making."""


class Trainer:
    """Trains one LoRA.

    Args:
        base: the frozen base model; several trainers may share it.
        data: what to learn.
        config: one trial's settings.
        schedule: the length of the run; the LR schedule's horizon comes from it and never from a rung.
        world: this worker's place among those that train the same LoRA.
        most_at_once: images that go through the model together; a larger batch is learned in parts, and their
            gradients add up to the batch's own.
    """

    def __init__(
        self,
        base: BaseModel,
        data: TrainingSet,
        config: Experiment,
        schedule: Schedule,
        world: World = World(),
        most_at_once: int | None = None,
    ):
        self.base, self.config, self.schedule, self._world = base, config, schedule, world
        self._most_at_once = most_at_once or schedule.batch_size
        trains_text = config.model.train_text_encoder
        self.adapter = Adapter(base, config.lora, free_name(base), trains_text, config.seed)
        self.adapter.activate()  # before the feed, which may embed captions: no other adapter may take part
        no_text = set(self.adapter.peft_configs) <= {UNET}  # also where `lora.targets` name none of its layers
        self._feed = Feed(base, data, config, schedule.batch_size, embeds_ahead=no_text)
        named = {part: self.adapter.parameters(part) for part in self.adapter.peft_configs}
        self._parameters = [weight for weights in named.values() for _, weight in weights]
        self._optimizer = build_optimizer(param_groups(named, config.optimizer), config.optimizer)
        self._steps_taken = _StepsTaken()
        self._optimizer.register_step_post_hook(self._steps_taken)
        self._lr_scheduler = build_lr_scheduler(self._optimizer, config.lr_scheduler, schedule.optimizer_steps)
        self._scaler = torch.amp.GradScaler(base.device.type, enabled=base.dtype == torch.float16)
        self._averages = EvaluationWeights(self._parameters, self._optimizer, config.training.ema_decay)
        self.meter = Meter(base.device)
        self._micro_step = 0
        self.images_seen = 0
        self.losses: list[tuple[int, float]] = []
        """(images seen, training loss) after each optimizer step."""

    @property
    def is_done(self) -> bool:
        return self.images_seen >= self.schedule.images_end

    def advance(self, images: int, is_told_to_pause: Callable[[], bool] = lambda: False) -> None:
        """Train until `images` were seen in all, or the run's end; always to a whole optimizer step.

        Args:
            is_told_to_pause: asked after each step whether to return before that; of several workers, which must all
                return at the same step, whenever their losses are put together.

        Raises:
            TrainingDivergedError: the loss is no longer a number, or fp16's loss scale has fallen to nothing.
        """
        last = min(images, self.schedule.images_end)
        self.adapter.activate()
        self.base.park(kept=self.adapter.peft_configs)
        with self._own_surroundings(), self.meter.running():
            self._averages.enter_training()
            pauses = False
            while self.images_seen < last and not pauses:
                self._record(self._some_steps(last, is_told_to_pause))
                pauses = any(self._world.gather([is_told_to_pause()]))
            self._averages.leave_training()

    def _some_steps(self, images: int, is_told_to_pause: Callable[[], bool]) -> list[tuple[int, Tensor]]:
        """As many optimizer steps as are recorded together, up to `images` images seen; each step's loss."""
        steps: list[tuple[int, Tensor]] = []
        while self.images_seen < images and len(steps) < RECORDED_TOGETHER:
            loss = self._optimizer_step()
            steps.append((self.images_seen, loss))
            if self._world.size == 1 and is_told_to_pause():
                break
        return steps

    @contextmanager
    def _own_surroundings(self) -> Iterator[None]:
        """Train modes, random state and number formats of this trainer, the caller's put back afterwards."""
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=random_devices(self.base)))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(_float32_products(self.config.training.tf32))
            for part in self.adapter.peft_configs:
                module = self.base.on_device(self.base.parts[part])
                stack.enter_context(_training(module, self.config.training.gradient_checkpointing))
            yield

    def _optimizer_step(self) -> Tensor:
        """One optimizer step over up to `gradient_accumulation` batches; the mean loss of its images."""
        group = self._positions_of_step()
        images = sum(len(positions) for positions in group)
        loss_sum = torch.zeros((), device=self.base.device)
        for positions in group:
            loss_sum += self._micro_step_losses(positions, images)
        if self._world.size > 1:
            self._world.sum([_gradient(weight) for weight in self._parameters])
        self._apply_gradients()
        self.images_seen += images
        return loss_sum / images

    def _apply_gradients(self) -> None:
        """Move the weights, unless fp16's gradients overflowed: then neither schedule nor averages move, as accelerate
        has it. A fused optimizer keeps what it skips to itself, on the device; to ask would make each step wait.
        """
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, self.config.optimizer.max_grad_norm)
        before = self._steps_taken.number
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        if self._steps_taken.number > before:
            self._lr_scheduler.step()
            self._averages.after_step()

    def _positions_of_step(self) -> list[range]:
        last = min(self._micro_step + self.schedule.gradient_accumulation, self.schedule.micro_steps)
        return [batch_positions(step, self.schedule) for step in range(self._micro_step, last)]

    def _micro_step_losses(self, positions: range, images_in_step: int) -> Tensor:
        """Forward and backward of this worker's share of a batch; the sum of its losses."""
        self._micro_step += 1
        loss_sum = torch.zeros((), device=self.base.device)
        mine = self._world.share(positions)
        if mine:
            torch.manual_seed(stream_seed(self.config.seed, DROPOUT_STREAM + mine[0]))  # all else is the feed's
        for first in range(0, len(mine), self._most_at_once):
            for batch in self._feed.batches(mine[first : first + self._most_at_once]):
                losses = self._losses(batch)
                self._scaler.scale(losses.sum() / images_in_step).backward()  # type: ignore[no-untyped-call]
                loss_sum += losses.detach().sum()
        return loss_sum

    def _losses(self, batch: Batch) -> Tensor:
        """The weighted training loss of each image, (batch,)."""
        cells, config = batch.cells, self.config.loss
        prediction = predict(self.base, cells, batch.noise_in)
        target = target_of(self.base, cells.latents, batch.noise, cells.timesteps)
        weights = [batch.weights]
        if config.snr_gamma is not None:
            scheduler = self.base.noise_scheduler
            kind = scheduler.config.prediction_type
            weights.append(min_snr_weights(scheduler.alphas_cumprod, cells.timesteps, config.snr_gamma, kind))
        return training_loss(prediction, target, config, *weights)

    def _record(self, steps: list[tuple[int, Tensor]]) -> None:
        """Move the losses of many steps off the device at once, and see whether training has come to nothing."""
        losses = torch.stack([loss for _, loss in steps])
        self._world.sum([losses])
        if not bool(torch.isfinite(losses).all()):
            raise TrainingDivergedError(f"the training loss stopped being a number before {self.images_seen} images")
        if self._scaler.is_enabled() and self._scaler.get_scale() < SMALLEST_LOSS_SCALE:
            raise TrainingDivergedError(
                f"fp16's loss scale fell to {self._scaler.get_scale():g} before {self.images_seen} images: every "
                "gradient overflows; use training.mixed_precision=bf16 or a lower rate"
            )
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
            "averages": self._averages.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "lr_scheduler": self._lr_scheduler.state_dict(),
            "scaler": self._scaler.state_dict(),
            "meter": self.meter.state_dict(),
            "micro_step": self._micro_step,
            "images_seen": self.images_seen,
            "losses": self.losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.adapter.load_state_dict(state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._averages.load_state_dict(state["averages"])
        self._lr_scheduler.load_state_dict(state["lr_scheduler"])
        self._scaler.load_state_dict(state["scaler"])
        self.meter.load_state_dict(state["meter"])
        self._micro_step, self.images_seen = state["micro_step"], state["images_seen"]
        self.losses = [(int(images), float(loss)) for images, loss in state["losses"]]

    def weights(self) -> dict[str, StateDict]:
        """The adapter's weights, detached copies."""
        return self.adapter.state_dict()

    def close(self) -> None:
        """Take the adapter off the base model."""
        self.adapter.close()


class _StepsTaken:
    """Counts an optimizer's steps, as a hook of it that knows no trainer, so that neither keeps the other alive."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, *_: object) -> None:
        self.number += 1


def _gradient(weight: torch.nn.Parameter) -> Tensor:
    """The gradient, zero where this worker had no share of the batch."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


@contextmanager
def _training(module: nn.Module, gradient_checkpointing: bool) -> Iterator[None]:
    """A part in train mode, recomputing its activations if asked to; afterwards as it was."""
    mode = module.training
    module.train()
    if gradient_checkpointing:
        _set_checkpointing(module, True)
    try:
        yield
    finally:
        module.train(mode)
        if gradient_checkpointing:
            _set_checkpointing(module, False)


def _set_checkpointing(module: Any, wanted: bool) -> None:
    """diffusers' U-Nets and transformers' encoders name the same switch differently."""
    prefix = "enable" if wanted else "disable"
    switch = getattr(module, f"{prefix}_gradient_checkpointing", None) or getattr(
        module, f"gradient_checkpointing_{prefix}"
    )
    switch()


@contextmanager
def _float32_products(tf32: bool) -> Iterator[None]:
    """TensorFloat-32 in float32 products and convolutions on or off, afterwards as it was. CPUs don't know it."""
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = tf32
    try:
        yield
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.allow_tf32 = was
