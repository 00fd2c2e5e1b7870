"""The measures' contract, on the demo's trained weights: what they order, and what they must not depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from raylora.bundled import DEMO_DATASET
from raylora.config import DatasetConfig, EvaluationConfig, Experiment, LoraConfig, SamplingConfig
from raylora.dataset.folder import Picture, read_folder
from raylora.dataset.pixels import Pixels
from raylora.diffusion.adapters import Adapter
from raylora.diffusion.base import BaseModel
from raylora.diffusion.encode import decode_all
from raylora.diffusion.families import load_base
from raylora.diffusion.tensor_cache import TensorCache
from raylora.evaluation.encoders import ImageEncoder, load_encoder
from raylora.evaluation.holdout import GRID_SEED
from raylora.evaluation.scorecard import Evaluator, ImageSet, Metrics, Reference, is_finite, similarity_gain
from raylora.evaluation.similarity import paired_similarity
from raylora.evaluation.strength import STRENGTHS, sweep_strengths
from raylora.execution.node_cache import Material, SharedData, image_set, training_set
from raylora.training.trainer import Trainer

HELD_OUT, LEARNED = 4, 6
EVALUATION = EvaluationConfig(encoder="demo", timesteps=(200, 700))
SAMPLING = SamplingConfig(seeds=(0, 1), steps=4, guidance_scale=3.0)
EXPERIMENT = Experiment(
    dataset=DatasetConfig(resolution=(64, 64)),
    evaluation=EVALUATION,
    sampling=SAMPLING,
    lora=LoraConfig(rank=4, alpha=4),
)
ALL_MEASURES = {"score", "holdout_loss", "holdout_loss_ratio", "sample_similarity", "similarity_gain",
                "prompt_alignment", "diversity", "train_probe_loss", "copying"}  # fmt: skip
OF_TRAINING_IMAGES = {"train_probe_loss", "copying"}


@pytest.fixture(scope="module")
def base() -> BaseModel:
    torch.set_num_threads(1)
    return load_base("demo")


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return load_encoder("demo")


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return read_folder(DEMO_DATASET)[: HELD_OUT + LEARNED]


@pytest.fixture(scope="module")
def shared(base: BaseModel, encoder: ImageEncoder, pictures: list[Picture]) -> SharedData:
    holdout = image_set(base, encoder, pictures[:HELD_OUT], EXPERIMENT.dataset, TensorCache(None))
    train = image_set(base, encoder, pictures[HELD_OUT:], EXPERIMENT.dataset, TensorCache(None))
    reference = Evaluator(encoder, holdout, train, EVALUATION, SAMPLING).reference(base)
    return SharedData(Material(pictures[HELD_OUT:], pictures[:HELD_OUT]), train, holdout, reference)


@pytest.fixture
def evaluator(encoder: ImageEncoder, shared: SharedData) -> Evaluator:
    return Evaluator(encoder, shared.holdout, shared.train, EVALUATION, SAMPLING)


@contextmanager
def adapter_on(base: BaseModel, config: LoraConfig, seed: int = 0) -> Iterator[Adapter]:
    adapter = Adapter(base, config, "measured", train_text_encoder=True, seed=seed)
    adapter.activate()
    try:
        yield adapter
    finally:
        adapter.close()


def fill(adapter: Adapter) -> None:
    """Weights that are not fresh: every B drawn small."""
    generator = torch.Generator().manual_seed(1)
    state = adapter.state_dict()
    for weights in state.values():
        for value in weights.values():
            value.copy_(0.03 * torch.randn(value.shape, generator=generator))
    adapter.load_state_dict(state)


def similarity_of(pixels: Sequence[Pixels], encoder: ImageEncoder, holdout: ImageSet) -> float:
    return paired_similarity(encoder.images(pixels), holdout.embeddings)


def test_noise_is_below_the_base_and_the_base_below_the_real_pictures(
    base: BaseModel, encoder: ImageEncoder, evaluator: Evaluator
) -> None:
    """An unpaired mean scored noise as high as a good LoRA; see docs/architecture.md."""
    samples = evaluator.sample(base)
    noise = list(np.random.default_rng(0).integers(0, 256, np.shape(samples), dtype=np.uint8))
    good = decode_all(base, evaluator.holdout.latents)
    similarities = [similarity_of(pixels, encoder, evaluator.holdout) for pixels in (noise, samples, good)]
    assert similarities[0] + 0.05 < similarities[1]
    assert similarities[1] + 0.05 < similarities[2]
    assert similarities[2] > 0.9


def test_the_reference_is_the_base_models_samples_and_the_vaes_round_trip(
    base: BaseModel, encoder: ImageEncoder, evaluator: Evaluator, shared: SharedData
) -> None:
    round_trip = decode_all(base, shared.holdout.latents)
    assert shared.reference.sample_similarity == similarity_of(evaluator.sample(base), encoder, shared.holdout)
    assert shared.reference.ceiling_similarity == similarity_of(round_trip, encoder, shared.holdout)


def test_the_base_gains_nothing_and_the_round_trip_gains_all(
    base: BaseModel, encoder: ImageEncoder, evaluator: Evaluator, shared: SharedData
) -> None:
    metrics = evaluator.measure(base, shared.reference).metrics
    assert metrics["similarity_gain"] == 0
    assert metrics["holdout_loss_ratio"] == 1
    ceiling = similarity_of(decode_all(base, shared.holdout.latents), encoder, shared.holdout)
    assert similarity_gain(ceiling, shared.reference) == pytest.approx(1)


def test_the_images_own_scores_make_the_score_without_copying(
    base: BaseModel, evaluator: Evaluator, shared: SharedData
) -> None:
    evaluation = evaluator.measure(base, Reference(0.5, 0.2, 0.9))  # a reference on which the base has a score
    copying = EVALUATION.score.w_copy * max(0.0, evaluation.metrics["copying"])
    assert len(evaluation.image_scores) == len(evaluator.holdout.captions)
    assert np.mean(evaluation.image_scores) == pytest.approx(evaluation.metrics["score"] + copying, abs=1e-5)
    assert np.std(evaluation.image_scores) > 0.01


def alphas_cumprod(base: BaseModel) -> Tensor:
    """Ho et al. 2020, section 2, with Stable Diffusion's `scaled_linear` betas."""
    config = base.noise_scheduler.config
    assert (config.beta_schedule, config.prediction_type) == ("scaled_linear", "epsilon")
    betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps).square()
    return (1 - betas).cumprod(dim=0)


