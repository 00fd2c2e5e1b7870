"""Every option of training on tiny real models: that it does what it says, and that a stop changes nothing."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from raylora.config import Experiment, ModelConfig, SamplingConfig
from raylora.dataset.folder import ReadOptions, read_folder
from raylora.diffusion import families
from raylora.diffusion.base import BaseModel
from raylora.diffusion.encode import encode_prompts
from raylora.diffusion.families import load_base
from raylora.diffusion.generate import Request, generate
from raylora.diffusion.lora_file import LoraCard, load_lora, write_kohya
from raylora.diffusion.objective import target_of
from raylora.diffusion.places import KOHYA_NAME
from raylora.diffusion.tensor_cache import TensorCache
from raylora.errors import ConfigError, ModelError, TrainingDivergedError
from raylora.execution.node_cache import training_set
from raylora.execution.winner import epoch_files, lora_card
from raylora.training.advancing import Keeping, advance_keeping
from raylora.training.checkpoint import read_state, write_state
from raylora.training.trainer import Trainer
from tests.integration.test_trainer import losses_of, losses_through_a_state, make_material, make_trainer, opened
from tests.tiny import make_base, make_pictures

OPTIONS: dict[str, dict[str, Any]] = {
    "convolutions": {"lora.targets": ("attention", "convolutions")},
    "dora": {"lora.use_dora": True},
    "block ranks": {"lora.block_ranks": {"mid_block": 2, "down_blocks.1": 8}},
    "gaussian beginning": {"lora.init": "gaussian"},
    "lion8bit": {"optimizer.name": "lion8bit", "optimizer.learning_rate": 1e-4},
    "adafactor": {"optimizer.name": "adafactor"},
    "schedule-free": {"optimizer.name": "adamw_schedule_free", "lr_scheduler.name": "constant"},
    "a class of one's own": {"optimizer.name": "torch.optim:RAdam"},
    "lora+": {"optimizer.loraplus_ratio": 4.0},
    "ema": {"training.ema_decay": 0.9},
    "min-snr": {"loss.snr_gamma": 5.0},
    "huber": {"loss.type": "huber"},
    "noise offset": {"loss.noise_offset": 0.1},
    "multires noise": {"loss.multires_noise_iterations": 6, "loss.multires_noise_discount": 0.4},
    "input perturbation": {"loss.input_perturbation": 0.1},
    "gradient checkpointing": {"training.gradient_checkpointing": True},
    "fp16": {"training.mixed_precision": "fp16"},
    "flips": {"dataset.random_flip": True},
    "caption dropout": {"dataset.caption_dropout": 0.5},
    "tag dropout, cached": {"dataset.tag_dropout": 0.3, "model.train_text_encoder": False},
    "clip skip": {"model.clip_skip": 2},
}
SAME_LOSSES = {"gradient checkpointing", "ema"}
"""The one saves memory, the other changes only what is measured and saved."""
FIRST_STEP_THE_SAME = {"lion8bit", "adafactor", "schedule-free", "a class of one's own", "lora+", "dora",
                       "convolutions", "block ranks", "gaussian beginning"}  # fmt: skip
"""They act after the first step: a LoRA begins as nothing."""
BY_CHANCE = {"flips", "caption dropout", "tag dropout, cached"}
"""They act on some pictures, perhaps not on those of the first step."""


def base_for(folder: Path, experiment: Experiment) -> BaseModel:
    return load_base(str(folder), experiment.training.mixed_precision, model=experiment.model)


@pytest.fixture(scope="module")
def plain(tiny_base_folder: Path, tiny_experiment: Experiment) -> list[float]:
    """The losses without any option."""
    torch.set_num_threads(1)
    return losses_of(load_base(str(tiny_base_folder)), tiny_experiment)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_what_is_learned(
    name: str, plain: list[float], tiny_base_folder: Path, tiny_experiment: Experiment
) -> None:
    experiment = tiny_experiment.with_params(OPTIONS[name])
    losses = losses_of(base_for(tiny_base_folder, experiment), experiment)
    if name in SAME_LOSSES:
        assert losses == pytest.approx(plain, rel=1e-5)
        return
    assert losses != pytest.approx(plain, rel=1e-6)
    if name not in BY_CHANCE:
        assert (losses[0] == pytest.approx(plain[0], rel=1e-6)) == (name in FIRST_STEP_THE_SAME)


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"clip skip", "huber", "min-snr", "a class of one's own"}))
def test_stopping_and_going_on_is_bit_equal(
    name: str, tiny_base_folder: Path, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    experiment = tiny_experiment.with_params(OPTIONS[name])
    base = base_for(tiny_base_folder, experiment)
    assert losses_through_a_state(base, experiment, (6, 14), tmp_path) == losses_of(base, experiment)


def test_ranks_and_alphas_of_blocks(tiny_base: BaseModel, tiny_experiment: Experiment, tmp_path: Path) -> None:
    """Alpha keeps its share of the rank in the model; the file has one alpha, for diffusers."""
    experiment = tiny_experiment.with_params({**OPTIONS["block ranks"], "lora.alpha": 2})
    with opened(tiny_base, experiment) as trainer:
        trainer.advance(8)
        ranks = {key: value.shape[0] for key, value in trainer.weights()["unet"].items() if "lora_A" in key}
        assert {rank for key, rank in ranks.items() if key.startswith("mid_block")} == {2}
        assert {rank for key, rank in ranks.items() if key.startswith("down_blocks.1")} == {8}
        assert {rank for key, rank in ranks.items() if key.startswith("up_blocks")} == {4}
        layer: Any = tiny_base.unet.get_submodule("mid_block.attentions.0.proj_in")
        assert layer.scaling[trainer.adapter.name] == 0.5
        write_kohya(trainer.adapter, tmp_path / KOHYA_NAME, LoraCard("t", (64, 64), 1, "fp32"))
        expected = prediction(tiny_base)
    tensors = load_file(tmp_path / KOHYA_NAME)
    assert {value.item() for key, value in tensors.items() if "unet" in key and "alpha" in key} == {2.0}
    load_lora(tiny_base, tmp_path / KOHYA_NAME)
    assert torch.allclose(prediction(tiny_base), expected, atol=1e-5)


@pytest.mark.parametrize("init", ["kaiming", "gaussian"])
def test_how_a_lora_begins(init: str, tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    """As kohya's networks/lora.py does, uniformly up to 1/sqrt(inputs), or as diffusers' scripts through peft."""
    with opened(tiny_base, tiny_experiment.with_params({"lora.init": init, "lora.rank": 8})) as trainer:
        inner = [value for key, value in trainer.weights()["unet"].items() if "lora_A" in key]
    expected = [(3 * value.shape[1]) ** -0.5 if init == "kaiming" else 1 / 8 for value in inner]
    relative = torch.cat([value.flatten() / deviation for value, deviation in zip(inner, expected, strict=True)])
    assert relative.std().item() == pytest.approx(1, rel=0.05)


@torch.no_grad()
def prediction(base: BaseModel) -> Tensor:
    inputs = torch.ones(1, 4, 8, 8), torch.tensor([10]), torch.ones(1, 32, 32)
    sample: Tensor = base.unet(*inputs).sample
    return sample


def test_a_rank_for_a_block_that_is_not_there_is_refused(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match=r"on a block down_blocks\.7; blocks are down_blocks\.1, mid_block"):
        make_trainer(tiny_base, tiny_experiment.with_params({"lora.block_ranks": {"down_blocks.7": 4}}))


def test_a_trainer_that_comes_later_sees_the_base_alone(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    """Embeddings made ahead are those of the base model, whatever another trainer has done to its text encoder."""
    fixed = tiny_experiment.with_params({"model.train_text_encoder": False})
    alone = losses_of(tiny_base, fixed)
    with opened(tiny_base, tiny_experiment.with_params({"optimizer.learning_rate": 1e-2})) as other:
        other.advance(16)
        assert losses_of(tiny_base, fixed) == alone


def test_regularization_images_weigh_as_told(tiny_base: BaseModel, tiny_experiment: Experiment, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "2_person", 3, captions=False).parent
    with_set = tiny_experiment.with_params({"dataset.regularization": str(folder)})
    material = make_material(with_set)
    assert [picture.caption for picture in material.regularization] == ["person"] * 3
    data = training_set(tiny_base, material, with_set, TensorCache(None))
    assert (data.weights[-4:], data.repeats[-4:]) == ([1.0, 1.0, 1.0, 1.0], [1, 2, 2, 2])
    assert material.schedule(with_set).images_per_epoch == len(material.train) + 6
    none = with_set.with_params({"dataset.prior_loss_weight": 0.0})
    half = with_set.with_params({"dataset.prior_loss_weight": 0.5})
    first = [losses_of(tiny_base, experiment, (8,))[:4] for experiment in (none, half, with_set)]
    assert all(low <= middle <= high for low, middle, high in zip(*first, strict=True))
    assert sum(first[1]) == pytest.approx((sum(first[0]) + sum(first[2])) / 2, rel=0.01)


def test_flips_are_of_the_pictures_and_not_of_their_latents(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    experiment = tiny_experiment.with_params({"dataset.random_flip": True})
    data = training_set(tiny_base, make_material(experiment), experiment, TensorCache(None))
    assert len(data.mirrored) == len(data.latents)
    assert not torch.allclose(data.mirrored[0], data.latents[0].flip(-1), atol=1e-3)


def test_a_moving_average_is_what_is_measured_and_saved(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    with opened(tiny_base, tiny_experiment) as trainer:
        trainer.advance(20)
        raw = trainer.weights()["unet"]
    with opened(tiny_base, tiny_experiment.with_params(OPTIONS["ema"])) as trainer:
        trainer.advance(20)
        averaged = trainer.weights()["unet"]
    changes = [(averaged[key].norm() / raw[key].norm()).item() for key in raw if "lora_B" in key]
    assert 0.1 < sum(changes) / len(changes) < 0.98  # B grows from zero, and its average lags behind


def test_pictures_of_several_shapes_are_learned_together(
    tiny_base: BaseModel, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    """A picture's loss doesn't depend on what else is in its batch, of whatever shapes."""
    for number, size in enumerate([(64, 64), (128, 64), (64, 128)]):
        make_pictures(tmp_path / f"1_size{number}", 8, size)
    wanted = {"dataset.path": str(tmp_path), "dataset.buckets": True, "dataset.resolution": (128, 64),
              "lr_scheduler.name": "constant", "optimizer.learning_rate": 1e-12}  # fmt: skip
    experiment = tiny_experiment.with_params({**wanted, "training.batch_size": 4, "training.max_images": 12})
    data = training_set(tiny_base, make_material(experiment), experiment, TensorCache(None))
    assert {tuple(latent.shape) for latent in data.latents} == {(4, 8, 8), (4, 8, 16), (4, 16, 8)}
    batched = losses_of(tiny_base, experiment)
    with opened(tiny_base, experiment) as trainer:
        alone = [trainer._losses(batch).item() for position in range(12) for batch in trainer._feed.batches([position])]
    steps = [sum(alone[first : first + 4]) / 4 for first in (0, 4, 8)]
    assert batched == pytest.approx(steps, rel=1e-4)


def test_clip_skip_is_the_layers_states_through_the_final_norm(tiny_base: BaseModel, tiny_base_folder: Path) -> None:
    """A1111's `CLIP_stop_at_last_layers = 2`."""
    skipping = load_base(str(tiny_base_folder), model=ModelConfig(clip_skip=2))
    with torch.no_grad():
        ours = encode_prompts(skipping, ["sks"]).embeddings
        tokens = tiny_base.tokenizer("sks", padding="max_length", return_tensors="pt").input_ids
        states = tiny_base.text_encoder(tokens, output_hidden_states=True).hidden_states
        assert torch.allclose(ours, tiny_base.text_encoder.final_layer_norm(states[2]), atol=1e-6)
        assert len(states) == 4  # the embedding and three layers


