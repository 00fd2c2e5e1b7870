"""How generated pictures stand to real ones, from unit vectors of an image encoder. All cosines, -1..1."""

from __future__ import annotations

from torch import Tensor


def paired_similarities(samples: Tensor, real: Tensor) -> Tensor:
    """Mean cosine of each real image with the samples of its own caption, (images,).

    Args:
        samples: (images x seeds, width), image by image.
        real: (images, width).

    A mean over all pairs would not do: pure noise then scores as high as a good LoRA.
    """
    seeds = len(samples) // len(real)
    return (samples * real.repeat_interleave(seeds, dim=0)).sum(dim=-1).view(len(real), seeds).mean(dim=1)


def paired_similarity(samples: Tensor, real: Tensor) -> float:
    """The mean of `paired_similarities`."""
    return float(paired_similarities(samples, real).mean())


def copying(samples: Tensor, holdout: Tensor, train: Tensor) -> float:
    """How much nearer samples lie to single training images than held-out images do; above 0 hints at copies."""
    nearest_to_samples = (samples @ train.T).max(dim=1).values.mean()
    nearest_to_holdout = (holdout @ train.T).max(dim=1).values.mean()
    return float(nearest_to_samples - nearest_to_holdout)


def diversity(samples: Tensor) -> float:
    """Mean cosine distance between two samples; near 0 all samples look the same."""
    count = len(samples)
    if count < 2:
        return 0.0
    cosines = samples @ samples.T
    return float(1 - (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def prompt_alignment(samples: Tensor, prompts: Tensor) -> float:
    """Mean cosine of each sample with its own prompt (CLIP score without its factor)."""
    return float((samples * prompts).sum(dim=-1).mean())
