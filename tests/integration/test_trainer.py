"""The trainer's contract: re-entrant, resumable, the same whatever the worker count. Real modules, made small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from raylora.config import Experiment
from raylora.dataset.split import split_pictures
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import load_base
from raylora.diffusion.tensor_cache import TensorCache
from raylora.errors import TrainingDivergedError
from raylora.evaluation.encoders import load_encoder
from raylora.evaluation.scorecard import Evaluator
from raylora.execution.job import read_pictures, read_regularization
from raylora.execution.node_cache import Material, image_set, training_set
from raylora.training.checkpoint import read_state, write_state
from raylora.training.fit import advance_by_epochs
from raylora.training.trainer import Trainer
from raylora.world import World

GOLDEN_LOSSES = [0.157908, 0.335880, 0.097519, 0.337611, 0.179523]
"""First five training losses of the demo's baseline at seed 0, float32 on a CPU."""


def make_material(experiment: Experiment) -> Material:
    split = split_pictures(read_pictures(experiment, lambda _: None), 0.25)
    return Material(split.train, split.holdout, read_regularization(experiment, lambda _: None))


def make_trainer(base: BaseModel, experiment: Experiment, world: World = World()) -> Trainer:
    material = make_material(experiment)
    data = training_set(base, material, experiment, TensorCache(None))
    return Trainer(base, data, experiment, material.schedule(experiment), world)


@contextmanager
def opened(base: BaseModel, experiment: Experiment) -> Iterator[Trainer]:
    trainer = make_trainer(base, experiment)
    yield trainer
    trainer.close()


def losses_of(base: BaseModel, experiment: Experiment, stops: tuple[int, ...] = (1000,)) -> list[float]:
    with opened(base, experiment) as trainer:
        for stop in stops:
            trainer.advance(stop)
        return [loss for _, loss in trainer.losses]


def losses_through_a_state(
    base: BaseModel, experiment: Experiment, stops: tuple[int, ...], folder: Path
) -> list[float]:
    """Losses of a run that went on in a new trainer, from the state that was written after the last stop."""
    with opened(base, experiment) as trainer:
        for stop in stops:
            trainer.advance(stop)
        write_state(folder / "state.pt", trainer.state_dict())
    with opened(base, experiment) as trainer:
        trainer.load_state_dict(read_state(folder / "state.pt"))
        trainer.advance(1000)
        return [loss for _, loss in trainer.losses]


