"""Experiment files and `--set`: read in layers, checked once, every error told with its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from raylora.config import Experiment, field_paths, flatten, section_paths, set_path
from raylora.config_section import nearest
from raylora.errors import ConfigError
from raylora.files import MOST_TEXT_BYTES, read_ordinary, write_atomically
from raylora.redaction import redacted
from raylora.yaml_text import load_yaml

WHOLE, NUMBER = "must be a whole number", "must be a number"
WORDS = {
    "greater_than_equal": "must be at least {ge:.10g}",
    "greater_than": "must be above {gt:.10g}",
    "less_than_equal": "must be at most {le:.10g}",
    "less_than": "must be below {lt:.10g}",
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_from_float": WHOLE,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text; put it in quotes",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list in brackets, such as [1, 2]",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have at most {max_length} entries",
    "missing": "is missing",
    "model_type": "must be settings of its own, such as {{choices: [4, 8]}}",
    "dict_type": "must be settings of its own, such as {{name: value}}",
    "string_too_short": "must not be empty",
}
"""pydantic's kinds of errors. https://docs.pydantic.dev/latest/errors/validation_errors/"""


MOST_TOLD, MOST_ECHOES = 20, 1000
"""Faults of one file that are told, and that are looked at: who has more has given another file."""
LONGEST_QUOTE = 200
"""Characters of a value in a message."""

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value."""


@dataclass(frozen=True)
class Layer:
    """Settings of one source (a file, a search space, the command line), nested as in YAML."""

    source: str
    settings: Mapping[str, Any]

    @property
    def flat(self) -> dict[str, Any]:
        """The settings by dotted path. A section with nothing below, `lora:`, sets nothing."""
        sections = section_paths()
        return {
            path: value for path, value in flatten(self.settings).items() if value is not None or path not in sections
        }


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping.

    Raises:
        ConfigError: no such file, no YAML, or no mapping.
    """
    try:
        content = load_yaml(read_ordinary(path, MOST_TEXT_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder and no settings file; a folder of images goes with --dataset") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); give a settings file in YAML") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: can't be read: is not UTF-8 text; save it as UTF-8") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; write valid YAML there") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: expected `section:` with settings below, found {type(content).__name__}")
    return content


def parse_assignments(assignments: Sequence[str]) -> Layer:
    """`section.field=value` strings of `--set`, values read as YAML."""
    settings: dict[str, Any] = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {_short(text)}: expected section.field=value, such as --set lora.rank=8")
        try:
            set_path(settings, path.strip(), load_yaml(value))
        except ValueError:
            raise ConfigError(f"--set {_short(text)}: the value is not valid YAML") from None
    return Layer("--set", settings)


def build_experiment(layers: Iterable[Layer]) -> Experiment:
    """One experiment from layers; later layers win.

    Raises:
        ConfigError: naming source, field, value and mend of everything that is wrong, at once.
    """
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        for path, value in layer.flat.items():
            set_path(merged, path, value)
            sources.pop(path, None)
            sources[path] = layer.source  # the latest layer comes last
    try:
        return Experiment.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error, sources)) from None


def check_complete(experiment: Experiment) -> None:
    """Whether the two things without a default were given.

    Raises:
        ConfigError: no base model, no data set, or neither.
    """
    missing = []
    if experiment.model.base_model is None:
        missing.append("no base model: give --base-model, a hub id, a diffusers folder or a .safetensors file")
    if experiment.dataset.path is None:
        missing.append("no dataset: give --dataset, a folder of images with captions")
    if len(missing) > 1:
        missing.append("--demo stands for both, to see how it works")
    if missing:
        raise ConfigError("\n".join(missing))


def explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    """pydantic's errors as one line each: source, field, what is wrong, how to mend it."""
    problems = [dict(problem) for problem in error.errors()]
    told = [problem for problem in problems[:MOST_ECHOES] if not is_echo(problem, problems)]
    lines = [_explain_one(problem, sources) for problem in told[:MOST_TOLD]]
    more = len(problems) - len(lines)
    return "\n".join([*lines, f"and {more} more"] if len(told) > MOST_TOLD else lines)


def is_echo(problem: Mapping[str, Any], problems: Sequence[Mapping[str, Any]]) -> bool:
    """A list whose only entry is wrong is also too short for pydantic."""
    place = problem["loc"]
    return problem["type"] == "too_short" and any(
        other is not problem and other["loc"][: len(place)] == place for other in problems
    )


def _explain_one(problem: dict[str, Any], sources: Mapping[str, str]) -> str:
    location = [str(part) for part in problem["loc"]]
    path = ".".join(part for part in location if not part.isdigit())
    source = _source_of(path, sources)
    path = _short(path)
    if problem["type"] == "extra_forbidden":
        known = [*section_paths(), *field_paths()] if problem["input"] is None else field_paths()
        known = section_paths() if isinstance(problem["input"], dict) else known
        return f"{source}: {path}: there is no such setting{nearest(path, known)}"
    message = in_words(problem)
    if not path:  # a rule over several fields begins with the section that it is about
        return f"{_source_of(message.partition(':')[0], sources)}: {message}"
    if path in section_paths():
        example = next(known for known in field_paths() if known.startswith(f"{path}."))
        message = f"is a section; set {example}=…"
    return f"{source}: {path}: {message} (found {_short(repr(problem['input']))})"


def _short(value: str) -> str:
    """What was given, as a message may quote it."""
    value = redacted(value)
    return value if len(value) <= LONGEST_QUOTE else f"{value[:LONGEST_QUOTE]}…"


def in_words(problem: Mapping[str, Any]) -> str:
    """What is wrong, as raylora says it; pydantic's own words where it has none."""
    known = WORDS.get(problem["type"])
    return known.format(**problem.get("ctx", {})) if known else problem["msg"].removeprefix("Value error, ")


def fold_branches(error: ValidationError, content: Any) -> dict[Place, list[dict[str, Any]]]:
    """pydantic's errors by their place in what was read.

    Of a value that may be one of several types pydantic tells an error for each, and puts its own names for them into
    the place, such as `int` or `function-before[…]`: parts that the content doesn't have.
    """
    folded: dict[Place, list[dict[str, Any]]] = {}
    for problem in error.errors():
        place: list[str | int] = []
        inside = content
        for part in problem["loc"]:
            is_there = part in inside if isinstance(inside, Mapping) else isinstance(part, int)
            if not (is_there or problem["type"] == "missing"):
                break
            place.append(part)
            inside = _below(inside, part)
        folded.setdefault(tuple(place), []).append(dict(problem))
    return folded


def _below(content: Any, key: str | int) -> Any:
    try:
        return content[key]
    except (TypeError, KeyError, IndexError):
        return None


def _source_of(path: str, sources: Mapping[str, str]) -> str:
    """The latest layer that set the path, a part of it, or the section around it."""
    near = [known for known in sources if f"{known}.".startswith(f"{path}.") or f"{path}.".startswith(f"{known}.")]
    return sources[near[-1]] if near else "settings"


def write_experiment(experiment: Experiment, path: Path) -> None:
    """The settings as YAML that `build_experiment` reads again."""
    settings = experiment.model_dump(mode="json", exclude_none=True)
    write_atomically(path, yaml.safe_dump(settings, sort_keys=False).encode())


def read_experiment(path: Path) -> Experiment:
    """What `write_experiment` wrote, or any experiment file."""
    return build_experiment([Layer(str(path), read_yaml(path))])
