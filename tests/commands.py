"""The command line as tests and the pages of docs/ look at it: its commands, and the examples in texts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer

from raylora.bundled import search_spaces
from raylora.cli import app
from raylora.cli_submit import SENT
from raylora.config import Experiment
from raylora.config_files import Layer, build_experiment, parse_assignments, read_yaml

ROOT: Any = typer.main.get_command(app)


def commands(command: Any = ROOT, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command with the words that name it; the root has none."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


def examples(text: str, program: str = "raylora") -> list[str]:
    """Every line of a text that begins with the program's name, its continuations joined."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.strip() for line in joined.splitlines() if re.match(rf"\s*{program} [\w-]", line)]


def parsed(example: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The words of the command that an example names, and its parameters as the command line reads them.

    Raises:
        Exception: there is no such command, option, value, setting or bundled space.
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
    experiment_of(params)
    return tuple(named), params


def experiment_of(params: dict[str, Any]) -> Experiment:
    """What `--space` and `--set` of a parsed example come to.

    Raises:
        Exception: a setting is wrong, or a space is neither bundled nor a file nor a function.
    """
    name, spaces = params.get("space"), search_spaces()
    assert name is None or name in spaces or name.endswith(".yaml") or ":" in name, f"no such space: {name}"
    own = [Layer(name, read_yaml(spaces[name])["experiment"])] if name in spaces else []
    return build_experiment([*own, parse_assignments(params.get("settings") or ())])


def hub_parsed(example: str) -> dict[str, Any]:
    """The parameters of a line of the Hugging Face hub's own program, `hf`, as that reads them.

    Raises:
        Exception: it has no such command, option or argument.
    """
    from huggingface_hub.cli.hf import app as hub

    words = shlex.split(example)[1:]
    context = hub.make_context("hf", words[:1])
    name, command, rest = hub.resolve_command(context, words)
    assert name and command
    return dict(command.make_context(name, rest, parent=context).params)
