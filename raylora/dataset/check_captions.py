"""What is said of the pictures: captions that are missing, can't be read or are all the same, and the trigger word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from raylora.dataset.findings import Finding, names
from raylora.dataset.folder import Picture, has_word
from raylora.redaction import one_line

SAME_SHARE = 0.5
"""Of the written captions: a majority that says one thing says nothing of what differs."""
TRIGGER_SHARE = 0.75
"""Of the written captions: a word that so many begin with is meant to begin all."""
NO_TRIGGERS = ("a", "an", "the", "this", "there", "1girl", "1boy", "solo")
"""First words of captioners and taggers."""
LONGEST_QUOTE = 40


def check_captions(
    pictures: Sequence[Picture], written: Sequence[str], root: Path, trigger: str | None
) -> list[Finding]:
    """What was written, set against what training would have.

    Args:
        pictures: with the captions that they are learned with.
        written: the captions as their files have them, "" where there is none.
    """
    captioned = [(picture, text) for picture, text in zip(pictures, written, strict=True) if text]
    bare = [picture for picture, text in zip(pictures, written, strict=True) if not text]
    return [*_missing(bare, root), *check_same(captioned, root), *check_trigger(captioned, root, trigger)]


def _missing(bare: Sequence[Picture], root: Path) -> list[Finding]:
    """An error where nothing serves for a caption, as it is for training."""
    found = []
    if nameless := [picture for picture in bare if not picture.caption]:
        mend = f"write them into {nameless[0].path.stem}.txt and so on, or --set dataset.trigger=WORD for all"
        found.append(
            Finding("error", "captions", f"{_captions(len(nameless))} missing", "nothing says what is learned, so no "
                    "training begins", mend, names(nameless, root))
        )  # fmt: skip
    if served := [picture for picture in bare if picture.caption]:
        effect = f"{_quoted(served[0].caption)} serves for each, so that all that they show goes into these words"
        found.append(
            Finding("warning", "captions", f"{_captions(len(served))} missing", effect,
                    "write captions that say what is to stay changeable", names(served, root))
        )  # fmt: skip
    return found


def check_same(captioned: Sequence[tuple[Picture, str]], root: Path) -> list[Finding]:
    """One caption for most pictures."""
    if len(captioned) < 2:
        return []
    (text, count), *_ = Counter(text for _, text in captioned).most_common(1)
    if count < 2 or count < SAME_SHARE * len(captioned):
        return []
    same = [picture for picture, caption in captioned if caption == text]
    return [
        Finding("warning", "captions", f"{count} of {len(captioned)} captions are all {_quoted(text)}",
                "all that these pictures show goes into the same words, background and clothes too",
                "say in each what is to stay changeable, such as pose, clothes, background", names(same, root))
    ]  # fmt: skip


def check_trigger(captioned: Sequence[tuple[Picture, str]], root: Path, trigger: str | None) -> list[Finding]:
    """The word that is to call up what was learned."""
    if not captioned:
        return []
    word = trigger or likely_trigger([text for _, text in captioned])
    if word is None:
        return [
            Finding("note", "trigger", "no word begins all captions", "nothing gathers what is learned in one word",
                    "name one that is no other word: --set dataset.trigger=sks puts it first in each")
        ]  # fmt: skip
    lacking = [picture for picture, text in captioned if not has_word(text, word)]
    if not lacking:
        return []
    found = f"{len(lacking)} of {len(captioned)} captions lack {_quoted(word)}"
    if trigger:
        return [Finding("note", "trigger", found, "it is put first in them", "nothing to do", names(lacking, root))]
    effect = "the others begin with it; what these show is learned under other words"
    mend = f"if it is the trigger word, --set dataset.trigger={word} puts it first in each"
    return [Finding("warning", "trigger", found, effect, mend, names(lacking, root))]


def likely_trigger(texts: Sequence[str]) -> str | None:
    """The word or tag's first word that most captions begin with."""
    firsts = Counter(words[0].strip(",.;:").lower() for text in texts if (words := text.split()))
    word, count = max(firsts.items(), key=lambda one: one[1], default=("", 0))
    return word if word and word not in NO_TRIGGERS and count >= TRIGGER_SHARE * len(texts) else None


def _quoted(text: str) -> str:
    text = one_line(text)
    return f"“{text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + '…'}”"


def _captions(count: int) -> str:
    return "1 caption is" if count == 1 else f"{count} captions are"