@torch.no_grad()
def plain_loss(base: BaseModel, picture: Picture, latent: Tensor, timestep: int, noise: Tensor) -> float:
    """Ho et al. 2020, eq. 14, for one cell, without the library's own functions."""
    abar = alphas_cumprod(base)[timestep]
    noised = abar.sqrt() * latent + (1 - abar).sqrt() * noise
    length = base.tokenizer.model_max_length
    tokens = base.tokenizer(picture.caption, padding="max_length", max_length=length, return_tensors="pt").input_ids
    prompt = base.text_encoder(tokens).last_hidden_state
    prediction = base.unet(noised[None], torch.tensor([timestep]), encoder_hidden_states=prompt).sample[0]
    return float(((prediction - noise) ** 2).mean())


def test_the_holdout_loss_is_the_plain_formula(
    base: BaseModel, encoder: ImageEncoder, shared: SharedData, pictures: list[Picture]
) -> None:
    timestep, images = 350, 2
    evaluation = EVALUATION.model_copy(update={"timesteps": (timestep,), "max_images": images})
    evaluator = Evaluator(encoder, shared.holdout, None, evaluation, SAMPLING)
    latents = torch.stack(list(shared.holdout.latents[:images]))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(GRID_SEED))
    cells = [plain_loss(base, pictures[i], latents[i], timestep, noise[i]) for i in range(images)]
    reference = Reference(holdout_loss=1.0, sample_similarity=0.5, ceiling_similarity=1.0)
    measured = evaluator.measure(base, reference).metrics["holdout_loss"]
    assert measured == pytest.approx(sum(cells) / images, rel=1e-5)
    assert cells[0] != pytest.approx(cells[1], rel=1e-2)


