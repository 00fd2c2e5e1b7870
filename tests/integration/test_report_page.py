"""The report in a real browser: nothing fetched, nothing wrong, all of it usable by keyboard, narrow and wide."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from PIL import Image

from raylora.report.page import write_report
from tests.report_world import Made

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium on this machine")

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
WIDTHS = (400, 1600)
PATIENCE_MS = 120_000
"""For anything in the browser, on a machine that may be busy."""
OUTLINE = """() => {
    const it = document.activeElement;
    return getComputedStyle(it.matches(".choice input") ? it.parentElement : it).outlineStyle;
}"""
SHOWN_STEPS = """() => {
    const shown = (strip) => [...strip.querySelectorAll(".step")].filter((step) => step.offsetHeight > 0);
    const strips = [...document.querySelectorAll(".strip[data-trial]")];
    const steps = (strip) => shown(strip).map((step) => step.dataset.at).join();
    return Object.fromEntries(strips.map((strip) => [strip.dataset.trial, steps(strip)]));
}"""


@dataclass
class Watched:
    """A page in a browser, and everything that it did which it shouldn't."""

    page: Page
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def focus_of(self) -> str:
        found: str = self.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        return found

    def shown_steps(self) -> dict[str, str]:
        """Which step of each trial is seen."""
        found: dict[str, str] = self.page.evaluate(SHOWN_STEPS)
        return found

    def first_column(self) -> list[str]:
        found: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('.sortable tbody')].map(body => body.dataset.trial)"
        )
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def page_of(browser: Browser, **options: Any) -> Page:
    """A page in a window of its own."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    return context.new_page()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of texts that would rather run."""
    root = tmp_path_factory.mktemp("report") / "my <i>'\"& search"
    made = Made(root, captions=(HOSTILE, "sks, a dog", "sks, " + "a very long caption " * 30), stop_reason=HOSTILE)
    return Path(write_report(made.write()))


@pytest.fixture(scope="module")
def window(browser: Browser) -> Watched:
    """One window for all tests, since a new one takes a second."""
    watched = Watched(page_of(browser, color_scheme="light", reduced_motion="reduce"))
    watched.page.on("console", lambda message: watched.faults.append(message.text))
    watched.page.on("pageerror", lambda error: watched.faults.append(str(error)))
    watched.page.on("request", lambda request: watched.requests.append(request.url))
    return watched


@pytest.fixture
def opened(window: Watched, file: Path) -> Iterator[Watched]:
    """The report, opened anew."""
    window.page.set_viewport_size({"width": 1200, "height": 900})
    window.page.goto(file.as_uri())
    yield window
    assert window.faults == []
    assert {url for url in window.requests if not url.startswith("data:")} == {file.as_uri()}
    assert window.page.evaluate("window.hacked") is None
    window.page.evaluate("localStorage.clear()")


def test_all_pictures_are_there(opened: Watched) -> None:
    widths = opened.page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 3 * 4 + 5 + 2 + 7  # compared, strengths, real and base model, three trials' steps
    assert all(width > 0 for width in widths)
    assert all(opened.page.evaluate("[...document.images].map(image => image.alt.length > 0)"))


def test_the_slider_moves_the_samples_by_keyboard(opened: Watched) -> None:
    assert opened.shown_steps() == {"t001": "400", "t000": "400", "t002": "100"}
    slider = opened.page.locator("#step")
    slider.focus()
    opened.page.keyboard.press("ArrowLeft")
    assert opened.shown_steps() == {"t001": "200", "t000": "200", "t002": "100"}
    assert slider.get_attribute("aria-valuetext") == "200 images"
    opened.page.keyboard.press("Home")
    assert opened.shown_steps() == dict.fromkeys(("t001", "t000", "t002"), "100")
    assert opened.page.locator(".slider output").inner_text() == "100"
    assert "stopped early" in opened.page.locator(".strip[data-trial=t002] .after").get_attribute("data-end")


def test_tabs_move_by_arrow_keys(opened: Watched) -> None:
    opened.page.locator("#tab-1").focus()
    for key, tab in (("ArrowRight", 2), ("End", 3), ("ArrowRight", 1), ("ArrowLeft", 3), ("Home", 1)):
        opened.page.keyboard.press(key)
        assert opened.focus_of() == f"tab-{tab}"
        assert [opened.page.locator(f"#panel-{number}").is_visible() for number in (1, 2, 3)] == [
            number == tab for number in (1, 2, 3)
        ]
        assert opened.page.locator(f"#tab-{tab}").get_attribute("aria-selected") == "true"


def test_commands_are_copied(opened: Watched) -> None:
    opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copy = opened.page.locator("#panel-1 .copy")
    copy.focus()
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_function("document.querySelector('#copied').textContent")
    text = opened.page.evaluate("navigator.clipboard.readText()")
    assert text == opened.page.locator("#panel-1 code").text_content()
    assert "load_lora_weights" in text and HOSTILE in text


def test_the_table_is_sorted_by_keyboard(opened: Watched) -> None:
    assert opened.first_column() == ["t001", "t000", "t002", "t003"]
    for name, once, twice in (
        ("trial", ["t000", "t001", "t002", "t003"], ["t003", "t002", "t001", "t000"]),
        ("score", ["t001", "t000", "t002", "t003"], ["t002", "t000", "t001", "t003"]),
        ("unet_lr", ["t003", "t002", "t001", "t000"], ["t000", "t001", "t002", "t003"]),
    ):
        head = opened.page.locator("thead button").get_by_text(name, exact=True).last
        head.focus()
        opened.page.keyboard.press("Enter")
        assert opened.first_column() == once
        opened.page.keyboard.press("Space")
        assert opened.first_column() == twice
    assert opened.page.locator("th[aria-sort]").inner_text().startswith("unet_lr")


