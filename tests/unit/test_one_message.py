"""A mistake on the command line is told once, and as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from raylora.cli import app
from raylora.errors import ConfigError
from raylora.preparation.settings import build_settings


@pytest.mark.parametrize("command", ["tune --demo", "train --demo", "tune --space realistic"])
def test_a_blank_for_the_equals_sign_is_told_and_no_file_is_missed(command: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set lora\.rank: expected section\.field=value, such as --set lora"):
        CliRunner().invoke(app, [*command.split(), "--set", "lora.rank", "8"], catch_exceptions=False)


def test_a_file_that_is_missing_is_still_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: there is no such file$"):
        CliRunner().invoke(app, ["tune", str(tmp_path / "no.yaml"), "--set", "lora.rank=8"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        (["500x500"], ["--size: both sides must be multiples of 64; use 512x512 (found '500x500')"]),
        (["512x512", "500x500"], ["--size: both sides must be multiples of 64; use 512x512 (found '500x500')"]),
        ([], ["--size: must have 1 or more entries (found [])"]),
    ],
)
def test_a_size_that_cannot_be_is_one_fault(sizes: list[str], told: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        build_settings({"sizes": sizes})
    assert str(refused.value).splitlines() == told
