"""Losses and noise against their formulas, computed another way."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from raylora.config import LossConfig
from raylora.diffusion.losses import min_snr_weights, pseudo_huber, training_loss
from raylora.diffusion.noise import multires_noise, offset_noise, perturbed_noise, training_noise

SHAPE = (4, 24, 40)
ALPHAS_CUMPROD = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, dim=0)
"""Stable Diffusion's."""
ALL_STEPS = torch.arange(1000)
WEIGHT_BY_HAND: dict[str, Callable[[float, float], float]] = {
    "epsilon": lambda snr, gamma: min(snr, gamma) / snr,
    "v_prediction": lambda snr, gamma: min(snr, gamma) / (snr + 1),
}


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def config(**settings: object) -> LossConfig:
    return LossConfig.model_validate(settings)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("prediction_type", WEIGHT_BY_HAND)
def test_min_snr_weights_are_those_of_the_paper(prediction_type: str, gamma: float) -> None:
    weights = min_snr_weights(ALPHAS_CUMPROD, ALL_STEPS, gamma, prediction_type)
    for step in range(0, 1000, 37):
        signal = float(ALPHAS_CUMPROD[step])
        expected = WEIGHT_BY_HAND[prediction_type](signal / (1 - signal), gamma)
        assert weights[step].item() == pytest.approx(expected, rel=1e-6)
    assert weights.dtype == torch.float32


def test_min_snr_weights_are_taken_at_the_timesteps() -> None:
    timesteps = torch.tensor([999, 0, 500])
    weights = min_snr_weights(ALPHAS_CUMPROD, timesteps, 5.0, "epsilon")
    assert torch.equal(weights, min_snr_weights(ALPHAS_CUMPROD, ALL_STEPS, 5.0, "epsilon")[timesteps])
    assert weights[0] == 1
    assert weights[1] < 0.01


def test_min_snr_weights_of_pure_noise_and_of_pure_signal_are_numbers() -> None:
    ends = torch.tensor([0.0, 1.0])
    assert min_snr_weights(ends, torch.tensor([0, 1]), 5.0, "epsilon").tolist() == [1, 0]
    assert min_snr_weights(ends, torch.tensor([0, 1]), 5.0, "v_prediction").tolist() == [0, 0]


def test_min_snr_weights_of_an_unknown_prediction_are_refused() -> None:
    with pytest.raises(ValueError, match="not for sample"):
        min_snr_weights(ALPHAS_CUMPROD, ALL_STEPS, 5.0, "sample")


@pytest.mark.parametrize("c", [0.01, 0.1, 1.0])
def test_pseudo_huber_is_the_formula(c: float) -> None:
    errors = torch.linspace(-4, 4, 101)
    expected = [2 * c * (math.sqrt(error * error + c * c) - c) for error in errors.tolist()]
    assert pseudo_huber(errors, c).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_pseudo_huber_is_squared_error_near_zero_and_absolute_error_far_away() -> None:
    small, large = torch.tensor([1e-5, -1e-4]), torch.tensor([1e4, -1e5])
    assert pseudo_huber(small, 0.1).tolist() == pytest.approx(small.pow(2).tolist(), rel=1e-4)
    assert pseudo_huber(large, 0.1).tolist() == pytest.approx((0.2 * large.abs()).tolist(), rel=1e-4)


def pair() -> tuple[Tensor, Tensor]:
    prediction, target = torch.randn((2, 3, *SHAPE), generator=seeded(1))
    return prediction, target


def loss_by_hand(kind: str, c: float) -> list[float]:
    """Image by image and element by element, in float64."""
    found = []
    for prediction, target in zip(*(tensor.numpy().astype(np.float64) for tensor in pair()), strict=True):
        errors = (prediction - target).ravel().tolist()
        if kind == "mse":
            elements = [error * error for error in errors]
        else:
            elements = [2 * c * (math.hypot(error, c) - c) for error in errors]
        found.append(sum(elements) / len(elements))
    return found


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_the_loss_of_each_image(kind: str) -> None:
    losses = training_loss(*pair(), config(type=kind, huber_c=0.3))
    assert losses.shape == (3,)
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx(loss_by_hand(kind, 0.3), rel=1e-5)


