"""The arithmetic of steps, and which pictures each step learns."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from raylora.config import TrainingConfig
from raylora.dataset.batches import ImageOrder, Schedule, batch_positions, make_schedule, own_repeats, shuffle_tags
from raylora.training.world import World

TAGS = "sks, red hair, smile, glasses, hat, blue background"


def schedule(images: int, folder_repeats: int = 1, **training: Any) -> Schedule:
    return make_schedule([folder_repeats] * images, TrainingConfig(**training))


@pytest.mark.parametrize(
    ("images", "repeats", "epochs", "steps"),
    [(20, 10, 10, 2000), (15, 10, 10, 1500), (20, 8, 20, 3200), (20, 15, 10, 3000)],
)
def test_steps_are_images_by_repeats_by_epochs(images: int, repeats: int, epochs: int, steps: int) -> None:
    """Guide T2."""
    run = schedule(images, repeats=repeats, epochs=epochs)
    assert (run.images_total, run.micro_steps, run.optimizer_steps) == (steps, steps, steps)
    assert run.images_per_epoch == images * repeats


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 2000), (2, 1000), (3, 667), (4, 500), (4000, 1)])
def test_the_batch_size_divides_them(batch_size: int, steps: int) -> None:
    assert schedule(20, repeats=10, epochs=10, batch_size=batch_size).micro_steps == steps


def test_a_cap_on_images_shortens_the_run() -> None:
    run = schedule(20, repeats=10, epochs=10, max_images=1200, batch_size=4)
    assert (run.images_total, run.micro_steps, run.images_per_epoch) == (1200, 300, 200)


def test_a_cap_above_the_run_changes_nothing() -> None:
    assert schedule(20, repeats=10, epochs=10, max_images=9999) == schedule(20, repeats=10, epochs=10)


@pytest.mark.parametrize(("accumulation", "steps"), [(1, 500), (2, 250), (3, 167), (500, 1)])
def test_accumulation_gathers_batches_into_optimizer_steps(accumulation: int, steps: int) -> None:
    run = schedule(20, repeats=10, epochs=10, batch_size=4, gradient_accumulation=accumulation)
    assert (run.micro_steps, run.optimizer_steps) == (500, steps)


def test_folders_repeats_serve_where_none_are_set() -> None:
    assert own_repeats([10, 3], TrainingConfig()) == [10, 3]
    assert own_repeats([10, 3], TrainingConfig(repeats=5)) == [5, 5]
    assert make_schedule([10, 10, 3], TrainingConfig(epochs=2)).images_total == 46


def test_batches_follow_each_other_and_the_last_is_cut() -> None:
    run = schedule(5, epochs=2, batch_size=4)
    assert [batch_positions(step, run) for step in range(run.micro_steps)] == [range(4), range(4, 8), range(8, 10)]


@pytest.mark.parametrize("repeats", [[1, 1, 1, 1, 1], [3, 1, 2], [10]])
def test_every_epoch_sees_each_image_its_repeats(repeats: list[int]) -> None:
    order, length = ImageOrder(repeats, seed=0), sum(repeats)
    for epoch in range(3):
        seen = Counter(order[epoch * length + place] for place in range(length))
        assert seen == dict(enumerate(repeats))


def test_epochs_and_seeds_shuffle_otherwise() -> None:
    order = ImageOrder([1] * 12, seed=0)
    first, second = [order[place] for place in range(12)], [order[place] for place in range(12, 24)]
    other = [ImageOrder([1] * 12, seed=1)[place] for place in range(12)]
    assert len({tuple(first), tuple(second), tuple(other), tuple(range(12))}) == 4


def test_a_position_does_not_depend_on_what_was_asked_before() -> None:
    straight = ImageOrder([2, 1, 3], seed=3)
    stream = [straight[position] for position in range(30)]
    jumping = ImageOrder([2, 1, 3], seed=3)
    assert all(jumping[position] == stream[position] for position in (17, 0, 29, 6, 5, 18, 17, 1))
    assert all(ImageOrder([2, 1, 3], seed=3)[position] == stream[position] for position in range(30))


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("images", [1, 2, 4, 7])
def test_workers_share_a_batch_exactly(workers: int, images: int) -> None:
    batch = range(100, 100 + images)
    shares = [World(rank, workers).shard(batch) for rank in range(workers)]
    assert sorted(position for share in shares for position in share) == list(batch)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_only_the_first_worker_is_first() -> None:
    assert [World(rank, 3).is_first for rank in range(3)] == [True, False, False]
    assert World().shard(range(5)) == range(5)


@pytest.mark.parametrize("keep_tokens", [0, 1, 3])
def test_shuffled_tags_are_the_same_tags_with_the_first_in_place(keep_tokens: int) -> None:
    tags = TAGS.split(", ")
    shuffled = [shuffle_tags(TAGS, keep_tokens, seed=0, position=position).split(", ") for position in range(20)]
    assert all(sorted(order) == sorted(tags) for order in shuffled)
    assert all(order[:keep_tokens] == tags[:keep_tokens] for order in shuffled)
    assert all(len({order[place] for order in shuffled}) > 1 for place in range(keep_tokens, len(tags)))


def test_tags_are_shuffled_by_seed_and_position_alone() -> None:
    assert shuffle_tags(TAGS, 1, seed=5, position=9) == shuffle_tags(TAGS, 1, seed=5, position=9)
    assert len({shuffle_tags(TAGS, 1, seed, position) for seed in range(3) for position in range(3)}) > 5


def test_keeping_more_tags_than_there_are_keeps_all() -> None:
    assert shuffle_tags(TAGS, 10, seed=0, position=0) == TAGS
    assert shuffle_tags("a photo of sks", 1, seed=0, position=0) == "a photo of sks"
