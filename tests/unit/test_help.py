"""`--help` of every command: a summary, examples that work, and nothing that the terminal swallows."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from typer.testing import CliRunner

from raylora.cli import app
from tests.commands import commands, examples, parsed

COMMANDS = dict(commands())
WIDEST = 78
"""Characters of a line that a terminal of 80 shows whole."""
NAMED = pytest.mark.parametrize("words", COMMANDS, ids=lambda words: "-".join(words) or "raylora")


def help_of(words: tuple[str, ...]) -> str:
    return inspect.cleandoc(COMMANDS[words].help)


def squashed(text: str) -> str:
    """The text without blanks and frames, which wrapping moves about."""
    return re.sub(r"[\s│╭╮╰╯─]", "", text)


@NAMED
def test_help_has_a_summary_and_examples_that_parse(words: tuple[str, ...]) -> None:
    summary, *rest = help_of(words).split("\n\n")
    assert rest and summary.endswith(".")
    found = [parsed(example)[0] for example in examples(help_of(words))]
    assert any(one[: len(words)] == words for one in found), f"no example of {words} in its help"


@NAMED
def test_no_line_is_broken_at_80_columns(words: tuple[str, ...]) -> None:
    _, _, rest = help_of(words).partition("\n\n")
    assert [line for line in rest.splitlines() if len(line) > WIDEST] == []


@NAMED
@pytest.mark.parametrize("columns", [80, 120])
def test_all_of_it_is_shown(words: tuple[str, ...], columns: int) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"], prog_name="raylora", env={"COLUMNS": str(columns)})
    assert shown.exit_code == 0
    seen = squashed(shown.output)
    assert squashed(help_of(words)) in seen
    for param in COMMANDS[words].params:
        assert squashed(param.help or "") in seen, param.name
        assert all(name in shown.output for name in option_names(param))


def option_names(param: Any) -> list[str]:
    return [name for name in [*param.opts, *param.secondary_opts] if name.startswith("--")]


@NAMED
def test_options_take_values_with_names_of_their_own(words: tuple[str, ...]) -> None:
    unnamed = [param.name for param in COMMANDS[words].params
               if option_names(param) and param.metavar is None and "completion" not in param.name]  # fmt: skip
    assert unnamed == []
