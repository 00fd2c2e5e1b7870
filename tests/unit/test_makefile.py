"""`make install`: which Python it takes, and what becomes of a `.venv` that an older one has left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
OLD = """#!/bin/sh
exec {python} -c 'import sys; sys.version_info = (3, 10, 14); exec(sys.argv[2])' "$@"
"""
"""A Python that is too old, as far as what is run by -c can tell."""
QUICK = """#!/bin/sh
exec {python} "$@" --without-pip
"""
"""A Python whose environments are made at once; pip would take seconds, and then ask an index."""
PIP = "import sys\nprint('pip was asked to', sys.argv[1])\n"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with all that `make install` reads, and two Pythons."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(HERE / name, tmp_path)
    for name, text in (("old", OLD), ("quick", QUICK)):
        program(tmp_path / name, text)
    return tmp_path


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(python=sys.executable), encoding="utf-8")
    path.chmod(0o755)


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }  # of `make test`
    return subprocess.run(["make", *arguments], cwd=clone, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("python", ["./old", "./no-such-python"])
def test_an_older_python_is_refused_in_a_line_and_leaves_nothing(clone: Path, python: str) -> None:
    run = make(clone, "demo", f"PYTHON={python}")
    told, of_make = run.stderr.splitlines()
    assert run.returncode == 2 and of_make.startswith("make: ***")
    assert told == f"error: {python} is no Python 3.11 or newer; name one: make demo PYTHON=python3.12"
    assert not (clone / ".venv").exists() and run.stdout == ""


def test_an_older_pythons_venv_is_made_anew_by_a_newer_one(clone: Path) -> None:
    program(clone / ".venv" / "bin" / "python", OLD)
    run = make(clone, "install", "PYTHON=./quick")
    assert "several GB are fetched" in run.stdout
    assert "No module named pip" in run.stderr  # so far it came
    version = subprocess.run([clone / ".venv/bin/python", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.split()[1] == sys.version.split()[0]


def test_a_venv_that_is_whole_stays_whatever_python_is_named(clone: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / ".venv"], check=True)
    (packages,) = (clone / ".venv").glob("lib/python*/site-packages")
    (packages / "pip").mkdir()
    (packages / "pip" / "__init__.py").touch()
    (packages / "pip" / "__main__.py").write_text(PIP, encoding="utf-8")
    run = make(clone, "install", "PYTHON=./old")
    assert run.returncode == 0, run.stderr
    assert "pip was asked to install" in run.stdout and (clone / ".venv" / ".installed").exists()
