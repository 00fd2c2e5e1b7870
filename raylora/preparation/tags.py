"""Tags in captions: taken apart, removed, added and replaced, by name or by pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from raylora.dataset.imagefolder import read_text
from raylora.errors import ConfigError
from raylora.files import resolved
from raylora.patience import within
from raylora.redaction import cleared, one_line

MOST_LIST_BYTES = 2**20
LIST_MARK = "@"
"""Begins the name of a file with one entry in each line."""
MOST_MATCH_S = 1.0
"""Of the processor, for one tag: some patterns take twice as long for each letter more."""
LONGEST_QUOTE = 60

Wanted = Callable[[str], bool]
"""Whether a tag is meant."""
Replaced = Callable[[str], list[str]]
"""The tags that come in a tag's place: itself alone, where it isn't meant."""


def split_tags(caption: str) -> list[str]:
    """The parts of a caption between commas, without empty ones."""
    return [" ".join(tag.split()) for tag in caption.split(",") if tag.strip()]


def key_of(tag: str) -> str:
    """What two spellings of one tag have in common: `Blue_Eyes` is `blue eyes`."""
    return " ".join(tag.replace("_", " ").split()).casefold()


def parse_wanted(entry: str) -> Wanted:
    """A tag's name, or between slashes a pattern of Python's `re` for all of it, capitals or not: `/.* hair/`.

    Raises:
        ValueError: a pattern that doesn't compile, or no single tag; the message begins with the entry.
    """
    if _is_pattern(entry):
        pattern = _compiled(entry)
        return lambda tag: _match(pattern, tag) is not None
    if len(named := split_tags(entry)) != 1:
        raise ValueError(f"{_quoted(entry)} must be one tag, or a /pattern/ between slashes")
    key = key_of(named[0])
    return lambda tag: key_of(tag) == key


def _is_pattern(entry: str) -> bool:
    return len(entry) > 2 and entry.startswith("/") and entry.endswith("/")


def _quoted(entry: str) -> str:
    """Not as Python has it: that doubles a pattern's backslashes."""
    return f"'{one_line(entry if len(entry) <= LONGEST_QUOTE else f'{entry[:LONGEST_QUOTE]}…')}'"


def as_entry(tag: str) -> str:
    """What `--remove` reads as this very tag: `/m/` would be a pattern, `@name` a file and `-x` an option."""
    return f"/{re.escape(tag)}/" if _is_pattern(tag) or tag.startswith((LIST_MARK, "-")) else tag


def _match(pattern: re.Pattern[str], tag: str) -> re.Match[str] | None:
    """How a pattern fits all of a tag, with underscores or with blanks in their places."""
    return _fitted(pattern, tag) or _fitted(pattern, tag.replace("_", " "))


def _fitted(pattern: re.Pattern[str], tag: str) -> re.Match[str] | None:
    try:
        with within(MOST_MATCH_S):
            return pattern.fullmatch(tag)
    except TimeoutError:
        raise ConfigError(
            f"/{pattern.pattern[:LONGEST_QUOTE]}/: takes over {MOST_MATCH_S:g} s to tell whether it fits "
            f"{tag[:LONGEST_QUOTE]!r}; write it without repeats within repeats, such as (a+)+"
        ) from None


def _compiled(entry: str) -> re.Pattern[str]:
    try:
        return re.compile(entry[1:-1], re.IGNORECASE)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        raise ValueError(f"{_quoted(entry)} is no pattern of Python's re: {error}") from None


def parse_replacement(entry: str) -> Replaced:
    """`OLD=NEW`, where OLD is a tag or a /pattern/. The last `=` divides, since there are tags such as `=_=`.

    Behind a pattern `\\1` or `\\g<name>` in NEW is what that group of it fits, as in `re.sub`.

    Raises:
        ValueError: no such pair, or a group that the pattern hasn't; the message begins with the entry.
    """
    old, equals, new = entry.rpartition("=")
    old = old.strip()
    if not equals or not old or not split_tags(new):
        raise ValueError(f"{_quoted(entry)} must be OLD=NEW; to drop a tag use --remove")
    if _is_pattern(old):
        return _expanding(_compiled(old), new, entry)
    wanted, tags = parse_wanted(old), split_tags(new)
    return lambda tag: tags if wanted(tag) else [tag]


def _expanding(pattern: re.Pattern[str], new: str, entry: str) -> Replaced:
    try:
        pattern.sub(new, "")  # which reads all of it, whether the pattern fits or not
    except (re.error, IndexError) as error:
        raise ValueError(
            f"{_quoted(entry)}: {error} in what follows the =; groups of the pattern are \\1 or \\g<name>, and a "
            "backslash itself is two"
        ) from None

    def replaced(tag: str) -> list[str]:
        fitted = _match(pattern, tag)
        return split_tags(cleared(fitted.expand(new))) if fitted else [tag]

    return replaced


def parse_tag(entry: str) -> str:
    """A tag as captions have it: without blanks or commas around it.

    Raises:
        ValueError: it is none, or several; the message begins with the entry.
    """
    if len(found := split_tags(entry)) != 1:
        raise ValueError(f"{_quoted(entry)} must be one tag, without commas")
    return found[0]


def read_entries(entries: Iterable[str], parse: Callable[[str], object]) -> tuple[str, ...]:
    """Entries with the lines of list files, `@FILE`, in their place; `~` begins a path at home.

    Args:
        parse: raises ValueError of a line that is no entry.

    Raises:
        DatasetError: a list that can't be read.
        ConfigError: a line of one is no entry.
    """
    found: list[str] = []
    for entry in entries:
        found += _lines_of(resolved(Path(entry[1:])), parse) if _is_list(entry) else [entry.strip()]
    return tuple(found)


def _lines_of(file: Path, parse: Callable[[str], object]) -> Iterator[str]:
    for number, line in enumerate(read_text(file, MOST_LIST_BYTES).splitlines(), 1):
        if line := line.strip():
            try:
                parse(line)
            except ValueError as error:
                raise ConfigError(f"{file}, line {number}: {error}") from None
            yield line


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
        for replaced in self._replacements:
            tags = [part for tag in tags for part in replaced(tag)]
        tags = [tag for tag in tags if not any(wanted(tag) for wanted in self._unwanted)]
        return ", ".join(_with_trigger(distinct([*tags, *self.add]), self.trigger))

    @cached_property
    def _replacements(self) -> list[Replaced]:
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
