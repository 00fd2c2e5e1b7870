"""Pages and READMEs say what the program is; and the Spanish README what the English one says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from raylora.bundled import search_spaces
from raylora.config_files import build_experiment, parse_assignments
from raylora.dataset.frames import learned_at
from raylora.preparation.settings import build_settings
from tests.commands import ROOT, examples, experiment_of, hub_parsed, parsed
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


@pytest.mark.parametrize("line", ["tune --set lora.rnk=3", "tune --set lora.rank=no", "tune --space relistic"])
def test_what_cannot_be_typed_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r"lora\.rn?a?n?k|relistic"):
        parsed(f"raylora {line}")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(HERE).as_posix())
def test_settings_in_texts_are_settings_and_reach_the_program_in_any_shell(path: Path) -> None:
    for quote, bare in re.findall(r"--set\s+(?:\"([^\"]+=[^\"]+)\"|(\w[^\s`\"]*=[^\s`]+))", text_of(path)):
        assert not set(bare) & set("[]{}*?()"), f"{path.name}: {bare} wants quotes"
        if (quote or bare) not in ("section.field=value", "KEY=VALUE"):
            build_experiment([parse_assignments([quote or bare])])


def test_what_goes_to_the_hub_can_be_typed_and_leaves_private_files_behind() -> None:
    pages = "\n".join(line for path in PAGES for line in code_of(path))
    folders = [params for line in examples(pages, "hf") if (params := hub_parsed(line))["exclude"]]
    assert [set(params["exclude"]) for params in folders] == [{"samples/grid.png", "experiment.yaml", "model_card.md"}]


def commands_of(path: Path, name: str) -> list[dict[str, Any]]:
    """The parameters of a page's lines of one command."""
    lines = [line.partition("  #")[0] for line in examples("\n".join(code_of(path))) if line.split()[1] == name]
    return [parsed(line)[1] for line in lines if not any(sign in f"{line}\n" for sign in SCHEMATIC)]


@pytest.mark.parametrize("path", [ENGLISH, SPANISH, DOCS / "first-hour.md"], ids=lambda path: path.name)
def test_what_a_page_prepares_it_learns_at_the_size_and_by_the_word_that_it_was_prepared_for(path: Path) -> None:
    (prepared,) = {params["target"]: params for params in commands_of(path, "prepare")}.values()
    settings = build_settings(
        {"sizes": prepared["size"], "caption": prepared["caption"], "trigger": prepared["trigger"]}
    )
    of_it = [*commands_of(path, "tune"), *commands_of(path, "train")]
    of_it = [params for params in of_it if params["dataset"] == str(prepared["target"])]
    assert len(of_it) >= 2
    for params in of_it:
        dataset = experiment_of(params).dataset
        assert [learned_at(size, dataset) for size in settings.sizes] == list(settings.sizes)
        assert dataset.trigger == settings.trigger
    assert settings.caption == "blip"  # photographs; `tags` knows drawings


def test_the_readmes_pictures_have_the_trigger_that_its_searches_set() -> None:
    asked = [one for one in commands_of(ENGLISH, "generate") if "{trigger}" in "".join(one["prompt"])]
    searches = {Path("out") / params["space"]: experiment_of(params) for params in commands_of(ENGLISH, "tune")}
    assert asked and all(experiment.dataset.trigger == "sks" for experiment in searches.values())
    assert {Path(str(one["lora"])) for one in asked} <= set(searches)


def test_the_first_hour_puts_the_command_on_the_path_before_it_types_it() -> None:
    lines = [line.strip() for line in code_of(DOCS / "first-hour.md")]
    first = next(number for number, line in enumerate(lines) if line.startswith("raylora"))
    assert lines[:first] == ["make demo", ". .venv/bin/activate"]


def results(name: str) -> Any:
    """The newest record of a benchmark."""
    return json.loads(text_of(max((HERE / "benchmarks" / "results" / name).glob("*.json"))))


def test_the_readmes_numbers_are_those_of_the_results() -> None:
    search = results("search")
    seen = {row["strategy"]: row for row in search["rows"] if row.get("first point")}
    words = " ".join(text_of(ENGLISH).split())
    for name, other, of in (
        ("compute_ratio_to_stock", "Ray's OptunaSearch + ASHA", r"times the images that Ray's own .*?"),
        ("compute_ratio_to_random", "random", r"times those of random search "),
    ):
        medians = seen["raylora"]["median"] / seen[other]["median"]
        mean = search["targets"][name]["value"]
        assert re.search(rf"\b{mean:.2f} {of}\(of the medians {medians:.2f}\)", words), (name, mean, medians)
    apart = results("demo")["targets"]["winner_minus_baseline_se"]["value"]
    assert f"by over {int(apart)} standard errors" in words


def test_memory_and_time_of_a_step_are_those_of_the_results() -> None:
    page, hour = text_of(DOCS / "choosing-a-space.md"), text_of(DOCS / "first-hour.md")
    rows = {(row["family"], row["batch"]): row for row in results("gpu_step")["rows"] if row["option"] == "default"}
    told_rows = re.findall(r"^\| (SD1\.5|SDXL), [^|]+\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert len(told_rows) == 4
    for family, batch, ms, gib in told_rows:
        row = rows[family.lower().replace(".", ""), int(batch)]
        assert (float(ms), float(gib)) == (pytest.approx(row["ms_image"], rel=2e-3), round(row["peak_gib"], 1))
    for told in (rows["sd15", 1], rows["sd15", 4], rows["sdxl", 1]):
        assert f"{told['peak_gib']:.1f} GiB at" in " ".join(hour.split())
    most = re.search(r"held\s+([\d.]+)\s+GiB at most", text_of(HERE / "benchmarks/results/gpu_search/README.md"))
    assert most and all(f"held {most[1]} GiB at most" in " ".join(text.split()) for text in (page, hour))


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
