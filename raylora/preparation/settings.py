"""What `raylora prepare` may be told, and what it does where nothing is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from PIL import ImageColor
from pydantic import Field, ValidationError, field_validator, model_validator

from raylora import __version__
from raylora.config import Size
from raylora.config_files import in_words, is_echo
from raylora.config_section import Section
from raylora.dataset.folder import MOST_REPEATS
from raylora.errors import ConfigError, DatasetError
from raylora.files import read_mapping
from raylora.preparation.tags import parse_replacement, parse_tag, parse_wanted
from raylora.redaction import is_text, one_line

OPTIONS = {
    "crop": "--crop",
    "sizes": "--size",
    "upscale": "--upscale",
    "background": "--background",
    "caption": "--caption",
    "caption_model": "--caption-model",
    "threshold": "--threshold",
    "character_threshold": "--character-threshold",
    "existing": "--existing",
    "replace": "--replace",
    "remove": "--remove",
    "add": "--add",
    "trigger": "--trigger",
    "repeats": "--repeats",
}
"""The option of each setting."""
THRESHOLD, CHARACTER_THRESHOLD = 0.6, 0.85
"""The guide's, and the one that the WD taggers' authors use for names, which are wrong more often."""
LONGEST_QUOTE = 100
OF_A_CAPTIONER = ("caption_model", "threshold", "character_threshold")
"""Settings that mean nothing to another one."""


class PrepareSettings(Section):
    """All that decides what is written, the pictures aside; a manifest has it, so that it can be done again."""

    crop: Literal["focus", "center", "none"] = Field("focus", description="Where pictures are cut.")
    sizes: tuple[Size, ...] = Field(((512, 512),), min_length=1, description="Width and height in px, multiples of 64.")
    upscale: bool = Field(False, description="Enlarge pictures that are too small; else they are left out.")
    background: str = Field("white", description="Colour below transparent parts: a name, or #rrggbb.")
    caption: Literal["blip", "tags", "none"] = Field("none", description="Who writes captions.")
    caption_model: str | None = Field(None, min_length=1, description="Hub id or folder; unset: the captioner's own.")
    threshold: float | None = Field(None, ge=0, le=1, description="How sure a tag must be; unset: 0.6.")
    character_threshold: float | None = Field(None, ge=0, le=1, description="The same of names; unset: 0.85.")
    existing: Literal["keep", "replace", "extend"] = Field(
        "keep", description="What becomes of captions that are there."
    )
    replace: tuple[str, ...] = Field((), description="OLD=NEW.")
    remove: tuple[str, ...] = Field((), description="Tags or /patterns/.")
    add: tuple[str, ...] = Field((), description="Tags.")
    trigger: str | None = Field(None, min_length=1, description="Word put first in every caption.")
    repeats: int | None = Field(None, ge=1, le=MOST_REPEATS, description="In the folders' names; unset: theirs, or 10.")

    @field_validator("background")
    @classmethod
    def _is_a_colour(cls, value: str) -> str:
        try:
            known = len(ImageColor.getrgb(value)) == 3
        except ValueError:
            known = False
        if not known:
            raise ValueError("must be a colour such as white, gray or #20a0ff")
        return value

    @field_validator("remove")
    @classmethod
    def _can_be_wanted(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            parse_wanted(entry)
        return entries

    @field_validator("replace")
    @classmethod
    def _can_be_replaced(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            parse_replacement(entry)
        return entries

    @field_validator("replace", "remove", "add")
    @classmethod
    def _can_be_written(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(is_text, entries)):
            raise ValueError("must be lines of text in UTF-8, without control characters")
        return entries

    @field_validator("add")
    @classmethod
    def _are_tags(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(parse_tag, entries))

    @field_validator("trigger")
    @classmethod
    def _is_a_tag(cls, value: str | None) -> str | None:
        return None if value is None else parse_tag(value)

    @model_validator(mode="after")
    def _is_heard(self) -> PrepareSettings:
        """An option that nothing would listen to is a misunderstanding."""
        if self.caption == "none" and self.caption_model:
            raise ValueError("caption_model: needs a captioner; add --caption blip or --caption tags, or leave it out")
        if self.caption == "none" and self.existing == "extend":
            raise ValueError("existing: extend adds a captioner's words; add --caption tags or --caption blip")
        for name in ("threshold", "character_threshold"):
            if self.caption != "tags" and getattr(self, name) is not None:
                raise ValueError(f"{name}: only a tagger has one; add --caption tags, or leave it out")
        return self


def build_settings(given: Mapping[str, Any], like: Path | None = None) -> PrepareSettings:
    """Settings from options; what wasn't given is as in an earlier preparation, if one is named.

    Args:
        given: by the names of `PrepareSettings`; None where nothing was said.
        like: the manifest of an earlier preparation.

    Raises:
        ConfigError: everything that is wrong, at once.
        DatasetError: no manifest.
    """
    options = {name: value for name, value in given.items() if value is not None}
    earlier, version = _settings_of(like) if like else ({}, __version__)
    if (captioner := options.get("caption", earlier.get("caption"))) != earlier.get("caption"):
        earlier = {name: value for name, value in earlier.items() if name not in OF_A_CAPTIONER}
        if captioner == "none" and earlier.get("existing") == "extend":
            del earlier["existing"]  # by a captioner's words
    try:
        return PrepareSettings.model_validate({**earlier, **options})
    except ValidationError as error:
        problems = error.errors()
        told = [_told(problem, options, like) for problem in problems if not is_echo(problem, problems)]
        if version != __version__ and any(
            problem["loc"][0] not in options for problem in error.errors() if problem["loc"]
        ):
            told.append(f"{like}: is of raylora {version}, and this is {__version__}; give its settings as options")
        raise ConfigError("\n".join(told)) from None


def _settings_of(manifest: Path) -> tuple[dict[str, Any], str]:
    """Settings, and the version of raylora that wrote them."""
    try:
        content = read_mapping(manifest)
        return dict(content["settings"]), one_line(str(content.get("raylora", "unknown")))[:LONGEST_QUOTE]
    except FileNotFoundError:
        raise DatasetError(f"{manifest}: there is no such file; give the manifest.json of a prepared folder") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise DatasetError(f"{manifest}: is no manifest; give the manifest.json of a prepared folder") from None


def _told(problem: Mapping[str, Any], options: Mapping[str, Any], like: Path | None) -> str:
    """One problem in a line: option or file, what is wrong, what was found."""
    message = "there is no such setting" if problem["type"] == "extra_forbidden" else in_words(problem)
    if not problem["loc"]:  # a rule over several settings begins with the one that it is about
        name, _, message = message.partition(": ")
        return f"{_source(name, options, like)}: {message}"
    names_it = message.startswith("'")  # one entry of several
    found = "" if names_it else f" (found {repr(problem['input'])[:LONGEST_QUOTE]})"
    return f"{_source(str(problem['loc'][0]), options, like)}: {message}{found}"


def _source(name: str, options: Mapping[str, Any], like: Path | None) -> str:
    return OPTIONS.get(name, name) if like is None or name in options else f"{like}: settings.{name}"
