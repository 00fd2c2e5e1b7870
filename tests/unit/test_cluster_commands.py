"""What the files of cluster/ say: command lines that raylora takes, versions that are the project's, no secret, and
names that agree from file to file."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

import raylora
from raylora.cli import app
from raylora.config import Experiment
from tests.cluster_files import CLUSTER, FILES, KUBERAY, RAY_UP, ROOT, read_yaml, readme_commands

WRITTEN_FOR = {"OUT": "/shared/out/first", "out": "/shared/out/first", "@": "--demo"}
"""What shell variables in a command line stand for."""
CUDA_OF_TORCH = {"2.13.0": "13.0"}
"""Of the wheel that pip takes on Linux: its metadata ask for this cuda-toolkit."""
PYTHON_OF_UBUNTU = {"24.04": (3, 12)}
SECRET = re.compile(
    r"""(?imx) -----BEGIN | \bAKIA[0-9A-Z]{16} | \bhf_\w{20} | \bgh[pousr]_\w{20}
        | (password | passwd | secret_access_key | auth_token | api_key | hf_token)["']? [ ]* [:=] [ ]*
          (?! ["']?\$ | ~/ | \?) ["']? [^\s"',}]{4,} ["']? [ ]* ([,}\#] | $)"""
)
"""A key of a known kind, or a name that asks for a secret and has a value."""
COMMAND = re.compile(
    r"(?:^|[\s'\"`/(])(raylora(?! +tune-or-resume)|tune-or-resume(?:\.sh)?|raylora\.sbatch) +((?!on\b)[^`']*)"
)
"""A call of raylora, or of what gives its own options to `raylora tune`."""


def pins() -> dict[str, str]:
    """What constraints.txt says, by name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines)


def command_lines(path: Path) -> list[list[str]]:
    """Every call of raylora in a file, as words."""
    text = path.read_text(encoding="utf-8")
    lines = readme_commands() if path.name == "README.md" else re.sub(r"\\\n[# ]*", " ", text).splitlines()
    if path.suffix == ".sh":
        lines = [line for line in lines if line[:1] != "#"]
    if path.name == "rayjob.yaml":
        lines = [read_yaml(path)["spec"]["entrypoint"]]
    found = []
    for line in lines:
        for program, rest in COMMAND.findall(line.split("  # ")[0]):
            words = _words(rest)
            is_call = words and (program != "raylora" or words[0] in KNOWN)
            before = {"raylora": [], "raylora.sbatch": ["tune"]}.get(program, ["tune", "--out"])
            found += [[*before, *words]] if is_call else []
    return found


def _words(rest: str) -> list[str]:
    """Up to the end of the command, with variables filled in."""
    rest = re.sub(r'"?\$\{?(\w+|@)\}?"?', lambda match: WRITTEN_FOR.get(match[1], "x"), rest)
    return shlex.split(re.split(r"\s(?:&&|\|\||[|;&>])", f" {rest}")[0].rstrip("\\"), comments=True)


KNOWN = typer.main.get_command(app).commands  # type: ignore[attr-defined]
"""raylora's commands by name."""
REFUSED = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What they raise of a wrong command line; typer brings a click of its own, or takes the one that is installed."""


def parse(words: list[str]) -> None:
    """As raylora would, without doing it.

    Raises:
        ClickException: there is no such command or option, or a setting that raylora has not.
    """
    if words[0] not in KNOWN:
        raise typer.BadParameter(f"no command {words[0]}")
    context = KNOWN[words[0]].make_context(words[0], list(words[1:]))
    if words[0] == "submit":
        parse(words[words.index("--") + 1 :])
    for setting in context.params.get("settings") or ():
        name = setting.partition("=")[0]
        section, _, field = name.partition(".")
        known = Experiment.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
        if field not in known:
            raise typer.BadParameter(f"no setting {name}")


WRITTEN = [(path, words) for path in FILES if path.name != "Dockerfile" for words in command_lines(path)]


@pytest.mark.parametrize(("path", "words"), WRITTEN, ids=lambda value: value.name if isinstance(value, Path) else "")
def test_raylora_takes_what_is_written(path: Path, words: list[str]) -> None:
    parse(words)


def test_the_command_lines_were_found() -> None:
    found = {(path.name, words[0]) for path, words in WRITTEN}
    assert {("README.md", "tune"), ("README.md", "submit"), ("README.md", "doctor")} <= found
    assert {("tune-or-resume.sh", "tune"), ("tune-or-resume.sh", "resume"), ("rayjob.yaml", "tune")} <= found
    assert {("raylora.sbatch", "tune"), ("compose.yaml", "tune")} <= found
    assert sum(path.name == "README.md" for path, _ in WRITTEN) >= 10


@pytest.mark.parametrize("wrong", ["tune --dataste x", "train --trials 3", "tune --set search.trails=3", "tone"])
def test_a_slip_in_a_command_line_is_seen(wrong: str) -> None:
    with pytest.raises(REFUSED):
        parse(wrong.split())


# Versions


def test_images_and_services_have_the_projects_versions() -> None:
    tags = {"raylora": raylora.__version__, "raylora-mlflow": pins()["mlflow"]}
    named = [
        match
        for path in FILES
        for match in re.findall(r"[ /](raylora(?:-mlflow)?):(\d+\.[\w.]*)", path.read_text("utf-8"))
    ]
    assert {name for name, _ in named} == set(tags)
    assert all(tags[name] == version for name, version in named)


def test_every_image_is_pinned() -> None:
    for path in [CLUSTER / "Dockerfile", CLUSTER / "compose.yaml", *KUBERAY]:
        for image in re.findall(r"(?m)^(?:FROM|\s+(?:- )?image:(?: &\w+)?) (\S+)", path.read_text(encoding="utf-8")):
            assert image[0] == "*" or re.search(r":[\w.-]*\d+\.\d+|:RELEASE\.\d{4}-\d\d-\d\d", image), image


def test_ray_is_the_projects() -> None:
    cluster = read_yaml(CLUSTER / "kuberay" / "raycluster.yaml")["spec"]
    assert cluster["rayVersion"] == pins()["ray"]


def test_cuda_is_torchs_and_python_is_new_enough() -> None:
    text = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    cuda = re.findall(r"FROM nvidia/cuda:(\d+\.\d+)\.\d+-\S*ubuntu([\d.]+)", text)
    ubuntus = [ubuntu for _, ubuntu in cuda] + re.findall(r"FROM ubuntu:(\S+)", text)
    torch = pins()["torch"]
    assert [version for version, _ in cuda] == [CUDA_OF_TORCH[torch]] and f"torch {torch} " in text
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    least = tuple(int(part) for part in wanted.removeprefix(">=").split("."))
    assert len(ubuntus) == 2 and all(PYTHON_OF_UBUNTU[ubuntu] >= least for ubuntu in ubuntus)


def test_what_is_installed_is_pinned() -> None:
    for path in [CLUSTER / "Dockerfile", *RAY_UP]:
        installed = re.findall(r"pip install ([^\n#&]*)", path.read_text(encoding="utf-8"))
        assert installed and all("--constraint " in line and "constraints.txt" in line for line in installed)
    for path in [*RAY_UP, CLUSTER / "README.md"]:
        for name, version in re.findall(r"(google-api-python-client)(\S*)", path.read_text(encoding="utf-8")):
            assert re.match(r"==\d", version), f"{path}: {name} in any version"
    assert {"mlflow", "psycopg2-binary", "boto3", "torch", "ray"} <= set(pins())


# Secrets


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    assert not SECRET.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "planted",
    [
        "  POSTGRES_PASSWORD: hunter22",
        "MINIO_ROOT_PASSWORD=correcthorse",
        'stringData: {auth_token: "abcdef123"}',
        "AWS_SECRET_ACCESS_KEY: 'wJalrXUtnFEMI'",
        "HF_TOKEN=hf_abcdefghijklmnopqrstuvwx",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)
def test_a_secret_is_seen(planted: str) -> None:
    assert SECRET.search(planted)


def test_the_filled_in_example_stays_out_of_git_and_of_images() -> None:
    assert "/cluster/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()[1] == "*"


# Names


def test_the_readme_names_what_is_there() -> None:
    text = (CLUSTER / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"cluster/([\w./-]+\.(?:yaml|sh|sbatch|example))", text):
        assert (CLUSTER / name).is_file(), name
    missing = [path for path in FILES if path.name not in text and path.parent.name != "kuberay"]
    assert {path.name for path in missing} <= {"README.md"}
    anchors = {re.sub(r"[^\w -]", "", line.lstrip("# ")).strip().lower().replace(" ", "-")
               for line in text.splitlines() if line.startswith("##")}  # fmt: skip
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= anchors


def test_all_files_name_one_notice() -> None:
    from raylora.execution.notice import NOTICE_NAME, NOTICE_VARIABLE

    for name in ("give-notice.sh", "ray-up/spot-notice.sh"):
        expected = f"${{{NOTICE_VARIABLE}:-${{TMPDIR:-/tmp}}/{NOTICE_NAME}}}"
        assert expected in (CLUSTER / name).read_text(encoding="utf-8")
    assert f"{NOTICE_VARIABLE}=/tmp/{NOTICE_NAME}" in (CLUSTER / "Dockerfile").read_text(encoding="utf-8")


def test_everyone_tracks_to_the_same_ports() -> None:
    text = (CLUSTER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", text)) == {"5000", "8265"}
