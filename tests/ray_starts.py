"""Ray that fails as it starts or connects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import ray


def failing_starts(errors: Sequence[Exception], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Ray's start, which fails with one after the other; the options that it was given each time."""
    asked: list[Any] = []

    def init(*_: object, **options: Any) -> None:
        asked.append(options)
        if len(asked) <= len(errors):
            raise errors[len(asked) - 1]

    monkeypatch.setattr(ray, "init", init)
    return asked
