"""The arithmetic of steps, and which pictures each step learns."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from raylora.config import TrainingConfig
from raylora.dataset.batches import ImageOrder, Schedule, batch_positions, make_schedule, own_repeats
from raylora.world import World


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
    shares = [World(rank, workers).share(batch) for rank in range(workers)]
    assert sorted(position for share in shares for position in share) == list(batch)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_only_the_first_worker_is_first() -> None:
    assert [World(rank, 3).is_first for rank in range(3)] == [True, False, False]
    assert World().share(range(5)) == range(5)


SHAPES = ["wide"] * 5 + ["tall"] * 4 + ["square"] * 2


def epochs_of(order: ImageOrder, images: int, epochs: int) -> list[list[int]]:
    return [[order[epoch * images + place] for place in range(images)] for epoch in range(epochs)]


def test_with_shapes_an_epoch_is_still_exactly_its_images() -> None:
    repeats = [2, 1, 3, 1, 1, 2, 2, 1, 1, 4, 1]
    order = ImageOrder(repeats, seed=3, shapes=SHAPES, batch_size=4)
    for epoch in epochs_of(order, sum(repeats), epochs=5):
        assert sorted(epoch) == sorted(picture for picture, count in enumerate(repeats) for _ in range(count))


def test_only_what_fills_no_batch_is_learned_in_mixed_batches() -> None:
    """19 images an epoch in batches of 4: batches run on over the ends of epochs."""
    repeats = [2, 1, 3, 1, 1, 2, 2, 1, 1, 4, 1]
    order = ImageOrder(repeats, seed=3, shapes=SHAPES, batch_size=4)
    batches = [[SHAPES[order[4 * step + place]] for place in range(4)] for step in range(19)]
    mixed = sum(len(set(batch)) > 1 for batch in batches)
    assert mixed <= 2 * 4  # at most the leftovers of three shapes, two batches an epoch
    shuffled = ImageOrder(repeats, seed=3)
    plain = [[SHAPES[shuffled[4 * step + place]] for place in range(4)] for step in range(19)]
    assert sum(len(set(batch)) > 1 for batch in plain) > 2 * mixed


def test_one_shape_is_shuffled_as_if_there_were_none() -> None:
    plain, one = ImageOrder([2, 3, 4], seed=1), ImageOrder([2, 3, 4], seed=1, shapes=["a"] * 3, batch_size=4)
    assert epochs_of(plain, 9, 3) == epochs_of(one, 9, 3)


def test_regularization_images_are_part_of_an_epoch() -> None:
    plan = make_schedule([10] * 20, TrainingConfig(epochs=10), regularization_repeats=[5] * 10)
    assert (plan.images_per_epoch, plan.images_total) == (250, 2500)
    assert make_schedule([10], TrainingConfig(repeats=2), regularization_repeats=[5]).images_per_epoch == 7