def test_a_run_that_stops_early_learns_the_beginning_of_the_whole(
    tiny_base: BaseModel, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    """The same LR schedule: what comes after the stop is cut off, and nothing before it moves."""
    whole = losses_of(tiny_base, tiny_experiment)
    stopped = tiny_experiment.with_params({"training.stop_at": 6})
    with opened(tiny_base, stopped) as trainer:
        advance_by_epochs(trainer, None, tmp_path / "state.pt")
        assert (trainer.images_seen, trainer.is_done) == (6, True)
        assert [loss for _, loss in trainer.losses] == whole[:3]


WORKERS = 3
OTHER = {"lora.rank": 8, "lora.dropout": 0.2, "optimizer.learning_rate": 3e-3, "seed": 5}


def test_two_interleaved_trainers_give_the_losses_of_each_alone(
    tiny_base: BaseModel, tiny_experiment: Experiment
) -> None:
    first, second = tiny_experiment.with_params({"lora.dropout": 0.1}), tiny_experiment.with_params(OTHER)
    alone = losses_of(tiny_base, first), losses_of(tiny_base, second)
    with opened(tiny_base, first) as one, opened(tiny_base, second) as other:
        for stop in range(4, 40, 4):
            one.advance(stop)
            other.advance(stop)
        assert [loss for _, loss in one.losses] == alone[0]
        assert [loss for _, loss in other.losses] == alone[1]
    assert alone[0] != alone[1]


def test_a_closed_trainers_name_is_free_again(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    """torch.compile compiles anew for each name. Nothing of the one before comes with it, as DoRA would."""
    plain = losses_of(load_base(tiny_base.reference), tiny_experiment)
    with_dora = tiny_experiment.with_params({"lora.use_dora": True})
    with opened(tiny_base, with_dora) as one, opened(tiny_base, tiny_experiment) as other:
        names = {one.adapter.name, other.adapter.name}
        one.advance(4)
    assert len(names) == 2
    for _ in range(2):
        with opened(tiny_base, tiny_experiment) as trainer:
            trainer.advance(1000)
            assert trainer.adapter.name == "raylora0"
            assert [loss for _, loss in trainer.losses] == plain


def test_training_lowers_the_loss(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    losses = losses_of(tiny_base, tiny_experiment.with_params({"training.epochs": 40, "optimizer.learning_rate": 5e-3}))
    assert sum(losses[-20:]) < 0.97 * sum(losses[:20])


def test_surroundings_are_left_as_they_were(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with opened(tiny_base, tiny_experiment.with_params(OTHER)) as trainer:
        trainer.advance(8)
        assert not tiny_base.unet.training
        assert not tiny_base.text_encoder.training
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_new_trainer_leaves_the_gpus_random_state(tiny_base_folder: Path, tiny_experiment: Experiment) -> None:
    base = load_base(str(tiny_base_folder), device="cuda")
    torch.manual_seed(3)
    before = torch.cuda.get_rng_state()
    with opened(base, tiny_experiment) as trainer:
        assert torch.equal(torch.cuda.get_rng_state(), before)
        trainer.advance(4)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def tf32_switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_of_products_and_convolutions_and_of_this_trainer_alone(
    tf32: bool, tiny_base: BaseModel, tiny_experiment: Experiment
) -> None:
    before, seen = tf32_switches(), []
    with opened(tiny_base, tiny_experiment.with_params({"training.tf32": tf32})) as trainer:
        watch = tiny_base.unet.register_forward_pre_hook(lambda *_: seen.append(tf32_switches()))
        trainer.advance(2)
        watch.remove()
    assert seen == [(tf32, tf32)]
    assert tf32_switches() == before


def test_close_gives_the_base_model_back(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    inputs = torch.ones(1, 4, 8, 8), torch.tensor([10]), torch.ones(1, 32, 32)
    with torch.no_grad():
        before = tiny_base.unet(*inputs).sample
        with opened(tiny_base, tiny_experiment) as trainer:
            trainer.advance(1000)
            assert not torch.equal(tiny_base.unet(*inputs).sample, before)
        assert torch.equal(tiny_base.unet(*inputs).sample, before)
    assert not [name for name, _ in tiny_base.unet.named_parameters() if "lora_" in name]


def test_stopping_and_going_on_is_bit_equal(tiny_base: BaseModel, tiny_experiment: Experiment, tmp_path: Path) -> None:
    experiment = tiny_experiment.with_params(
        {"lora.dropout": 0.1, "optimizer.name": "prodigy", "optimizer.learning_rate": 1}
    )
    assert losses_through_a_state(tiny_base, experiment, (10,), tmp_path) == losses_of(tiny_base, experiment)


def test_rungs_change_nothing(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    assert losses_of(tiny_base, tiny_experiment, (6, 7, 20, 1000)) == losses_of(tiny_base, tiny_experiment)


def test_accumulation_equals_a_larger_batch(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    """The noise of an image depends on its place in the stream alone, so both learn the same."""
    larger = losses_of(tiny_base, tiny_experiment.with_params({"training.batch_size": 4}))
    with opened(tiny_base, tiny_experiment.with_params({"training.gradient_accumulation": 2})) as trainer:
        trainer.advance(1000)
        assert [images for images, _ in trainer.losses] == [4, 8, 12, 16, 20, 24, 28, 32]
        assert [loss for _, loss in trainer.losses] == pytest.approx(larger, abs=1e-5)


@pytest.mark.parametrize("params", [
    {"model.train_text_encoder": False},
    {"model.train_text_encoder": False, "dataset.shuffle_caption": True},
    {"dataset.shuffle_caption": True},
    {"lora.targets": ("attention",)},
    {"optimizer.name": "adamw8bit"},
    {"optimizer.name": "lion", "optimizer.learning_rate": 1e-4},
    {"training.mixed_precision": "bf16"},
])  # fmt: skip
def test_every_way_of_training_changes_the_weights(
    tiny_base_folder: Path, tiny_experiment: Experiment, params: dict[str, object]
) -> None:
    experiment = tiny_experiment.with_params(params)
    base = load_base(str(tiny_base_folder), experiment.training.mixed_precision)
    with opened(base, experiment) as trainer:
        trainer.advance(8)
        weights = trainer.weights()
        assert ("text_encoder" in weights) == experiment.model.train_text_encoder
        assert all(value.abs().sum() > 0 for part in weights.values() for key, value in part.items() if "lora_B" in key)


def test_shuffling_captions_changes_what_is_learned(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    shuffled = tiny_experiment.with_params({"dataset.shuffle_caption": True})
    assert losses_of(tiny_base, shuffled) != losses_of(tiny_base, tiny_experiment)


def test_learning_rates_of_the_parts(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    rates = {"optimizer.unet_lr": 3e-4, "optimizer.text_encoder_lr": 7e-5, "lr_scheduler.name": "constant"}
    with opened(tiny_base, tiny_experiment.with_params(rates)) as trainer:
        assert [group["lr"] for group in trainer.state_dict()["optimizer"]["param_groups"]] == [3e-4, 7e-5]


def test_divergence_is_an_error(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    experiment = tiny_experiment.with_params({"optimizer.learning_rate": 1e30, "optimizer.max_grad_norm": 1e30})
    with opened(tiny_base, experiment) as trainer, pytest.raises(TrainingDivergedError, match="stopped being a number"):
        trainer.advance(1000)


def test_golden_losses_of_the_demo() -> None:
    from raylora.config_files import build_experiment
    from raylora.search.space import load_space, space_layer

    space = load_space("demo")
    experiment = build_experiment([space_layer(space)]).with_params(space.first_points[0])
    losses = losses_of(load_base("demo"), experiment, (20,))
    assert losses == pytest.approx(GOLDEN_LOSSES, rel=1e-3)


def _worker(rank: int, size: int, base_folder: Path, experiment: Experiment, rendezvous: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)
    trainer = make_trainer(load_base(str(base_folder)), experiment, World(rank, size))
    trainer.advance(1000)
    if rank == 0:
        torch.save(torch.tensor([loss for _, loss in trainer.losses], dtype=torch.float64), f"{rendezvous}.losses")
    torch.distributed.destroy_process_group()


def test_workers_together_train_as_one_process(
    tiny_base: BaseModel, tiny_base_folder: Path, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    """With 4 images a step and 34 in all, three workers have unequal shares and the last step leaves one idle."""
    experiment = tiny_experiment.with_params({"training.batch_size": 4, "training.max_images": 34})
    rendezvous = tmp_path / "rendezvous"
    arguments = (WORKERS, tiny_base_folder, experiment, rendezvous)
    multiprocessing.spawn(_worker, arguments, nprocs=WORKERS)
    together = torch.load(f"{rendezvous}.losses", weights_only=True).tolist()
    assert together == pytest.approx(losses_of(tiny_base, experiment), abs=1e-5)


def measured(base: BaseModel, experiment: Experiment, world: World) -> dict[str, float]:
    """All measures after a few steps, as a trial takes them."""
    material, encoder = make_material(experiment), load_encoder("demo")
    train, holdout = (
        image_set(base, encoder, pictures, experiment.dataset, TensorCache(None))
        for pictures in (material.train, material.holdout)
    )
    evaluator = Evaluator(encoder, holdout, train, experiment.evaluation, experiment.sampling)
    reference = evaluator.reference(base)
    trainer = make_trainer(base, experiment, world)
    trainer.advance(8)
    return evaluator.measure(base, reference, world).metrics


def _measuring_worker(rank: int, size: int, base_folder: Path, experiment: Experiment, rendezvous: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)
    metrics = measured(load_base(str(base_folder)), experiment, World(rank, size))
    Path(f"{rendezvous}.{rank}").write_text(json.dumps(metrics))
    torch.distributed.destroy_process_group()


def test_workers_together_measure_as_one_process(
    tiny_base: BaseModel, tiny_base_folder: Path, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    """4 held-out images x 2 timesteps in batches of 3, and 4 samples: no worker has the same share as another."""
    experiment = tiny_experiment.with_params({"evaluation.batch_size": 3})
    rendezvous = tmp_path / "rendezvous"
    arguments = (WORKERS, tiny_base_folder, experiment, rendezvous)
    multiprocessing.spawn(_measuring_worker, arguments, nprocs=WORKERS)
    alone = measured(tiny_base, experiment, World())
    for rank in range(WORKERS):
        assert json.loads(Path(f"{rendezvous}.{rank}").read_text()) == pytest.approx(alone, abs=1e-3)
