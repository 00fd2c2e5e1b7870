"""The house rules that a program can check: docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import raylora
from raylora.bundled import PACKAGE
from raylora.config import Experiment, Section
from raylora.search.space import Parameter, SearchSpace

FLOORS = (
    {"__init__", "errors", "files", "patience", "redaction", "yaml_text"},
    {"config_section", "own_code", "storage_access"},
    {"storage"},
    {"config_evaluation", "config_optimization", "config_search"},
    {"bundled", "config", "world"},
    {"completion", "config_files", "lettering"},
    {"dataset"},
    {"diffusion"},
    {"evaluation"},
    {"search", "training", "tracking", "preparation"},
    {"execution"},
    {"report"},
    {"cli_options"},
    {"cli_export", "cli_output", "cli_prepared", "request"},
    {"cli_check", "cli_doctor", "cli_evaluate", "cli_generate", "cli_prepare", "cli_promote", "cli_submit"},
    {"cli_resume"},
    {"cli"},
    {"__main__"},
)
"""Rooms from the ground up: each may import from those below it, and rooms on one floor never from each other."""
HEIGHT = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

HEAVY = ("torch", "ray", "mlflow", "diffusers", "transformers", "optuna", "sklearn", "cv2", "onnxruntime")
HOMES = {
    "ray": ("execution/",),
    "mlflow": ("tracking/",),
    "optuna": ("search/", "execution/searcher.py", "report/"),
    "sklearn": ("search/",),
    "cv2": ("preparation/focus.py",),
    "onnxruntime": ("preparation/tagger.py",),
    "typer": (
        "cli.py",
        "cli_check.py",
        "cli_doctor.py",
        "cli_evaluate.py",
        "cli_export.py",
        "cli_generate.py",
        "cli_options.py",
        "cli_prepare.py",
        "cli_promote.py",
        "cli_resume.py",
        "cli_submit.py",
    ),
}
"""The only places where a library is imported."""
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_FILE = 400

FILES = sorted(path for path in PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    """The first folder below the package, or the file itself."""
    return name_of(path).split("/")[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_used(path: Path) -> set[str]:
    """The rooms of raylora that a file imports from; what `raylora/__init__.py` defines counts as its own."""
    parts = [module.split(".") for module in imports(path) if module.split(".")[0] == "raylora"]
    return {room if (room := [*part, "__init__"][1]) in HEIGHT else "__init__" for part in parts}


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def lines_of(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield section
    for field in section.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from sections(field.annotation)


@pytest.mark.parametrize(
    "module",
    [
        "raylora.cli",
        "raylora.cli_check",
        "raylora.cli_doctor",
        "raylora.cli_evaluate",
        "raylora.cli_export",
        "raylora.cli_options",
        "raylora.cli_generate",
        "raylora.cli_output",
        "raylora.cli_prepare",
        "raylora.cli_promote",
        "raylora.cli_resume",
        "raylora.cli_submit",
        "raylora.request",
        "raylora.config",
    ],
)
def test_the_command_line_starts_without_heavy_libraries(module: str) -> None:
    program = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def loaded_by(*words: str) -> tuple[str, list[str]]:
    """What a command prints, and the heavy libraries that it loads."""
    program = f"""
import sys
from raylora.cli import main
sys.argv = ["raylora", *{words!r}]
try:
    main()
except SystemExit:
    print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return run.stdout + run.stderr, run.stdout.splitlines()[-1].split()[1:]


def test_help_needs_no_heavy_libraries() -> None:
    told, loaded = loaded_by("tune", "--help")
    assert "--base-model" in told
    assert loaded == []


@pytest.mark.parametrize(("command", "needed"), [("train", []), ("tune", ["optuna"])])
def test_what_is_missing_is_told_before_heavy_libraries_are_loaded(command: str, needed: list[str]) -> None:
    told, loaded = loaded_by(command)
    assert "no base model" in told and "no dataset" in told
    assert loaded == needed


@pytest.mark.parametrize("command", ["train", "tune"])
def test_an_output_folder_in_use_is_told_before_anything_is_loaded_or_planned(command: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    told, loaded = loaded_by(command, "--demo", "--out", str(tmp_path))
    first, *_ = told.splitlines()[1:]
    assert first == f"raylora: error: {tmp_path}: is not empty; give another folder with --out"
    assert loaded == ["optuna"]


@pytest.mark.parametrize(
    ("line", "told", "needed"),
    [
        ("generate none.safetensors --prompt x", "none.safetensors: there is no such LoRA file or folder", []),
        ("evaluate none.safetensors --dataset demo", "none.safetensors: there is no such LoRA file or folder", []),
        (f"evaluate {__file__} --dataset none", "none: there is no such folder", []),
        (f"evaluate {__file__} --dataset demo --base-model ./none", "./none: there is no such file or folder", []),
        ("export none.safetensors --to kohya --out x.safetensors", "there is no such LoRA file", []),
        ("export x.ckpt --to kohya --out x.safetensors", "pickled files can run any code", []),
        ("promote none --name x", "none: there is no such folder, and no run is called so", []),
        ("resume none", "none: there is no such folder", []),
        ("train --dataset none --base-model demo", "none: there is no such folder", ["optuna"]),
        ("train --dataset demo --base-model ./none", "./none: there is no such file or folder", []),
        ("train --demo --split none.json", "none.json: there is no such file", ["optuna"]),
        ("train --demo --set dataset.regularization=none", "none: there is no such folder", ["optuna"]),
        ("tune --dataset none --base-model demo", "none: there is no such folder", ["optuna"]),
        ("tune --dataset demo --base-model none.safetensors", "none.safetensors: there is no such file", ["optuna"]),
        ("tune --demo --warm-start none", "none: there is no such folder; give the --out folder", ["optuna"]),
        ("tune --demo --force", "--force: there is no --warm-start", ["optuna"]),
    ],
)
def test_a_path_that_leads_nowhere_is_told_before_heavy_libraries_are_loaded(
    line: str, told: str, needed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed, loaded = loaded_by(*line.split())
    assert told in printed
    assert loaded == needed
    assert list(tmp_path.iterdir()) == []


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in FILES} <= set(HEIGHT)
    assert Path(raylora.__file__).parent == PACKAGE


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_import_only_downward(path: Path) -> None:
    room = room_of(path)
    wrong = {other for other in rooms_used(path) if other != room and HEIGHT[other] >= HEIGHT[room]}
    assert wrong == set(), f"{name_of(path)} may not import from {sorted(wrong)}"


@pytest.mark.parametrize("library", HOMES)
def test_libraries_are_imported_at_home_alone(library: str) -> None:
    users = {name_of(path) for path in FILES if library in {module.split(".")[0] for module in imports(path)}}
    assert users
    assert {user for user in users if not user.startswith(HOMES[library])} == set()


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{name_of(path)}: {function.name}": lines_of(function)
        for path in FILES
        for function in functions(path)
        if lines_of(function) > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


def test_no_file_is_too_long() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_OF_A_FILE} == {}


@pytest.mark.parametrize(
    "section", [*sections(Experiment), SearchSpace, Parameter], ids=lambda section: section.__name__
)
def test_every_setting_is_described(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            assert field.description, f"{section.__name__}.{name} has no description"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
