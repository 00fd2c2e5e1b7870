"""What Tab proposes, by the protocol that shells speak."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raylora.bundled import search_spaces
from raylora.cli import app
from raylora.config import field_paths

PROGRAM = """#!{python}
import sys
from raylora.cli import main
try:
    main()
finally:
    print(*[name for name in ("torch", "ray", "mlflow", "optuna") if name in sys.modules], file=sys.stderr)
"""
PRESS_TAB = """
eval "$(_RAYLORA_COMPLETE=source_bash raylora)"
COMP_WORDS=(raylora tune --set lora.use_d)
COMP_CWORD=3
_raylora_completion raylora
printf '%s\\n' "${COMPREPLY[@]}"
"""


def proposed(*words: str) -> list[str]:
    """The words proposed to bash for a command line whose last one is being typed."""
    return answered(*words).split()


def answered(*words: str) -> str:
    """The same as it is answered, a word in a line."""
    env = {"_RAYLORA_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(["raylora", *words]),
           "COMP_CWORD": str(len(words))}  # fmt: skip
    answer = CliRunner().invoke(app, [], prog_name="raylora", env=env)
    assert answer.exit_code == 0
    return answer.output


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a data set, a search space and something hidden."""
    monkeypatch.chdir(tmp_path)
    for name in ("my_photos", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "my_space.yaml").touch()


def test_commands_and_options() -> None:
    assert proposed("re") == ["resume", "report"]
    assert proposed("jobs", "st") == ["status", "stop"]
    assert proposed("tune", "--sp") == ["--space", "--split"]


def test_spaces_by_name_and_as_files() -> None:
    assert proposed("tune", "--space", "") == [*search_spaces(), "my_photos/", "my_space.yaml"]
    assert proposed("train", "--space", "sdxl") == ["sdxl-character", "sdxl-style"]
    assert proposed("check", "my_photos", "--space", "my_s") == []  # the shell itself completes files


def test_the_demo_stands_beside_files() -> None:
    assert proposed("tune", "--dataset", "") == ["demo", "my_photos/", "my_space.yaml"]
    assert proposed("check", "d") == ["demo"]
    assert proposed("tune", "--base-model", "stabil") == ["stabilityai/stable-diffusion-xl-base-1.0"]


def test_names_that_bash_would_break_are_quoted_for_it_alone() -> None:
    Path("demo b & c").mkdir()
    assert words_of_bash("tune", "--dataset", "d") == ["demo", "demo b & c/"]
    assert words_of_bash("tune", "--dataset", "demo\\ ") == []  # the shell itself completes files
    env = {"_RAYLORA_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
           "_TYPER_COMPLETE_ARGS": "raylora tune --dataset d"}  # fmt: skip
    assert CliRunner().invoke(app, [], prog_name="raylora", env=env).output.splitlines() == ["demo", "demo b & c/"]


def words_of_bash(*words: str) -> list[str]:
    """What bash makes of the words proposed to it, once they stand in a line."""
    answer = answered(*words).split("\n")[:-1]
    line = f"printf '%s\\n' {' '.join(answer)}" if any(answer) else "true"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.splitlines()


def test_paths_are_left_to_the_shell() -> None:
    for words in (["resume", "my"], ["report", ""], ["tune", "--out", ""], ["tune", "--dataset", "my_photos/1"]):
        assert proposed(*words) == []


def test_settings_by_name() -> None:
    assert proposed("tune", "--set", "") == [f"{path}=" for path in field_paths()]
    assert proposed("tune", "--set", "lr_scheduler.n") == ["lr_scheduler.name=", "lr_scheduler.num_restarts="]
    assert proposed("tune", "--set", "no.such") == []


def test_the_values_of_one_setting() -> None:
    assert proposed("tune", "--set", "lora.use_d") == ["lora.use_dora=", "lora.use_dora=true", "lora.use_dora=false"]
    assert "model.family=sdxl" in proposed("tune", "--set", "model.fam")
    assert proposed("tune", "--set", "lora.rank") == ["lora.rank=", "lora.rank=16"]
    assert proposed("tune", "--set", "dataset.trigger") == ["dataset.trigger=", "dataset.trigger=null"]
    assert "training.mixed_precision=bf16" in proposed("check", "demo", "--set", "training.mixed_precision=b")


def test_choices_of_other_options() -> None:
    assert proposed("prepare", "a", "b", "--crop", "") == ["focus", "center", "none"]
    assert proposed("export", "a", "--to", "k") == ["kohya"]
    assert proposed("submit", "--", "t") == ["tune", "train"]


def test_zsh_and_fish_are_told_what_a_setting_is() -> None:
    for shell, more in (("zsh", {}), ("fish", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"})):
        env = {"_RAYLORA_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "raylora tune --set lora.ra", **more}
        answer = CliRunner().invoke(app, [], prog_name="raylora", env=env)
        assert "lora.rank=16" in answer.output and "Rank of the update" in answer.output


def test_bash_completes_by_its_script_and_loads_nothing_heavy(tmp_path: Path) -> None:
    program = tmp_path / "raylora"
    program.write_text(PROGRAM.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(["bash", "-c", PRESS_TAB], capture_output=True, text=True, env=env, check=True)
    assert run.stdout.split() == ["lora.use_dora=", "lora.use_dora=true", "lora.use_dora=false"]
    assert run.stderr.split() == []