def test_latents_are_the_posteriors_mean_times_the_vaes_factor(base: BaseModel, shared: SharedData) -> None:
    pixels = torch.from_numpy(np.stack(shared.holdout.pixels[:1])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        mean = base.vae.encode(pixels).latent_dist.mean
    assert torch.allclose(shared.holdout.latents[0], mean[0] * base.vae.config.scaling_factor, atol=1e-4)
    assert 0.3 < float(torch.stack(list(shared.holdout.latents)).std()) < 3


def test_the_probe_is_the_same_loss_over_training_images(
    base: BaseModel, encoder: ImageEncoder, shared: SharedData, evaluator: Evaluator
) -> None:
    swapped = Evaluator(encoder, shared.train.first(HELD_OUT), None, EVALUATION, SAMPLING)
    on_training_images = swapped.measure(base, shared.reference).metrics["holdout_loss"]
    metrics = evaluator.measure(base, shared.reference).metrics
    assert metrics["train_probe_loss"] == on_training_images
    assert metrics["train_probe_loss"] != metrics["holdout_loss"]


def measured_by_a_trial(base: BaseModel, encoder: ImageEncoder, shared: SharedData, experiment: Experiment) -> Metrics:
    """As trials measure: a trainer of these settings, all with the same weights, its adapter active."""
    data = training_set(base, shared.material, experiment, TensorCache(None))
    trainer = Trainer(base, data, experiment, shared.material.schedule(experiment))
    try:
        fill(trainer.adapter)
        trainer.adapter.activate()
        return shared.evaluator(encoder, experiment).measure(base, shared.reference).metrics
    finally:
        trainer.close()


TRIALS_OWN: list[dict[str, object]] = [
    {"seed": 7},
    {"training.batch_size": 4},
    {"lora.dropout": 0.5},
    {"dataset.shuffle_caption": True},
    {"optimizer.name": "lion", "training.repeats": 3, "training.epochs": 2},
]


@pytest.fixture(scope="module")
def measured_plainly(base: BaseModel, encoder: ImageEncoder, shared: SharedData) -> Metrics:
    return measured_by_a_trial(base, encoder, shared, EXPERIMENT)


@pytest.mark.parametrize("params", TRIALS_OWN, ids=str)
def test_measures_do_not_depend_on_a_trials_own_settings(
    params: dict[str, object], base: BaseModel, encoder: ImageEncoder, shared: SharedData, measured_plainly: Metrics
) -> None:
    assert measured_plainly["holdout_loss_ratio"] != 1 and measured_plainly["similarity_gain"] != 0
    assert measured_by_a_trial(base, encoder, shared, EXPERIMENT.with_params(params)) == measured_plainly


def test_measures_do_not_depend_on_the_callers_random_state(
    base: BaseModel, encoder: ImageEncoder, shared: SharedData
) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        found.append(shared.evaluator(encoder, EXPERIMENT).measure(base, shared.reference))
    assert found[0].metrics == found[1].metrics
    assert np.array_equal(found[0].samples, found[1].samples)


def test_measuring_leaves_the_callers_random_state(base: BaseModel, evaluator: Evaluator, shared: SharedData) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    evaluator.measure(base, shared.reference)
    assert torch.equal(torch.get_rng_state(), before)


def test_measures_after_training_are_taken_without_dropout(
    base: BaseModel, encoder: ImageEncoder, shared: SharedData
) -> None:
    dropping = EXPERIMENT.with_params({"lora.dropout": 0.5, "training.batch_size": 2})
    data = training_set(base, shared.material, dropping, TensorCache(None))
    trainer = Trainer(base, data, dropping, shared.material.schedule(dropping))
    trainer.advance(2)
    evaluator = shared.evaluator(encoder, dropping)
    first, second = (evaluator.measure(base, shared.reference).metrics for _ in range(2))
    trainer.close()
    assert first == second


def test_the_batch_size_of_measuring_changes_speed_only(
    base: BaseModel, encoder: ImageEncoder, shared: SharedData, evaluator: Evaluator
) -> None:
    by_three = EVALUATION.model_copy(update={"batch_size": 3})
    other = Evaluator(encoder, shared.holdout, shared.train, by_three, SAMPLING)
    first, second = (judge.measure(base, shared.reference).metrics for judge in (evaluator, other))
    assert second == pytest.approx(first, rel=1e-3, abs=1e-3)


def test_a_fresh_lora_measures_as_the_base(base: BaseModel, evaluator: Evaluator, shared: SharedData) -> None:
    without = evaluator.measure(base, shared.reference)
    with adapter_on(base, LoraConfig(rank=4, alpha=4)):
        fresh = evaluator.measure(base, shared.reference)
    assert fresh.metrics == without.metrics
    assert np.array_equal(fresh.samples, without.samples)


def test_a_lora_off_the_base_leaves_its_measures(base: BaseModel, evaluator: Evaluator, shared: SharedData) -> None:
    with adapter_on(base, LoraConfig(rank=4, alpha=4)) as adapter:
        fill(adapter)
        moved = evaluator.measure(base, shared.reference).metrics
    assert moved["holdout_loss"] != shared.reference.holdout_loss
    assert evaluator.reference(base) == shared.reference


def test_measures_of_training_images_are_missing_without_them(
    base: BaseModel, encoder: ImageEncoder, evaluator: Evaluator, shared: SharedData
) -> None:
    alone = Evaluator(encoder, shared.holdout, None, EVALUATION, SAMPLING).measure(base, shared.reference).metrics
    whole = evaluator.measure(base, shared.reference).metrics
    assert set(whole) == ALL_MEASURES
    assert set(alone) == ALL_MEASURES - OF_TRAINING_IMAGES
    assert all(alone[name] == whole[name] for name in set(alone) - {"score"})


def test_measures_are_numbers_within_their_bounds(base: BaseModel, evaluator: Evaluator, shared: SharedData) -> None:
    evaluation = evaluator.measure(base, shared.reference)
    assert is_finite(evaluation.metrics)
    assert 0 < evaluation.metrics["holdout_loss"] < 1
    assert all(-1 <= evaluation.metrics[name] <= 1 for name in ("sample_similarity", "prompt_alignment"))
    assert 0 < evaluation.metrics["diversity"] < 2
    assert np.shape(evaluation.samples) == (HELD_OUT * len(SAMPLING.seeds), 64, 64, 3)


def test_samples_are_of_their_own_captions(base: BaseModel, evaluator: Evaluator, pictures: list[Picture]) -> None:
    assert [request.prompt for request in evaluator.requests] == [
        picture.caption for picture in pictures[:HELD_OUT] for _ in SAMPLING.seeds
    ]
    assert len({request.seed for request in evaluator.requests}) == len(evaluator.requests)
    alone, among_others = evaluator.sample(base, evaluator.requests[2:3])[0], evaluator.sample(base)[2]
    assert np.abs(alone.astype(int) - among_others.astype(int)).max() <= 2


def test_strengths_scale_what_a_lora_changes(base: BaseModel, evaluator: Evaluator, shared: SharedData) -> None:
    def loss() -> float:
        return evaluator.measure(base, shared.reference).metrics["holdout_loss"]

    with adapter_on(base, LoraConfig(rank=4, alpha=4)) as adapter:
        fill(adapter)
        as_trained = loss()
        with adapter.at_strength(0.0):
            assert loss() == pytest.approx(shared.reference.holdout_loss, rel=1e-6)
        sweep = sweep_strengths(adapter, evaluator, shared.reference)
        assert loss() == as_trained
    assert list(sweep.scores) == list(STRENGTHS)
    assert len(set(sweep.scores.values())) == len(STRENGTHS)
