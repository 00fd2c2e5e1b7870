"""The training loss of each image. Trials are never judged by it: the held-out loss is plain squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from raylora.config import LossConfig


def training_loss(prediction: Tensor, target: Tensor, config: LossConfig, *weights: Tensor) -> Tensor:
    """Each image's loss of `config.type`, times its weights; (batch,) in float32.

    Args:
        prediction: what the U-Net said, (batch, channels, height, width).
        target: what it should have said, like `prediction`.
        weights: any number of (batch,), such as `min_snr_weights`; all are multiplied in.
    """
    error = prediction.float() - target.float()
    elements = pseudo_huber(error, config.huber_c) if config.type == "huber" else error.pow(2)
    losses = elements.mean(dim=(1, 2, 3))
    for weight in weights:
        losses = losses * weight.to(losses)
    return losses


def pseudo_huber(error: Tensor, c: float) -> Tensor:
    """2c (√(error² + c²) − c), element by element: error² where it is far below c, 2c |error| far above.

    The pseudo-Huber metric (Song & Dhariwal 2023, section 3.3, https://arxiv.org/abs/2310.14189) of each element, times
    2c as in kohya's trainer, so that rates found with the squared error keep their meaning. Written as
    2c error² / (√(error² + c²) + c), the same without the cancellation that costs float32 its digits at small errors.
    """
    squared = error.pow(2)
    return 2 * c * squared / (torch.sqrt(squared + c * c) + c)


def min_snr_weights(alphas_cumprod: Tensor, timesteps: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Min-SNR-γ weights, (batch,) in float32 (Hang et al. 2023, section 3.4, https://arxiv.org/abs/2303.09556).

    With SNR = ᾱ / (1 − ᾱ): min(SNR, γ) / SNR for epsilon, min(SNR, γ) / (SNR + 1) for v_prediction. Multiplied out,
    min(1, γ (1 − ᾱ) / ᾱ) and min(ᾱ, γ (1 − ᾱ)), they hold for an SNR of 0 or infinity too.

    Args:
        alphas_cumprod: ᾱ of every timestep of the noise scheduler, (timesteps,).
        timesteps: (batch,), whole numbers.

    Raises:
        ValueError: the formula for this prediction type isn't known here.
    """
    signal = alphas_cumprod.to(timesteps.device)[timesteps].double()
    noise = 1 - signal
    if prediction_type == "epsilon":
        return (gamma * noise / signal).clamp(max=1).float()
    if prediction_type == "v_prediction":
        return torch.minimum(signal, gamma * noise).float()
    raise ValueError(f"min-SNR weights are for epsilon and v_prediction, not for {prediction_type}")
