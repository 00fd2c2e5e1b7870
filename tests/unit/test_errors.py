"""Errors that users are told."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from raylora.errors import CaptionError, NotInSpaceError


@pytest.mark.parametrize(
    "error", [CaptionError(Path("a.png"), "a.txt: is empty"), NotInSpaceError("lora.rank", "lora.rank: 3 is no choice")]
)
def test_an_error_goes_from_process_to_process_whole(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
