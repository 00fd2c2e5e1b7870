"""When one LoRA may take another's place: by recorded scores of the same measures on the same images, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from raylora.tracking.claims import Claim, Fold, digests, read_claim, why_not_better

SETTINGS = {"model.base_model": "b" * 64, "sampling.steps": 25, "evaluation.score.w_sim": 0.5}


def fold(held: str, learned: str, caption: str = "c") -> Fold:
    """Images by a letter each."""
    return Fold({image: caption + image for image in held}, frozenset(learned))


def claim(score: float, held: str = "abc", learned: str = "defghi", **more: Any) -> Claim:
    return replace(Claim(score, 2, SETTINGS, [fold(held, learned)]), **more)


def refused(new: Claim | None, holder: Claim | None) -> str:
    return why_not_better(new, holder, "version 1") or ""


def test_the_higher_score_on_the_same_images_wins() -> None:
    assert refused(claim(1.2), claim(1.1)) == ""
    assert "1.100 is not above the 1.200 of version 1" in refused(claim(1.1), claim(1.2))
    assert "is not above" in refused(claim(1.1), claim(1.1))


def test_other_training_images_do_not_matter_if_no_trial_has_seen_the_judges() -> None:
    assert refused(claim(1.2, learned="xyz"), claim(1.1)) == ""


@pytest.mark.parametrize(
    ("new", "holder", "words"),
    [
        (claim(9, "abd", "cefghi"), claim(1), "its trials have learned 1 of the 3 images that version 1 was judged by"),
        (claim(9, "abd", "ef"), claim(1), "version 1's trials have learned 1 of the 3 images that it was judged by"),
        (claim(9, learned="adef"), claim(1), "its trials have learned 1 of the 3 images that version 1 was judged by"),
        (claim(9, "ab", "ef"), claim(1), "judged by 2 images and version 1 by 3, of which 2 are the same"),
        (claim(9, folds=[fold("abc", "de", "other")]), claim(1), "images as version 1, but with other captions"),
        (claim(9, folds=[fold("abc", "x"), fold("xy", "z")]), claim(1), "judged by 5 images and version 1 by 3"),
    ],
)  # fmt: skip
def test_other_judges_are_no_comparison(new: Claim, holder: Claim, words: str) -> None:
    assert words in refused(new, holder)
    assert "scores don't compare" in refused(new, holder) and "is not above" not in refused(new, holder)


def test_each_fold_learns_what_the_others_hold_out() -> None:
    folds = [fold("ab", "cdef"), fold("cd", "abef"), fold("ef", "abcd")]
    other_order = [folds[2], folds[0], folds[1]]
    assert refused(claim(2, folds=folds), claim(1, folds=other_order)) == ""
    assert "its trials have learned" in refused(claim(2, folds=folds), claim(1, "ab", "cdef"))
    others = [fold("ac", "bdef"), fold("bd", "acef"), fold("ef", "abcd")]
    assert "have learned" in refused(claim(2, folds=folds), claim(1, folds=others))


def test_other_measures_are_named_with_both_values() -> None:
    new = claim(9, judged_by={**SETTINGS, "sampling.steps": 30, "model.base_model": "a" * 64})
    told = refused(new, claim(1))
    assert "judged by other settings than version 1: model.base_model aaaaaaaaaaaa… and not bbbbbbbbbbbb…" in told
    assert "sampling.steps 30 and not 25" in told and "w_sim" not in told


def test_a_score_that_was_chosen_for_being_high_does_not_beat_a_mean_over_new_seeds() -> None:
    assert "a mean over 2 new seeds; search with search.confirm_trials" in refused(claim(9, seeds=0), claim(1))
    assert refused(claim(1.2), claim(1.1, seeds=0)) == ""
    assert refused(claim(1.2, seeds=0), claim(1.1, seeds=0)) == ""


def test_what_says_nothing_of_itself_is_not_compared() -> None:
    assert "nothing says what it was judged by" in refused(None, claim(1))
    assert "nothing says what version 1 was judged by" in refused(claim(1), None)


def test_a_claim_is_read_as_it_was_written() -> None:
    told = claim(1.25, folds=[fold("ab", "cd"), fold("cd", "ab")])
    again = read_claim(json.loads(json.dumps(told.as_dict())))
    assert again == told
    assert (again.held_out, again.measure) == (told.held_out, told.measure)
    assert claim(1, "abd").held_out != claim(1).held_out == claim(2, learned="x").held_out


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told: told.update(format=2),
        lambda told: told.update(score="nan"),
        lambda told: told.update(folds=[]),
        lambda told: told.update(folds=[{"judges": {}}]),
        lambda told: told.pop("judged_by"),
    ],
)
def test_what_is_no_claim_is_refused(spoil: Callable[[dict[str, Any]], Any]) -> None:
    told = claim(1).as_dict()
    spoil(told)
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        read_claim(told)


def test_digests_are_short() -> None:
    assert digests(["a" * 64]) == {"a" * 32}


def test_models_are_told_by_their_names_and_compared_without() -> None:
    names = {"model.base_model": "some/base@0123456789ab", "evaluation.encoder": "some/judge"}
    settings = {**SETTINGS, "model.base_model": "a" * 64, "evaluation.encoder": "c" * 32}
    mine = claim(9, judged_by=settings, names=names)
    other = claim(1, judged_by={**settings, "model.base_model": "some/other", "evaluation.encoder": "d" * 32})
    told = refused(mine, other)
    assert "model.base_model some/base@0123456789ab (weights aaaaaaaaaaaa…) and not some/other" in told
    assert "evaluation.encoder some/judge (weights cccccccccccc…) and not dddddddddddd…" in told
    assert refused(mine, claim(1, judged_by=settings)) == ""
    assert read_claim(json.loads(json.dumps(mine.as_dict()))).names == names
    without = {key: value for key, value in mine.as_dict().items() if key != "names"}  # as raylora wrote them before
    assert read_claim(without) == replace(mine, names={})
