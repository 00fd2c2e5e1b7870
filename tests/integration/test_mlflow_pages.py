"""MLflow's own pages of a search, in a real browser: trials below their search, their pictures, the registered LoRA."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from raylora.diffusion.families import load_base
from tests.integration.test_report_page import PROGRAM
from tests.ports import free_port
from tests.registries import finished, send_trials
from tests.servers import mlflow_server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium on this machine")

PATIENCE_MS = 120_000
SHOWS_A_PICTURE = """() => [...document.images].some(
    (image) => image.naturalWidth > 32 && (image.src.startsWith("blob:") || image.src.includes("get-artifact"))
)"""
PICTURES = os.environ.get("RAYLORA_PAGES")
"""A folder for pictures of the pages, for who wants to look at them."""


def keep_picture(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png")


@dataclass(frozen=True)
class Site:
    """A server on the store of one search, and what is there."""

    url: str
    experiment: str
    search: str
    trial: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, tiny_base_folder: Path) -> Iterator[Site]:
    from raylora.execution.promoting import Promotion, promote

    folder = tmp_path_factory.mktemp("pages")
    uri = f"sqlite:///{shutil.copy(empty_store, folder)}"
    out = finished(folder / "portraits", load_base(str(tiny_base_folder)), uri, 1.1)
    search = send_trials(out, uri)
    promote(Promotion(str(out.root), "faces", "champion", None), print)
    client = MlflowClient(uri, uri)
    experiment = client.get_run(search).info.experiment_id
    (trial,) = client.search_runs([experiment], "run_name = 't001'")
    with mlflow_server(folder, uri, free_port()) as address:
        yield Site(address, experiment, search, trial.info.run_id)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox", "--disable-gpu"])
        opened = started.new_page(viewport={"width": 1500, "height": 1000})
        opened.set_default_timeout(PATIENCE_MS)
        yield opened
        started.close()


def test_trials_stand_below_their_search(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/#/experiments/{site.experiment}/runs")
    row = page.get_by_role("row").filter(has_text="portraits")
    row.get_by_role("button").first.click()  # the plus before its name
    for trial in ("t000", "t001", "t002", "t003"):
        page.get_by_text(trial, exact=True).first.wait_for()
    keep_picture(page, "runs")


def test_a_trials_samples_are_shown(site: Site, page: Page) -> None:
    run = f"{site.url}/#/experiments/{site.experiment}/runs/{site.trial}"
    page.goto(run)
    page.get_by_text("lora.rank", exact=True).first.wait_for()
    keep_picture(page, "trial")
    page.goto(f"{run}/artifacts/images")
    page.get_by_text("samples+step+400+timestamp+2+raylora.png", exact=True).first.click()
    page.wait_for_function(SHOWS_A_PICTURE)
    keep_picture(page, "samples")


def test_a_registered_lora_says_what_it_is(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/#/models/faces/versions/1")
    page.get_by_text("A LoRA for Stable Diffusion 1.5", exact=False).first.wait_for()
    page.get_by_text("champion", exact=False).first.wait_for()
    page.get_by_text("raylora.score", exact=False).first.wait_for()
    keep_picture(page, "version")
