"""What each position of the stream brings, where embeddings are made ahead and where they are not."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
import torch

from raylora.config import Experiment
from raylora.diffusion.base import BaseModel
from raylora.diffusion.encode import encode_prompts
from raylora.training.feed import stream_seed
from raylora.training.trainer import DROPOUT_STREAM
from tests.integration.test_trainer import opened

DROPOUT = 0.3
USES = 60
"""Of each picture: its share of dropped captions is then within 0.18 of the setting, at three deviations."""


@torch.no_grad()
def dropped(base: BaseModel, experiment: Experiment) -> dict[int, list[bool]]:
    """By picture, whether each use had the empty caption."""
    empty = encode_prompts(base, [""])
    uses = defaultdict(list)
    with opened(base, experiment) as trainer:
        feed = trainer._feed
        for position in range(trainer.schedule.images_per_epoch * USES):
            (batch,) = feed.batches([position])
            found = batch.cells.conditioning
            is_empty = torch.allclose(found.embeddings, empty.embeddings, atol=1e-4)
            if empty.pooled is not None:
                assert found.pooled is not None
                assert torch.allclose(found.pooled, empty.pooled, atol=1e-4) == is_empty
            uses[feed._order[position]].append(is_empty)
    return uses


def shares(base: BaseModel, experiment: Experiment) -> list[float]:
    return [sum(found) / len(found) for found in dropped(base, experiment).values()]


@pytest.mark.parametrize("params", [
    {"model.train_text_encoder": True},
    {"model.train_text_encoder": False},
    {"model.train_text_encoder": False, "dataset.caption_variants": 1},
    {"model.train_text_encoder": False, "dataset.shuffle_caption": True},
])  # fmt: skip
def test_captions_are_dropped_as_often_as_told(
    params: dict[str, object], tiny_base: BaseModel, tiny_experiment: Experiment
) -> None:
    """Of each picture by itself: none is learned without its caption always, and none never."""
    found = shares(tiny_base, tiny_experiment.with_params({"dataset.caption_dropout": DROPOUT, **params}))
    assert all(abs(share - DROPOUT) < 0.18 for share in found)
    assert abs(sum(found) / len(found) - DROPOUT) < 0.06


def test_sdxl_drops_captions_with_their_pooled_vector(tiny_sdxl: BaseModel, tiny_experiment: Experiment) -> None:
    """An empty caption is what the encoders make of "", as where they are trained, and no zeros."""
    wanted = {"dataset.caption_dropout": DROPOUT, "model.family": "sdxl", "model.train_text_encoder": False}
    found = shares(tiny_sdxl, tiny_experiment.with_params(wanted))
    assert abs(sum(found) / len(found) - DROPOUT) < 0.06


@pytest.mark.parametrize("targets", [("convolutions",), ("projections", "convolutions")])
def test_a_text_encoder_without_a_lora_is_not_trained(
    targets: tuple[str, ...], tiny_base: BaseModel, tiny_experiment: Experiment
) -> None:
    """Its embeddings are made ahead, whatever `model.train_text_encoder` says."""
    experiment = tiny_experiment.with_params({"lora.targets": targets, "model.train_text_encoder": True})
    with opened(tiny_base, experiment) as trainer:
        assert set(trainer.adapter.peft_configs) == {"unet"}
        assert trainer._feed._embedded is not None
        trainer.advance(4)
        losses = trainer.losses
    with opened(tiny_base, experiment.with_params({"model.train_text_encoder": False})) as trainer:
        trainer.advance(4)
        assert trainer.losses == losses


def test_dropout_is_not_drawn_from_the_noises_stream(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    seeds = []
    with opened(tiny_base, tiny_experiment.with_params({"lora.dropout": 0.2, "seed": 3})) as trainer:
        (first, *_) = (layer for path, layer in tiny_base.unet.named_modules() if path.endswith("lora_dropout"))
        watch = first[trainer.adapter.name].register_forward_pre_hook(lambda *_: seeds.append(torch.initial_seed()))
        trainer.advance(16)
        watch.remove()
        positions = range(trainer.schedule.images_total)
    assert len(set(seeds)) == 8
    assert not set(seeds) & {stream_seed(3, position) for position in positions}


def test_seeds_and_positions_draw_their_own_noise(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    """Also in the 32 bits that torch takes of a seed, and for seeds that are neighbours."""
    noises, timesteps = [], []
    for seed in (0, 1, 2, 2**31 - 1):
        with opened(tiny_base, tiny_experiment.with_params({"seed": seed})) as trainer:
            for batch in trainer._feed.batches(range(8)):
                noises += [tuple(noise.flatten().tolist()) for noise in batch.noise]
                timesteps.append(tuple(batch.cells.timesteps.tolist()))
    assert len(set(noises)) == 4 * 8
    assert len(set(timesteps)) == 4


def test_streams_of_near_seeds_do_not_meet() -> None:
    starts = sorted(stream_seed(seed, 0) for seed in range(100))
    assert min(later - earlier for earlier, later in itertools.pairwise(starts)) > 1e6
    assert all(stream_seed(seed, DROPOUT_STREAM) < 2**32 for seed in (0, 1, 2**31 - 1))


def test_dropping_alone_embeds_each_caption_once(tiny_base: BaseModel, tiny_experiment: Experiment) -> None:
    wanted = {"dataset.caption_dropout": DROPOUT, "model.train_text_encoder": False}
    with opened(tiny_base, tiny_experiment.with_params(wanted)) as trainer:
        embedded = trainer._feed._embedded
        assert embedded is not None
        captions = set(trainer._feed._data.captions)
        assert set(embedded.rows) == {*captions, ""}
        assert len(embedded.conditioning.embeddings) == len(captions) + 1
