"""Progress of work on many pictures: bars on a terminal, some lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from raylora.report.steps import steps


@pytest.mark.parametrize(("total", "lines"), [(1, 1), (7, 7), (25, 10), (1000, 10)])
def test_elsewhere_than_on_a_terminal_there_are_some_lines(total: int, lines: int) -> None:
    file = io.StringIO()
    with steps(Console(file=file)) as tell:
        for done in range(1, total + 1):
            tell("cut", done, total)
    told = file.getvalue().splitlines()
    assert len(told) == lines
    assert told[-1] == f"cut {total} of {total}"


class Terminal(io.StringIO):
    """A file that is one."""

    def isatty(self) -> bool:
        return True


def test_a_log_file_gets_lines_though_colours_are_forced() -> None:
    file = io.StringIO()
    with steps(Console(file=file, _environ={"FORCE_COLOR": "1"})) as tell:
        tell("cut", 1, 1)
    assert file.getvalue() == "cut 1 of 1\n"


def test_on_a_terminal_there_is_a_bar_for_each_kind_of_work() -> None:
    file = Terminal()
    with steps(Console(file=file, width=100, _environ={})) as tell:
        for what in ("cut", "captioned"):
            for done in (1, 2):
                tell(what, done, 2)
    assert "cut" in file.getvalue()
    assert "captioned" in file.getvalue()
    assert "2/2" in file.getvalue()
