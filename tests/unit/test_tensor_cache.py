"""Entries of the cache: made once, remade when broken, whole under writers at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from raylora.diffusion.tensor_cache import TensorCache, Tensors

WRITERS = 8
KEYS = [f"picture {number}" for number in range(20)]


def tensors_of(place: int) -> Tensors:
    return {"latents": torch.full((4, 32, 32), float(place))}


def values(found: list[Tensors]) -> list[float]:
    return [float(tensors["latents"].mean()) for tensors in found]


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def make(places: list[int]) -> list[Tensors]:
        asked.append(places)
        return [tensors_of(place) for place in places]

    TensorCache(tmp_path).get_all(KEYS[:3], make)
    found = TensorCache(tmp_path).get_all(KEYS[:5], make)
    assert asked == [[0, 1, 2], [3, 4]]
    assert values(found) == [0, 1, 2, 3, 4]


def test_a_broken_entry_is_made_again(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    cache.get_all(KEYS[:2], lambda places: [tensors_of(place) for place in places])
    for entry in tmp_path.iterdir():
        entry.write_bytes(entry.read_bytes()[:100])
    assert values(cache.get_all(KEYS[:2], lambda places: [tensors_of(place + 7) for place in places])) == [7, 8]
    assert values(cache.get_all(KEYS[:2], lambda places: [tensors_of(place + 9) for place in places])) == [7, 8]


def test_writers_at_the_same_time_leave_whole_entries(tmp_path: Path) -> None:
    """All begin on an empty folder at once, and each reads it again and again while the others still write."""
    together = threading.Barrier(WRITERS)

    def fill(_: int) -> list[list[float]]:
        cache = TensorCache(tmp_path)
        together.wait()
        return [values(cache.get_all(KEYS, lambda places: [tensors_of(p) for p in places])) for _ in range(5)]

    with ThreadPoolExecutor(WRITERS) as pool:
        found = [rows for writer in pool.map(fill, range(WRITERS)) for rows in writer]
    assert all(rows == list(range(len(KEYS))) for rows in found)
    assert len(list(tmp_path.iterdir())) == len(KEYS)  # and nothing half-written beside them
