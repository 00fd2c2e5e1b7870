"""How the plan says what follows the trials."""

from __future__ import annotations

import pytest

from raylora.execution.plan import _again_in_words


@pytest.mark.parametrize(
    ("best", "own", "seeds", "told"),
    [
        (1, True, 1, "the best trial and the guide's own settings once more, with 1 new seed each"),
        (1, False, 1, "the best trial once more, with 1 new seed"),
        (1, False, 2, "the best trial once more, with 2 new seeds"),
        (3, True, 2, "the best 3 trials and the guide's own settings once more, with 2 new seeds each"),
        (3, False, 1, "the best 3 trials once more, with 1 new seed each"),
    ],
)
def test_what_is_trained_again_is_said_with_right_plurals(best: int, own: bool, seeds: int, told: str) -> None:
    assert _again_in_words(best, own, seeds) == f"{told}, for as many images as were best"
