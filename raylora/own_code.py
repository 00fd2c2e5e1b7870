"""Parts that a user brings, named as `package.module:name`."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from raylora.files import exists

Answer = TypeVar("Answer")

OWN_NAME = re.compile(r"(?!\w:)[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""Neither a hub id, which has no colon, nor a Windows path: `C:clip` is one, so no module of one letter is taken."""


def is_own_name(reference: str) -> bool:
    """Whether a reference names a user's part, there or not. A folder that is called so is a folder."""
    return bool(OWN_NAME.fullmatch(reference)) and not exists(Path(reference))


def load_named(reference: str) -> Any:
    """What `package.module:name` names, installed or in the working directory.

    Raises:
        Exception: whatever the module raises while it is imported.
    """
    module, _, name = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:  # as `python -m raylora` has it; the installed script has not
        sys.path.insert(0, here)
    return getattr(unended(lambda: importlib.import_module(module)), name)


def unended(work: Callable[[], Answer]) -> Answer:
    """What a user's code gives. One that ends the program fails, instead of ending this one without a word.

    Raises:
        RuntimeError: it wants to end the program.
    """
    try:
        return work()
    except SystemExit as error:
        raise RuntimeError(f"it ends the program by SystemExit({error.code!r})") from None