def test_trials_are_brought_out_in_every_chart(opened: Watched) -> None:
    page = opened.page
    assert page.locator("#chart-history .mark.on[data-trial=t002]").count() == 1
    page.locator(".choice[data-trial=t002] input").focus()
    page.keyboard.press("Space")
    assert page.locator("svg .on[data-trial=t002]").count() == 0
    page.locator("#chart-history .mark[data-trial=t002]").click()
    assert page.locator(".choice[data-trial=t002] input").is_checked()
    assert page.locator("svg .on[data-trial=t002]").count() > 4


def test_every_trial_is_brought_out_from_its_row_by_keyboard(opened: Watched) -> None:
    """Also one that has no box above the curves, as it was never measured."""
    page = opened.page
    assert page.locator(".choice[data-trial=t003]").count() == 0
    button = page.locator(".bring[data-trial=t003]")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("#chart-history .mark.on[data-trial=t003]").count() == 1
    page.locator("#chart-history .mark[data-trial=t003]").click()
    assert button.get_attribute("aria-pressed") == "false"
    page.locator(".bring[data-trial=t002]").click()
    assert not page.locator(".choice[data-trial=t002] input").is_checked()


def test_light_and_dark(opened: Watched, browser: Browser, file: Path) -> None:
    def paper(page: Page) -> str:
        found: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return found

    light = paper(opened.page)
    opened.page.locator("#theme").focus()
    opened.page.keyboard.press("Enter")
    dark = paper(opened.page)
    assert light == "rgb(255, 255, 255)" != dark
    assert opened.page.locator("#theme").get_attribute("aria-pressed") == "true"
    opened.page.reload()
    assert paper(opened.page) == dark  # remembered
    page = page_of(browser, color_scheme="dark")
    page.goto(file.as_uri())
    assert paper(page) == dark  # the system's
    page.context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_runs_over_the_window(opened: Watched, width: int) -> None:
    opened.page.set_viewport_size({"width": width, "height": 900})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    small = opened.page.evaluate(
        "[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect())"
        ".filter(box => box.width && box.height < 9).length"
    )
    assert small == 0


@pytest.mark.parametrize("width", [320, *WIDTHS])
def test_every_part_is_named_on_top(opened: Watched, width: int) -> None:
    """Whole, however narrow the window."""
    opened.page.set_viewport_size({"width": width, "height": 900})
    button = opened.page.evaluate("document.querySelector('#theme').getBoundingClientRect().left")
    for name in opened.page.locator(".bar nav a").all():
        spot = name.bounding_box()
        assert spot and spot["x"] >= 0 and spot["x"] + spot["width"] <= button
        assert name.evaluate("it => it.parentElement.scrollWidth <= it.parentElement.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_is_wider_shades_the_edge_that_hides_more(
    opened: Watched, scheme: Literal["light", "dark"]
) -> None:
    opened.page.set_viewport_size({"width": 400, "height": 900})
    opened.page.emulate_media(color_scheme=scheme)
    table = opened.page.locator("#trials [role=region]")
    before = paper_at_the_right(table)
    table.focus()
    opened.page.keyboard.press("ArrowRight")
    opened.page.wait_for_function("document.querySelector('#trials .scroll').scrollLeft > 0")
    table.evaluate("it => { it.scrollLeft = it.scrollWidth; }")
    at_the_end = paper_at_the_right(table)
    opened.page.emulate_media(color_scheme="light")
    assert table.get_attribute("tabindex") == "0"
    assert before < 0.9 * at_the_end


def paper_at_the_right(table: Locator) -> int:
    """How light the last column of pixels is where it has no letters, as most of it hasn't; 0 to 255."""
    with Image.open(io.BytesIO(table.screenshot())) as picture:
        grey = picture.convert("L")
    return int(np.median(np.asarray(grey)[:, -1]))


def test_focus_is_seen_and_goes_through_everything(opened: Watched) -> None:
    seen = []
    for _ in range(60):
        opened.page.keyboard.press("Tab")
        seen.append(opened.focus_of())
        style = opened.page.evaluate(OUTLINE)
        if seen[-1] == "end":
            break
        assert style != "none"
    assert seen[0] == "Skip to the answer"
    assert {"theme", "tab-1", "step", "Copy", "trial", "end"} <= set(seen)


def test_without_a_script_all_of_it_is_there(browser: Browser, file: Path) -> None:
    page = page_of(browser, java_script_enabled=False, viewport={"width": 400, "height": 800})
    page.goto(file.as_uri())
    assert all(page.locator(f"#panel-{number}").is_visible() for number in (1, 2, 3))
    assert page.locator(".strip[data-trial=t001] .step:visible").get_attribute("data-at") == "400"
    assert page.locator("#chart-history svg").is_visible()
    assert not page.locator("#theme").is_visible() and not page.locator("#step").is_visible()
    page.context.close()


def test_it_prints(browser: Browser, file: Path, tmp_path: Path) -> None:
    page = page_of(browser, color_scheme="dark")
    page.goto(file.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert all(page.locator(f"#panel-{number}").is_visible() for number in (1, 2, 3))
    assert [page.locator(f"#panel-{number} .panel-name").inner_text() for number in (1, 2, 3)] == [
        "diffusers", "ComfyUI", "A1111",
    ]  # fmt: skip
    assert all(page.locator(f"#panel-{number} .panel-name").is_visible() for number in (1, 2, 3))
    assert not page.locator(".bar").is_visible()
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
    page.context.close()
