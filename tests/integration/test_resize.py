"""A LoRA of a lower rank: the best approximation of what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raylora.diffusion.lora_weights import LoraModule, LoraWeights, with_strength
from raylora.diffusion.resize import with_rank
from raylora.errors import ModelError
from tests.lora_models import VARIANTS, Trained, assert_same, only, train

Make = Callable[[str, str], Trained]


@pytest.fixture
def make(tiny_base_folder: Path) -> Make:
    return lambda family, variant: train(family, tiny_base_folder, VARIANTS[variant])


@pytest.mark.parametrize("rank", [1, 3])
def test_a_lower_rank_is_the_best_approximation(rank: int, make: Make) -> None:
    """Layer by layer against numpy's own decomposition of the whole change."""
    weights = make("sd15", "by block").weights
    smaller, kept = with_rank(weights, rank)
    after, before = 0.0, 0.0
    worst = 1.0
    for part, path, module in weights.modules():
        u, values, vh = np.linalg.svd(change_of(module).astype(np.float64), full_matrices=False)
        best = (u[:, :rank] * values[:rank]) @ vh[:rank]
        got = smaller.parts[part][path]
        assert got.rank == min(rank, module.rank)
        assert got.down.shape[1:] == module.down.shape[1:]
        assert np.allclose(change_of(got), best if module.rank > rank else change_of(module), atol=1e-5), path
        assert got.scale == pytest.approx(module.scale)
        after, before = after + (values[:rank] ** 2).sum(), before + (values**2).sum()
        worst = min(worst, np.linalg.norm(values[:rank]) / np.linalg.norm(values))
    assert kept.overall == pytest.approx((after / before) ** 0.5)
    assert kept.worst == pytest.approx(worst)
    assert 0 < kept.worst < kept.overall < 1


def change_of(module: LoraModule) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(module.scale * module.up.flatten(1) @ module.down.flatten(1))


def test_a_rank_that_all_have_changes_nothing(make: Make) -> None:
    weights = make("sd15", "even").weights
    same, kept = with_rank(weights, 4)
    assert_same(same, weights)
    assert (kept.overall, kept.worst) == (1, 1)


def test_a_layer_that_does_nothing_loses_nothing() -> None:
    idle = LoraWeights("sd15", {"unet": {"conv_in": LoraModule(torch.randn(4, 8), torch.zeros(8, 4), 4.0)}})
    smaller, kept = with_rank(idle, 2)
    assert (kept.overall, kept.worst) == (1, 1)
    assert not change_of(only(smaller)).any()


def test_what_cannot_be_changed_is_refused(make: Make) -> None:
    plain, dora = make("sd15", "even").weights, make("sd15", "dora").weights
    with pytest.raises(ModelError, match=r"from 4 to 5.*--rank 4 or less"):
        with_rank(plain, 5)
    with pytest.raises(ModelError, match="magnitude belongs to the whole weight"):
        with_rank(dora, 2)
    with pytest.raises(ModelError, match="magnitude belongs to the whole weight"):
        with_strength(dora, 0.5)
    assert with_strength(dora, 1) is dora