@pytest.mark.parametrize("where", ["files", "configuration"])
def test_v_prediction(where: str, tiny_base_folder: Path, tiny_experiment: Experiment, tmp_path: Path) -> None:
    folder = make_base(tmp_path / "v", prediction_type="v_prediction") if where == "files" else tiny_base_folder
    model = ModelConfig() if where == "files" else ModelConfig(prediction_type="v_prediction")
    base = load_base(str(folder), model=model)
    latents, noise, timesteps = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([5, 900])
    abar = base.noise_scheduler.alphas_cumprod[timesteps].reshape(2, 1, 1, 1)
    velocity = abar.sqrt() * noise - (1 - abar).sqrt() * latents
    assert torch.allclose(target_of(base, latents, noise, timesteps), velocity, atol=1e-6)
    assert base.sampler.config.prediction_type == "v_prediction"
    assert losses_of(base, tiny_experiment) != losses_of(load_base(str(tiny_base_folder)), tiny_experiment)


@pytest.mark.parametrize(("keep_last", "left"), [(None, ["002", "004"]), (1, ["004"])])
def test_a_file_every_n_epochs(
    keep_last: int | None, left: list[str], tiny_base: BaseModel, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    experiment = tiny_experiment.with_params({"training.save_every_epochs": 2, "training.keep_last": keep_last})
    straight = losses_of(tiny_base, tiny_experiment)
    with opened(tiny_base, experiment) as trainer:
        files = epoch_files(experiment, trainer.schedule, make_material(experiment).train, tmp_path)
        for stop in (8, 30, 1000):
            advance_keeping(trainer, stop, Keeping(list, 1000, files))
        assert [loss for _, loss in trainer.losses] == straight
    found = sorted(path.stem.removeprefix("epoch_") for path in (tmp_path / "epochs").iterdir())
    assert found == left
    assert load_file(tmp_path / "epochs/epoch_004.safetensors")
    with safe_open(tmp_path / "epochs/epoch_004.safetensors", framework="pt") as file:
        assert file.metadata()["ss_num_train_images"] == "8"


@pytest.mark.parametrize(("repeats", "images"), [(None, 5 + 30), (4, 4 * 15)])
def test_files_tell_images_times_repeats(
    repeats: int | None, images: int, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    """As kohya's do in `ss_num_train_images`."""
    make_pictures(tmp_path, 5)
    make_pictures(tmp_path / "3_ten", 10, size=(128, 64))
    pictures = read_folder(tmp_path, ReadOptions())
    card = lora_card(tiny_experiment.with_params({"training.repeats": repeats}), pictures, "sks")
    assert card.train_images == images


@pytest.mark.parametrize(("params", "stops"), [
    ({"training.batch_size": 4}, (9, 30, 1000)),
    ({"training.batch_size": 4, "training.gradient_accumulation": 6}, (1000,)),
    ({"training.batch_size": 4, "training.gradient_accumulation": 6}, (9, 30, 1000)),
])  # fmt: skip
def test_no_epochs_file_is_missed(
    params: dict[str, Any], stops: tuple[int, ...], tiny_base: BaseModel, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    """Where a rung's last step passes the end of an epoch, and where one step spans several."""
    experiment = tiny_experiment.with_params({"training.save_every_epochs": 1, **params})
    with opened(tiny_base, experiment) as trainer:
        assert trainer.schedule.images_per_epoch == 8
        files = epoch_files(experiment, trainer.schedule, make_material(experiment).train, tmp_path)
        for stop in stops:
            advance_keeping(trainer, stop, Keeping(list, 1000, files))
    found = sorted(path.stem for path in (tmp_path / "epochs").iterdir())
    assert found == ["epoch_001", "epoch_002", "epoch_003", "epoch_004"]


@contextmanager
def small_files() -> Iterator[None]:
    """Writing a file beyond 1 kB fails, as on a full disk: by the system itself, in the middle of the file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_at(owner: Any, call: str) -> Iterator[None]:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, call, full)
        yield


FULL_DISKS = {
    "while it is written": (small_files, "File too large"),
    "when it reaches the disk": (lambda: full_at(os, "fsync"), "No space left"),
    "when it is moved": (lambda: full_at(Path, "replace"), "No space left"),
}


@pytest.mark.parametrize("moment", FULL_DISKS)
def test_a_full_disk_leaves_the_last_good_state(
    moment: str, tiny_base: BaseModel, tiny_experiment: Experiment, tmp_path: Path
) -> None:
    full, message = FULL_DISKS[moment]
    with opened(tiny_base, tiny_experiment) as trainer:
        trainer.advance(4)
        write_state(tmp_path / "state.pt", trainer.state_dict())
        trainer.advance(8)
        with full(), pytest.raises(OSError, match=message):
            write_state(tmp_path / "state.pt", trainer.state_dict())
    assert read_state(tmp_path / "state.pt")["images_seen"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_compiled_blocks_learn_the_same(tiny_base_folder: Path, tiny_experiment: Experiment) -> None:
    plain = losses_of(load_base(str(tiny_base_folder)), tiny_experiment, (4,))
    compiled = load_base(str(tiny_base_folder), compile_blocks=True)
    trainer: Trainer
    with opened(compiled, tiny_experiment) as trainer:
        trainer.advance(4)
        assert [loss for _, loss in trainer.losses] == pytest.approx(plain, rel=1e-4)


def test_trials_of_other_ranks_stay_compiled(
    tiny_base_folder: Path, tiny_experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is compiled anew; at its limit dynamo would run them uncompiled, and here it fails instead."""
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    torch._dynamo.reset()
    base = load_base(str(tiny_base_folder), compile_blocks=True)
    base.unet.compile_repeated_blocks(backend="eager")  # as quick as it gets
    for rank in (2, 3):
        with opened(base, tiny_experiment.with_params({"lora.rank": rank})) as trainer:
            trainer.advance(2)
            assert len(trainer.losses) == 1


@pytest.mark.parametrize("where", ["a folder", "elsewhere"])
def test_a_model_that_predicts_pictures_is_refused(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the hub or a single file nothing is known before it is loaded."""
    folder = make_base(tmp_path / "base", prediction_type="sample")
    if where == "elsewhere":
        monkeypatch.setattr(families, "resolve_base", lambda reference, _: reference)
    with pytest.raises(ModelError, match=r"its U-Net predicts sample.*epsilon or v_prediction"):
        load_base(str(folder))


@pytest.mark.parametrize(("part", "error"), [("unet", TrainingDivergedError), ("vae", ModelError)])
def test_samples_that_are_no_numbers_are_an_error_and_no_black_picture(
    part: str, error: type[Exception], tiny_base: BaseModel
) -> None:
    with torch.no_grad():
        next(getattr(tiny_base, part).parameters()).fill_(float("nan"))
        for weight in tiny_base.vae.decoder.parameters() if part == "vae" else ():
            weight.fill_(float("nan"))
    with pytest.raises(error, match=r"no numbers|overflows"):
        generate(tiny_base, [Request("sks", 0, (64, 64))], SamplingConfig(steps=1))
