"""Findings as a terminal, a file and a program get them."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from raylora.cli_doctor import _print, _table
from raylora.execution.doctor.rows import Row

ROWS = [
    Row("GPU", "bad", "none [of 2]", "buy one", "a"),
    Row("memory", "good", "8.0 GiB free", None, "b"),
    Row("clock", "not checked", "Ray doesn't answer"),
]


def test_lines_for_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    _print(ROWS, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "bad         GPU on a: none [of 2]; mend: buy one",
        "good        memory on b: 8.0 GiB free",
        "not checked clock: Ray doesn't answer",
        "1 bad, 1 not checked, 1 good",
    ]


@pytest.mark.parametrize("mend", ["mend the name, or go online", "start the server, or mend the address"])
def test_that_it_is_a_mend_is_said_once(capsys: pytest.CaptureFixture[str], mend: str) -> None:
    _print([Row("base model", "bad", "none", mend)], as_json=False)
    assert capsys.readouterr().out.splitlines()[0] == f"bad         base model: none; {mend}"


def test_json_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    _print(ROWS, as_json=True)
    assert json.loads(capsys.readouterr().out)[::2] == [
        {"check": "GPU", "node": "a", "level": "bad", "found": "none [of 2]", "mend": "buy one"},
        {"check": "clock", "node": None, "level": "not checked", "found": "Ray doesn't answer", "mend": None},
    ]


@pytest.mark.parametrize(("rows", "has_nodes"), [(ROWS, True), (ROWS[1:], False)])
def test_a_table_for_a_terminal(rows: list[Row], has_nodes: bool) -> None:
    console = Console(width=100, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(_table(rows))
    lines = [line.strip() for line in captured.get().splitlines() if line.strip()]
    assert ("node" in lines[0]) == has_nodes
    for one in rows:
        [line] = [line for line in lines if line.startswith(one.level)]
        assert one.found in line and (one.mend or "") in line


def test_a_name_neither_steers_the_terminal_nor_makes_a_row_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("dataset", "bad", "a\x1b[2J\ngood        GPU.png: can't be read", "mend it\x07", "node\x1b")]
    _print(rows, as_json=False)
    line, _ = capsys.readouterr().out.splitlines()
    assert line == (r"bad         dataset on node\x1b: a\x1b[2J\x0agood        GPU.png: can't be read; mend it\x07")
    console = Console(width=100, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(_table(rows))
    assert not {"\x1b", "\x07"} & set(captured.get())
