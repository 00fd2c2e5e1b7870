"""Hub ids: what is meant as a path, what the cache knows, and what the hub answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from raylora.config import Experiment
from raylora.diffusion.families import check_base_on_hub, resolve_base
from raylora.diffusion.hub import cached_revision, is_meant_as_path, read_hub_config
from raylora.errors import ModelError, UnreachableError
from raylora.evaluation.encoders import check_encoder, check_encoder_on_hub
from raylora.execution.registering import claim_of
from tests.registries import job_of

COMMIT = "0" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way to the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(cache: Path, reference: str, name: str, content: object) -> None:
    """As huggingface_hub keeps a downloaded file."""
    folder = cache / f"models--{reference.replace('/', '--')}"
    for file, text in (("refs/main", COMMIT), (f"snapshots/{COMMIT}/{name}", json.dumps(content))):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)


class NobodysHub(BaseHTTPRequestHandler):
    """Knows no model; of `gated/…` it says that they must be asked for."""

    def do_HEAD(self) -> None:  # the base class's name
        gated = self.path.startswith("/gated/")
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815  # the base class's name

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), NobodysHub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", here)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", here + "/{repo_id}/resolve/{revision}/{filename}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()
    server.server_close()


def test_a_reference_below_a_folder_that_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_base("models/mymodel") == "models/mymodel"
    (tmp_path / "models").mkdir()
    for check in (resolve_base, check_encoder):
        with pytest.raises(ModelError, match="models/mymodel: there is no such f"):
            check("models/mymodel")


@pytest.mark.parametrize("reference", ["models/sd15.safetensors", "./models/mine", "~/mine", "/models/mine"])
def test_what_looks_like_a_path_is_one(reference: str) -> None:
    assert is_meant_as_path(reference)
    with pytest.raises(ModelError, match="no such file"):
        resolve_base(reference)


def test_a_cached_model_needs_no_hub(cache: Path) -> None:
    put(cache, "owner/model", "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    put(cache, "owner/clip", "config.json", {"model_type": "clip"})
    check_base_on_hub("owner/model", "sd15")
    check_encoder_on_hub("owner/clip")


def test_a_cached_model_of_another_kind_is_refused(cache: Path) -> None:
    put(cache, "owner/model", "model_index.json", {"_class_name": "StableDiffusionXLPipeline"})
    put(cache, "owner/other", "model_index.json", {"_class_name": "FluxPipeline"})
    put(cache, "owner/bert", "config.json", {"model_type": "bert"})
    with pytest.raises(ModelError, match=r"owner/model: is a .* XL model.*--set model.family=sdxl"):
        check_base_on_hub("owner/model", "sd15")
    with pytest.raises(ModelError, match="owner/other: holds a FluxPipeline"):
        check_base_on_hub("owner/other", "sd15")
    with pytest.raises(ModelError, match=r"evaluation\.encoder owner/bert: is a bert model"):
        check_encoder_on_hub("owner/bert")


def test_what_is_not_cached_offline_is_told(cache: Path) -> None:
    with pytest.raises(UnreachableError, match=r"nobody/nothing: .*HF_HUB_OFFLINE is set; mend the name"):
        check_base_on_hub("nobody/nothing", "sd15")
    with pytest.raises(UnreachableError, match=r"evaluation\.encoder nobody/nothing: "):
        check_encoder_on_hub("nobody/nothing")


def test_what_is_a_place_or_bundled_is_not_looked_up(cache: Path, tmp_path: Path) -> None:
    check_base_on_hub("demo", "sd15")
    check_encoder_on_hub("demo")


@pytest.mark.usefixtures("hub")
def test_a_model_that_the_hub_does_not_know() -> None:
    with pytest.raises(ModelError, match=r"nobody/nothing: .*no such model on the Hugging Face hub") as caught:
        read_hub_config("nobody/nothing", "config.json")
    assert not isinstance(caught.value, UnreachableError)


@pytest.mark.usefixtures("hub")
def test_a_model_that_must_be_asked_for() -> None:
    with pytest.raises(ModelError, match=r"gated/model: .*accept its terms"):
        read_hub_config("gated/model", "config.json")


def test_a_hub_that_does_not_answer(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1 can't be reached \(Connection refused\)"):
        read_hub_config("nobody/nothing", "config.json")
    with pytest.raises(ModelError, match="can't be a hub id"):
        read_hub_config("a/b/c", "config.json")


def test_the_commit_of_what_was_downloaded_is_known(cache: Path) -> None:
    assert cached_revision("some/base", "model_index.json") is None
    put(cache, "some/base", "model_index.json", {})
    assert cached_revision("some/base", "model_index.json") == COMMIT
    put(cache, "some/base", "unet/config.json", {})
    assert cached_revision("some/base", "unet/config.json") == COMMIT


@pytest.mark.parametrize(
    ("base", "named"),
    [("some/base", f"some/base@{COMMIT[:12]}"), ("other/base", "other/base"), ("/my/x.safetensors", "x.safetensors")],
)
def test_a_claim_names_the_commit_and_no_path(base: str, named: str, cache: Path) -> None:
    put(cache, "some/base", "model_index.json", {})
    job = job_of(Experiment().with_params({"model.base_model": base}))
    assert claim_of(job, {"score": 1.0}, "weights", "encoder").names["model.base_model"] == named
