"""The command line as tests and the pages of docs/ look at it: its commands, and the examples in texts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer

from raylora.cli import app
from raylora.cli_submit import SENT

ROOT: Any = typer.main.get_command(app)


def commands(command: Any = ROOT, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command with the words that name it; the root has none."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


def examples(text: str) -> list[str]:
    """Every line of a text that begins with `raylora`, its continuations joined."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.strip() for line in joined.splitlines() if re.match(r"\s*raylora [\w-]", line)]


def parsed(example: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The words of the command that an example names, and its parameters as the command line reads them.

    Raises:
        Exception: there is no such command, option or value.
    """
    words = shlex.split(example, comments=True)
    assert words.pop(0) == "raylora"
    if words[0].startswith("-"):  # the root's own options act as they are read, so they are looked up alone
        assert words[0] in {name for param in ROOT.params for name in param.opts} | set(
            ROOT.context_settings["help_option_names"]
        )
        return (), {}
    command, named, context = ROOT, [], ROOT.make_context("raylora", words[:1])
    while hasattr(command, "commands"):
        named.append(words.pop(0))
        command = command.commands[named[-1]]
    params = dict(command.make_context(named[-1], words, parent=context).params)
    if named == ["submit"]:
        assert params["command"][0] in SENT
        parsed(shlex.join(["raylora", *params["command"]]))
    return tuple(named), params
