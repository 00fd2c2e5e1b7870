"""Files of prompts: a line each, with kohya's options behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylora.diffusion.webui import LOADING
from raylora.errors import ConfigError
from raylora.files import MOST_TEXT_BYTES, read_ordinary
from raylora.redaction import is_text

COMMENT = "#"
OTHER_FORMS = {".toml": "TOML", ".json": "JSON"}
"""In which kohya's scripts take prompts too; line by line they would be drawn as they stand."""
OPTION = re.compile(r"(?:^|\s)--(?=\w+(?:\s|$))")
"""What begins an option. sd-scripts splits its lines of sample prompts the same way (library/train_util.py)."""
LONGEST_QUOTE = 60
"""Characters of a prompt in a message."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, and what its own line says of the picture; None where it says nothing."""

    text: str
    source: str
    """Where it stands, for messages."""
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None


OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "n": ("negative_prompt", str),
    "w": ("width", int),
    "h": ("height", int),
    "d": ("seed", int),
    "s": ("steps", int),
    "l": ("guidance_scale", float),
}
"""kohya's letters: the field that each sets, and what it holds."""


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file. Empty lines and those that begin with `#` are none.

    Raises:
        ConfigError: it can't be read, is no text in UTF-8, has no prompts, or a line with an option that isn't known.
    """
    if form := OTHER_FORMS.get(path.suffix.lower()):
        raise ConfigError(f"--prompts {path}: prompts in {form} are not read here; write them into a .txt file, one a "
                          "line, with kohya's options behind each (--w 512 --d 7)")  # fmt: skip
    try:
        text = read_ordinary(path, MOST_TEXT_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"--prompts {path}: there is no such file; mend the path") from None
    except OSError as error:
        raise ConfigError(f"--prompts {path}: can't be read ({error.strerror}); give a text file of prompts") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--prompts {path}: is not UTF-8 text; save it as UTF-8") from None
    prompts = list(_prompts(path, text))
    if not prompts:
        raise ConfigError(f"--prompts {path}: holds no prompts; write one a line")
    return prompts


def _prompts(path: Path, text: str) -> Iterator[Prompt]:
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if line and not line.startswith(COMMENT):
            yield parse_line(line, f"{path}, line {number}")


def parse_line(line: str, source: str) -> Prompt:
    """`a red fox --n blurry --w 512 --h 768 --d 7 --s 20 --l 6` and the like; capitals and tabs serve as well.

    Raises:
        ConfigError: an option that isn't known, or a value that it can't have.
    """
    text, *parts = OPTION.split(line)
    found: dict[str, Any] = {}
    for part in parts:
        letter, value = [*part.split(None, 1), ""][:2]
        if letter.lower() not in OPTIONS:
            known = ", ".join(f"--{one}" for one in OPTIONS)
            raise ConfigError(f"{source}: --{letter} is no option of a prompt; known are {known} (kohya's)")
        field, kind = OPTIONS[letter.lower()]
        try:
            found[field] = kind(value.strip())
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{source}: --{letter} {_short(value)}: must be {wanted}") from None
    return Prompt(text.strip(), source, **found)


def checked(prompt: Prompt) -> Prompt:
    """A prompt with all its words in place, if a picture can be made of it and they can be kept in the picture's file.

    Raises:
        ConfigError: it is empty, no text, or holds what would be read as something else.
    """
    for what, text in (("prompt", prompt.text), ("negative prompt", prompt.negative_prompt or "")):
        if not all(is_text(line) for line in text.replace("\t", " ").split("\n")):
            raise ConfigError(f"{prompt.source}: the {what} has control characters or is no UTF-8; take them out")
        if found := LOADING.search(text):
            raise ConfigError(
                f"{prompt.source}: the {what} has {found[0]}…>, by which a webui loads a LoRA; here it is the "
                "command's own argument, with --strength; take it out"
            )
        if any(line.strip().startswith("Negative prompt:") for line in text.split("\n")):
            raise ConfigError(f"{prompt.source}: has a line with `Negative prompt:`; give that with --negative-prompt")
    if not prompt.text.strip():
        raise ConfigError(f"{prompt.source}: the prompt is empty; say what the picture should show")
    return prompt


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"
