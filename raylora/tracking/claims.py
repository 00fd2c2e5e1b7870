"""What a LoRA's score is worth beside another's: what it was measured by, on which images, and what its trials learned.

Scores of two searches compare only where all of that is alike. Which images the handed-over LoRA itself has learned
does not count: it is trained on all of them in the end, and its score is from before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

FORMAT = 1
"""Of what is written: a later raylora that writes otherwise says so, and an earlier one then compares nothing."""
DIGEST_LENGTH = 32
"""Hexadecimal characters of a sha256 that tell images apart, 128 bits."""
DIGEST = re.compile(r"[0-9a-f]{32,64}")
SHOWN = 12
"""Characters of a digest in a message."""
MOST_NAMED = 4
SAME_SPLIT = "search again with --split and the split.json of the other search"


@dataclass(frozen=True)
class Fold:
    """The images of one split, by their digests."""

    judges: Mapping[str, str]
    """Of each held-out image that measures look at, its caption's digest."""
    learned: frozenset[str]
    """What a trial's LoRA was trained on, regularization images included."""


@dataclass(frozen=True)
class Claim:
    """One LoRA's."""

    score: float
    seeds: int
    """How many new seeds the score is the mean of; 0: it is of the training that was chosen by it."""
    judged_by: Mapping[str, Any]
    """By dotted path, the settings that measures and score depend on; base model and encoder by their weights."""
    folds: Sequence[Fold]
    names: Mapping[str, str] = field(default_factory=dict)
    """What is called how that `judged_by` has digests of: told, and never compared."""

    @property
    def held_out(self) -> str:
        """One digest of all images that it was judged by, with their captions."""
        return digest_of(sorted([[*pair] for pair in fold.judges.items()] for fold in self.folds))

    @property
    def measure(self) -> str:
        """One digest of all settings that it was judged by."""
        return digest_of(self.judged_by)

    def as_dict(self) -> dict[str, Any]:
        folds = [{"judges": dict(fold.judges), "learned": sorted(fold.learned)} for fold in self.folds]
        told = {"score": self.score, "seeds": self.seeds, "judged_by": dict(self.judged_by)}
        return {"format": FORMAT, **told, "names": dict(self.names), "folds": folds}


def read_claim(told: Mapping[str, Any]) -> Claim:
    """The inverse of `Claim.as_dict`.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is none, or of a later format.
    """
    if told["format"] != FORMAT:
        raise ValueError(f"is of format {told['format']}")
    folds = [
        Fold({str(k): str(v) for k, v in one["judges"].items()}, frozenset(one["learned"])) for one in told["folds"]
    ]
    names = {str(path): str(name) for path, name in told.get("names", {}).items()}  # claims of before have none
    claim = Claim(float(told["score"]), int(told["seeds"]), dict(told["judged_by"]), folds, names)
    if not isfinite(claim.score) or not folds:
        raise ValueError("has no score")
    return claim


def short_digest(text: str) -> str:
    """A digest of a text, or of what has one already, as claims have them."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def digest_of(content: Any) -> str:
    """A digest of whatever JSON can say, wherever in it keys stand."""
    return short_digest(json.dumps(content, sort_keys=True))


def why_not_better(new: Claim | None, holder: Claim | None, who: str) -> str | None:
    """Why `new` may not take the place of `holder`: it isn't better, or that can't be told; None if it may.

    Args:
        who: what the holder is called, such as `version 3`.
    """
    if new is None:
        return "nothing says what it was judged by, as of LoRAs from before raylora kept that"
    if holder is None:
        return f"nothing says what {who} was judged by, as of models that raylora has not registered"
    return _incomparable(new, holder, who) or _not_above(new, holder, who)


def _incomparable(new: Claim, holder: Claim, who: str) -> str | None:
    if differing := _differing(new, holder):
        return f"scores don't compare: it was judged by other settings than {who}: {differing}"
    if told := _seen(new, holder, "its", f"{who} was") or _seen(holder, new, f"{who}'s", "it was"):
        return f"scores don't compare: {told}; {SAME_SPLIT}"
    ours, theirs = _images(new), _images(holder)
    if ours != theirs:
        return (
            f"scores don't compare: it was judged by {len(ours)} images and {who} by {len(theirs)}, of which "
            f"{len(ours & theirs)} are the same; {SAME_SPLIT}"
        )
    if new.held_out != holder.held_out:
        how = "in other folds" if _captions(new) == _captions(holder) else "with other captions"
        return f"scores don't compare: it was judged by the same {len(ours)} images as {who}, but {how}"
    return None


def _differing(new: Claim, holder: Claim) -> str:
    """`sampling.steps 25 and not 30, …`: what differs, with both values."""
    ours, theirs = new.judged_by, holder.judged_by
    paths = [path for path in dict.fromkeys([*ours, *theirs]) if ours.get(path) != theirs.get(path)]
    told = [f"{path} {_value(new, path)} and not {_value(holder, path)}" for path in paths[:MOST_NAMED]]
    more = [f"{len(paths) - MOST_NAMED} more"] if len(paths) > MOST_NAMED else []
    return ", ".join([*told, *more])


def _value(claim: Claim, path: str) -> str:
    """A setting's value; of a model its name, with the beginning of its weights' digest."""
    value, name = claim.judged_by.get(path), claim.names.get(path, "")
    text = "unset" if value is None else str(value)
    if not DIGEST.fullmatch(text):
        return (name or text)[:100]
    digest = f"{text[:SHOWN]}…"
    return f"{name[:100]} (weights {digest})" if name else digest


def _seen(learner: Claim, judged: Claim, whose: str, judged_was: str) -> str | None:
    """How many of the images that one was judged by the other's trials have learned, where any.

    Fold by fold where both have the same folds: each of these learns what the others hold out.
    """
    pairs = zip(_by_images(learner), _by_images(judged), strict=False)
    if _held_sets(learner) == _held_sets(judged):
        learned = {image for one, other in pairs for image in one.learned & set(other.judges)}
    else:
        learned = _images(judged) & {image for fold in learner.folds for image in fold.learned}
    if not learned:
        return None
    return (
        f"{whose} trials have learned {len(learned)} of the {len(_images(judged))} images that {judged_was} judged by"
    )


def _by_images(claim: Claim) -> list[Fold]:
    return sorted(claim.folds, key=lambda fold: sorted(fold.judges))


def _held_sets(claim: Claim) -> list[list[str]]:
    return [sorted(fold.judges) for fold in _by_images(claim)]


def _images(claim: Claim) -> set[str]:
    return {image for fold in claim.folds for image in fold.judges}


def _captions(claim: Claim) -> set[tuple[str, str]]:
    return {pair for fold in claim.folds for pair in fold.judges.items()}


def _not_above(new: Claim, holder: Claim, who: str) -> str | None:
    if not new.seeds and holder.seeds:
        return (
            f"scores don't compare: its {new.score:.3f} is of the one training that was chosen by it, the "
            f"{holder.score:.3f} of {who} a mean over {_seeds(holder)}; search with search.confirm_trials above 0"
        )
    if new.score > holder.score:
        return None
    return f"its score {new.score:.3f} is not above the {holder.score:.3f} of {who}, by the same measures and images"


def _seeds(claim: Claim) -> str:
    return f"{claim.seeds} new seed{'s' * (claim.seeds != 1)}"


def digests(texts: Iterable[str]) -> frozenset[str]:
    """Images' own digests as claims have them."""
    return frozenset(text[:DIGEST_LENGTH] for text in texts)