def test_plain_loss_has_the_bits_of_the_squared_error() -> None:
    prediction, target = pair()
    assert torch.equal(training_loss(prediction, target, config()), (prediction - target).pow(2).mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_weights_are_multiplied_in(kind: str) -> None:
    snr, images = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([1.0, 0.25, 2.0], dtype=torch.float64)
    plain = training_loss(*pair(), config(type=kind))
    weighted = training_loss(*pair(), config(type=kind), snr, images)
    assert weighted.tolist() == pytest.approx([plain[0].item(), plain[1].item() / 8, 0.0])
    assert weighted.dtype == torch.float32


def test_half_precision_predictions_are_compared_in_float32() -> None:
    prediction, target = (tensor.half() for tensor in pair())
    losses = training_loss(prediction, target, config())
    assert losses.dtype == torch.float32
    assert torch.equal(losses, training_loss(prediction.float(), target.float(), config()))


def test_plain_noise_is_the_generators_own_and_one_tensor() -> None:
    noise, perturbed = training_noise(SHAPE, config(), seeded())
    assert torch.equal(noise, torch.randn(SHAPE, generator=seeded()))
    assert perturbed is noise


def test_options_add_to_the_plain_draw_in_their_order() -> None:
    options = config(noise_offset=0.1, multires_noise_iterations=6, multires_noise_discount=0.4, input_perturbation=0.2)
    noise, perturbed = training_noise(SHAPE, options, seeded())
    generator = seeded()
    expected = offset_noise(torch.randn(SHAPE, generator=generator), 0.1, generator)
    expected = multires_noise(expected, 6, 0.4, generator)
    assert torch.equal(noise, expected)
    assert torch.equal(perturbed, perturbed_noise(expected, 0.2, generator))


def test_offset_noise_shifts_each_channel_by_a_draw_of_its_own() -> None:
    plain = torch.randn(SHAPE, generator=seeded(1))
    shifts = torch.stack([offset_noise(plain, 0.1, seeded(seed)) - plain for seed in range(2000)])
    assert shifts.std(dim=(2, 3)).max() < 1e-6
    by_channel = shifts[:, :, 0, 0].double()
    assert by_channel.mean().item() == pytest.approx(0, abs=0.005)
    assert by_channel.std(dim=0).tolist() == pytest.approx([0.1] * 4, rel=0.06)
    assert torch.corrcoef(by_channel.T).fill_diagonal_(0).abs().max() < 0.1


def bilinear_by_hand(coarse: np.ndarray, height: int, width: int) -> np.ndarray:
    """Upsampling of (channels, h, w) with pixel centres at half positions, one pixel at a time."""
    channels, rows, columns = coarse.shape
    fine = np.zeros((channels, height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            above = coarse[:, top, left] * (1 - (u - left)) + coarse[:, top, right] * (u - left)
            below = coarse[:, bottom, left] * (1 - (u - left)) + coarse[:, bottom, right] * (u - left)
            fine[:, y, x] = above * (1 - (v - top)) + below * (v - top)
    return fine


@pytest.mark.parametrize(("iterations", "discount"), [(2, 0.8), (10, 0.3)])
def test_multires_noise_is_the_sum_of_its_levels(iterations: int, discount: float) -> None:
    """As kohya's `pyramid_noise_like`: a new ratio per level, and no level after the first with a side of 1."""
    channels, height, width = SHAPE
    plain = torch.randn(SHAPE, generator=seeded(1))
    generator, expected, levels = seeded(2), plain.numpy().astype(np.float64), 0
    for level in range(iterations):
        ratio = torch.rand((), generator=generator).item() * 2 + 2
        rows, columns = max(1, int(height / ratio**level)), max(1, int(width / ratio**level))
        coarse = torch.randn((1, channels, rows, columns), generator=generator)[0].numpy().astype(np.float64)
        expected = expected + discount**level * bilinear_by_hand(coarse, height, width)
        levels += 1
        if min(rows, columns) == 1:
            break
    found = multires_noise(plain, iterations, discount, seeded(2))
    assert levels < iterations or iterations == 2
    np.testing.assert_allclose(found.numpy(), expected / expected.std(ddof=1), atol=1e-5)


def test_multires_noise_has_unit_deviation_and_moves_whole_images() -> None:
    plain = [torch.randn(SHAPE, generator=seeded(seed)) for seed in range(100)]
    multires = [multires_noise(noise, 8, 0.8, seeded(1000 + seed)) for seed, noise in enumerate(plain)]
    assert [noise.std().item() for noise in multires] == pytest.approx([1.0] * 100, rel=1e-5)
    spread = [torch.stack([noise.mean(dim=(1, 2)) for noise in noises]).std().item() for noises in (plain, multires)]
    assert spread[1] > 5 * spread[0]


def test_perturbation_leaves_the_noise_of_the_target_alone() -> None:
    noise, perturbed = training_noise((4, 64, 64), config(input_perturbation=0.1), seeded())
    assert torch.equal(noise, torch.randn((4, 64, 64), generator=seeded()))
    extra = perturbed - noise
    assert extra.mean().item() == pytest.approx(0, abs=0.003)
    assert extra.std().item() == pytest.approx(0.1, rel=0.03)
    assert torch.corrcoef(torch.stack([extra.flatten(), noise.flatten()]))[0, 1].abs() < 0.03


@pytest.mark.parametrize("options", [
    {"noise_offset": 0.1},
    {"multires_noise_iterations": 6, "multires_noise_discount": 0.4},
    {"input_perturbation": 0.1},
])  # fmt: skip
def test_every_option_changes_what_the_unet_sees(options: dict[str, float]) -> None:
    noise, perturbed = training_noise(SHAPE, config(**options), seeded())
    plain = torch.randn(SHAPE, generator=seeded())
    assert not torch.equal(perturbed, plain)
    assert torch.equal(noise, plain) == ("input_perturbation" in options)
