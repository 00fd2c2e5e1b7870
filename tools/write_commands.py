"""Writes the options into the pages of docs/commands, from the command line itself: `python -m tools.write_commands`.

A page is prose by hand; what stands between its two marks is written here, and a test holds it up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from raylora.cli import app

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "commands"
BEGIN, END = "<!-- options: python -m tools.write_commands -->", "<!-- end of options -->"
ROOT: Any = typer.main.get_command(app)


def page_with_options(name: str, page: str) -> str:
    """A command's page with the options that the command has."""
    assert page.count(BEGIN) == page.count(END) == 1, f"{name}.md needs {BEGIN} and {END}, once each"
    options = "\n".join(_options(f"raylora {name}", ROOT.commands[name]))
    return re.sub(
        f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n\n{options}\n\n{END}", page, flags=re.DOTALL
    )


def _options(words: str, command: Any) -> Iterator[str]:
    """How a command is called, and a row for each argument and option; a group's commands one after the other."""
    if hasattr(command, "commands"):
        for number, (name, below) in enumerate(command.commands.items()):
            yield f"{'' if number == 0 else chr(10)}### {words} {name}\n"
            yield f"{below.help.partition(chr(10) * 2)[0]}\n"
            yield from _options(f"{words} {name}", below)
        return
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    called = " ".join(_argument(param) for param in arguments)
    yield f"    {words} [OPTIONS]{f' {called}' if called else ''}\n"
    yield "| argument or option | what it is |\n|---|---|"
    yield from map(_row, command.params)


def _argument(param: Any) -> str:
    name = f"{param.metavar or param.name.upper()}{'...' if param.nargs == -1 else ''}"
    return name if param.required else f"[{name}]"


def _row(param: Any) -> str:
    if param.param_type_name == "argument":
        names = f"`{_argument(param)}`"
    else:
        value = f" {param.metavar}" if param.metavar else ""
        names = ", ".join(f"`{name}{value}`" for name in [*param.opts, *param.secondary_opts])
    must = " Must be given." if param.required else ""
    return f"| {names} | {(param.help or '').replace('|', chr(92) + '|')}{must} |"


def main() -> None:
    for name in ROOT.commands:
        file = FOLDER / f"{name}.md"
        file.write_text(page_with_options(name, file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
