"""Pages and READMEs say what the program is; and the Spanish README what the English one says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from raylora.bundled import search_spaces
from tests.commands import ROOT, examples, parsed
from tools.docs_site import outside, relinked
from tools.write_commands import FOLDER, page_with_options

HERE = Path(__file__).resolve().parents[2]
DOCS = HERE / "docs"
ENGLISH, SPANISH = HERE / "README.md", HERE / "README.es.md"
PAGES = [ENGLISH, SPANISH, *sorted(DOCS.rglob("*.md"))]
SCHEMATIC = ("[OPTIONS]", "COMMAND", "SRC DST", "OUT\n", "<Tab>")
"""Marks lines that show how a command is built, and are none to be typed."""


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_of(path: Path) -> list[str]:
    """The lines of indented and fenced blocks."""
    fenced = re.findall(r"^```.*?^```", text_of(path), re.DOTALL | re.MULTILINE)
    return [*(line for line in text_of(path).splitlines() if line.startswith("    ")), *fenced]


@pytest.mark.parametrize("name", ROOT.commands)
def test_a_commands_page_has_its_options(name: str) -> None:
    page = text_of(FOLDER / f"{name}.md")
    assert page == page_with_options(name, page), "run python -m tools.write_commands"
    assert f"]({name}.md)" in text_of(FOLDER / "index.md")


def test_every_page_is_in_the_sites_navigation() -> None:
    named = re.findall(r"[\w./-]+\.md", yaml.safe_dump(yaml.safe_load(text_of(HERE / "mkdocs.yml"))["nav"]))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert set(named) == there | set(outside().values())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(HERE).as_posix())
def test_commands_in_texts_can_be_typed(path: Path) -> None:
    for example in examples("\n".join(code_of(path))):
        if not any(sign in f"{example}\n" for sign in SCHEMATIC):
            parsed(example.partition("  #")[0])


def test_the_page_on_spaces_tells_all_of_them() -> None:
    rows = [line for line in text_of(DOCS / "choosing-a-space.md").splitlines() if line.startswith("|")]
    assert set(re.findall(r"`([\w-]+)` \|$", "\n".join(rows), re.MULTILINE)) >= set(search_spaces())
    cells = {row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]] for row in rows}
    for name, path in search_spaces().items():
        space = yaml.safe_load(text_of(path))
        column = ("realistic", "anime", "sdxl-character", "sdxl-style", "demo").index(name)
        assert cells["trials"][column] == str(space["experiment"]["search"]["trials"])
        assert cells["epochs"][column] == str(space["experiment"]["training"]["epochs"])
        assert cells["first rung, images"][column] == str(space["experiment"]["search"]["grace_period"])
        for row, setting in (("rank", "lora.rank"), ("repeats", "training.repeats")):
            assert cells[row][column] == ", ".join(map(str, space["parameters"][setting]["choices"]))


def test_both_readmes_have_the_same_commands_headings_links_and_tables() -> None:
    english, spanish = text_of(ENGLISH), text_of(SPANISH)
    assert code_of(ENGLISH) == code_of(SPANISH)
    assert levels(english) == levels(spanish)
    assert links(english)[1:] == links(spanish)[1:]
    assert (links(english)[0], links(spanish)[0]) == (SPANISH.name, ENGLISH.name)
    assert [cells(line) for line in english.splitlines() if line.startswith("|")] == [
        cells(line) for line in spanish.splitlines() if line.startswith("|")
    ]


def test_both_readmes_name_the_same_settings_files_and_numbers() -> None:
    english, spanish = (re.findall(r"`[^`\n]+`", text_of(path)) for path in (ENGLISH, SPANISH))
    assert sorted(set(english)) == sorted(set(spanish))
    numbers = [set(re.findall(r"\d+(?:[.,]\d+)?", text_of(path).replace(",", "."))) for path in (ENGLISH, SPANISH)]
    assert numbers[0] == numbers[1]


def levels(text: str) -> list[str]:
    return re.findall(r"^(#+) ", text, re.MULTILINE)


def links(text: str) -> list[str]:
    """The targets of links and pictures, in their order."""
    return re.findall(r"\]\(([^)]+)\)", text)


def cells(row: str) -> tuple[int, str]:
    """How many cells a table's row has, and its first one where that is code."""
    first = row.split("|")[1].strip()
    return row.count("|"), first if first.startswith("`") else ""


@pytest.mark.parametrize("path", [ENGLISH, SPANISH, *sorted(DOCS.glob("*.md"))], ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    for target in links(text_of(path)):
        if "://" not in target and not target.startswith("#"):
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_links_out_of_docs_lead_to_pages_of_the_site() -> None:
    text = (
        "[a](../benchmarks/results/demo/README.md#b) [c](../cluster/README.md) [d](../README.md) [e](../raylora/cli.py)"
    )
    assert relinked(text, "measures.md", "docs/measures.md") == (
        "[a](benchmarks/results/demo/README.md#b) [c](cluster/README.md) [d](index.md) e (`raylora/cli.py`)"
    )
    text = "![p](docs/pictures/report.png) [x](docs/report.md#answer) [y](https://a.org/docs/x.md)"
    assert relinked(text, "index.md", "README.md") == (
        "![p](pictures/report.png) [x](report.md#answer) [y](https://a.org/docs/x.md)"
    )
