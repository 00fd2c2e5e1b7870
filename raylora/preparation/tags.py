"""Tags in captions: taken apart, removed, added and replaced, by name or by pattern."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType

from raylora.dataset.imagefolder import read_text
from raylora.errors import ConfigError

MOST_LIST_BYTES = 2**20
LIST_MARK = "@"
"""Begins the name of a file with one entry in each line."""
MOST_MATCH_S = 1.0
"""Of the processor, for one tag: some patterns take twice as long for each letter more."""
LONGEST_QUOTE = 60

Wanted = Callable[[str], bool]
"""Whether a tag is meant."""


def split_tags(caption: str) -> list[str]:
    """The parts of a caption between commas, without empty ones."""
    return [" ".join(tag.split()) for tag in caption.split(",") if tag.strip()]


def key_of(tag: str) -> str:
    """What two spellings of one tag have in common: `Blue_Eyes` is `blue eyes`."""
    return " ".join(tag.replace("_", " ").split()).casefold()


def parse_wanted(entry: str) -> Wanted:
    """A tag's name, or between slashes a pattern of Python's `re` for all of it, capitals or not: `/.* hair/`.

    Raises:
        ValueError: a pattern that doesn't compile, or no single tag.
    """
    if len(entry) > 2 and entry.startswith("/") and entry.endswith("/"):
        pattern = _compiled(entry[1:-1])
        return lambda tag: _fits(pattern, tag) or _fits(pattern, tag.replace("_", " "))
    if len(named := split_tags(entry)) != 1:
        raise ValueError("must be one tag, or a /pattern/ between slashes")
    key = key_of(named[0])
    return lambda tag: key_of(tag) == key


def _fits(pattern: re.Pattern[str], tag: str) -> bool:
    try:
        with _bounded():
            return pattern.fullmatch(tag) is not None
    except TimeoutError:
        raise ConfigError(
            f"/{pattern.pattern[:LONGEST_QUOTE]}/: takes over {MOST_MATCH_S:g} s to tell whether it fits "
            f"{tag[:LONGEST_QUOTE]!r}; write it without repeats within repeats, such as (a+)+"
        ) from None


@contextmanager
def _bounded() -> Iterator[None]:
    """TimeoutError after `MOST_MATCH_S`: `re` looks for signals while it tries. They reach the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_MATCH_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        raise ValueError(f"is no pattern of Python's re: {error}") from None


def parse_replacement(entry: str) -> tuple[Wanted, str]:
    """`OLD=NEW`, where OLD is a tag or a /pattern/. The last `=` divides, since there are tags such as `=_=`.

    Raises:
        ValueError: no such pair.
    """
    old, equals, new = entry.rpartition("=")
    if not equals or not old.strip() or not split_tags(new):
        raise ValueError("must be OLD=NEW; to drop a tag use --remove")
    return parse_wanted(old.strip()), ", ".join(split_tags(new))


def read_entries(entries: Iterable[str]) -> tuple[str, ...]:
    """Entries with the lines of list files, `@FILE`, in their place.

    Raises:
        DatasetError: a list that can't be read.
    """
    found: list[str] = []
    for entry in entries:
        lines = read_text(Path(entry[1:]), MOST_LIST_BYTES).splitlines() if _is_list(entry) else [entry]
        found += [line.strip() for line in lines if line.strip() or not _is_list(entry)]
    return tuple(found)


def _is_list(entry: str) -> bool:
    """`@_@` is a tag."""
    return entry.startswith(LIST_MARK) and len(entry) > 1 and not re.fullmatch(r"@_.", entry)


@dataclass(frozen=True)
class Edits:
    """What becomes of every caption, in this order: replaced, removed, added, the trigger first."""

    replace: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    trigger: str | None = None

    def __call__(self, caption: str) -> str:
        """The edited caption; the same letter by letter if nothing is asked for.

        Raises:
            ConfigError: a pattern takes too long.
        """
        if not (self.replace or self.remove or self.add or self.trigger):
            return caption
        tags = split_tags(caption)
        for wanted, new in self._replacements:
            tags = [part for tag in tags for part in (split_tags(new) if wanted(tag) else [tag])]
        tags = [tag for tag in tags if not any(wanted(tag) for wanted in self._unwanted)]
        return ", ".join(_with_trigger(distinct([*tags, *self.add]), self.trigger))

    @cached_property
    def _replacements(self) -> list[tuple[Wanted, str]]:
        return [parse_replacement(entry) for entry in self.replace]

    @cached_property
    def _unwanted(self) -> list[Wanted]:
        return [parse_wanted(entry) for entry in self.remove]


def distinct(tags: Sequence[str]) -> list[str]:
    """Each tag once, where it comes first."""
    found: dict[str, str] = {}
    for tag in tags:
        found.setdefault(key_of(tag), tag)
    return list(found.values())


def _with_trigger(tags: Sequence[str], trigger: str | None) -> list[str]:
    """The trigger first, and nowhere else; a first tag that begins with it, as in `sks portrait`, does for it."""
    if trigger is None or (tags and re.match(rf"{re.escape(trigger)}(?!\w)", tags[0])):
        return list(tags)
    return [trigger, *(tag for tag in tags if key_of(tag) != key_of(trigger))]
