"""What is said of the pictures: captions that are missing, can't be read or are all the same, and the trigger word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from raylora.dataset.findings import Finding, names
from raylora.dataset.folder import Picture, has_word
from raylora.redaction import one_line

SAME_SHARE = 0.5
"""Of the written captions: a majority that says one thing says nothing of what differs."""
TRIGGER_SHARE = 0.75
"""Of the written captions: a word that so many begin with is meant to begin all."""
COMMON_WORDS = """
a an the this that these there it its he his she her they their two three several some one in on at of with
photo photograph photography picture image portrait close-up closeup selfie screenshot painting drawing illustration
sketch render cartoon anime close view shot scene black white old young
man men woman women person people girl girls boy boys child baby lady guy male female cat dog
1girl 1boy 1girls 1boys 2girls 2boys multiple solo masterpiece best highres absurdres simple looking
"""
NO_TRIGGERS = frozenset(COMMON_WORDS.split())
"""First words of captioners, taggers and sentences: such a word is none that gathers what is learned."""
LONGEST_QUOTE = 40


def check_captions(
    pictures: Sequence[Picture], root: Path, trigger: str | None, unreadable: Collection[Path] = ()
) -> list[Finding]:
    """What was written, set against what training would have.

    Args:
        unreadable: pictures whose captions can't be read, which is told by itself.
    """
    bare = [picture for picture in pictures if not picture.written and picture.path not in unreadable]
    return [*_missing(bare, root), *check_written(pictures, root, trigger)]


def check_written(pictures: Sequence[Picture], root: Path, trigger: str | None) -> list[Finding]:
    """The same of the captions that there are."""
    captioned = [(picture, picture.written) for picture in pictures if picture.written]
    return [*_same(captioned, root), *_trigger(captioned, root, trigger)]


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


def _same(captioned: Sequence[tuple[Picture, str]], root: Path) -> list[Finding]:
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


def _trigger(captioned: Sequence[tuple[Picture, str]], root: Path, trigger: str | None) -> list[Finding]:
    """The word that is to call up what was learned."""
    if not captioned:
        return []
    word = trigger or likely_trigger([text for _, text in captioned])
    if word is None:
        return [
            Finding("note", "trigger", "no word begins all captions", "nothing gathers what is learned in one word",
                    "name one that is no other word: --set dataset.trigger=sks puts it first in each")
        ]  # fmt: skip
    lacking = [picture for picture, text in captioned if not _has(text, word, as_written=trigger is not None)]
    if not lacking:
        return []
    found = f"{len(lacking)} of {len(captioned)} captions lack {_quoted(word)}"
    if trigger:
        return [Finding("note", "trigger", found, "it is put first in them", "nothing to do", names(lacking, root))]
    effect = "the others begin with it; what these show is learned under other words"
    mend = f"if it is the trigger word, --set dataset.trigger={word} puts it first in each"
    return [Finding("warning", "trigger", found, effect, mend, names(lacking, root))]


def _has(text: str, word: str, as_written: bool) -> bool:
    """Whether a caption has the word; `dataset.trigger` is put first where it isn't there as it is written."""
    return has_word(text, word) if as_written else has_word(text.casefold(), word.casefold())


def likely_trigger(texts: Sequence[str]) -> str | None:
    """The word or tag's first word that most captions begin with, in its commonest spelling."""
    firsts = Counter(words[0].strip(",.;:") for text in texts if (words := text.split()))
    spellings: dict[str, Counter[str]] = {}
    for word, count in firsts.items():
        spellings.setdefault(word.casefold(), Counter())[word] = count
    word, spelled = max(spellings.items(), key=lambda one: one[1].total(), default=("", Counter[str]()))
    if not word or word in NO_TRIGGERS or spelled.total() < TRIGGER_SHARE * len(texts):
        return None
    return spelled.most_common(1)[0][0]


def _quoted(text: str) -> str:
    text = one_line(text)
    return f"“{text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + '…'}”"


def _captions(count: int) -> str:
    return "1 caption is" if count == 1 else f"{count} captions are"
