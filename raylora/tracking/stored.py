"""Trials' samples that lie on a storage, brought here for MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raylora.errors import StorageError, first_line
from raylora.storage import Storage

SILENCE_S = 60
"""How long a storage that failed is not asked again while a search runs."""


@dataclass(frozen=True)
class Stored:
    """Where a search keeps its trials' files, if not in its output folder."""

    uri: str
    root: Path
    """The output folder."""

    def bring_samples(self, folder: Path, images_seen: int) -> None:
        """Bring a trial's pictures of one evaluation into its folder here: of the first fold, where there are several.

        Raises:
            StorageError: the storage is away; whoever asks again later may get them.
        """
        below = folder.relative_to(self.root).as_posix()
        places = tuple(f"{below}/{fold}samples/" for fold in ("", "fold_0/"))

        def is_wanted(name: str) -> bool:
            return name.startswith(places) and name.endswith(f"_{images_seen:06d}.png")

        Storage(self.uri).pull(self.root, below, is_wanted)


class Samples:
    """Trials' pictures, brought from where they lie. A storage that is away is told of once and left alone for a while.

    Args:
        stored: None where they lie in the trials' folders.
        warn: told once when the storage stops answering.
    """

    def __init__(self, stored: Stored | None, warn: Callable[[str], None]):
        self._stored, self._warn = stored, warn
        self._is_told, self._silent_until = False, 0.0

    @property
    def rest_s(self) -> float:
        """How long the storage is left alone."""
        return max(0.0, self._silent_until - time.monotonic())

    def ask_again(self) -> None:
        """Leave the storage alone no longer."""
        self._silent_until = 0.0

    def bring(self, folder: Path, images_seen: int) -> bool:
        """Whether a trial's pictures of one evaluation, if there are any, lie in its folder now."""
        if self._stored is None:
            return True
        if self.rest_s:
            return False
        try:
            self._stored.bring_samples(folder, images_seen)
        except (StorageError, OSError) as error:
            if not self._is_told:
                self._warn(
                    f"MLflow lacks trials' pictures for now ({first_line(error)}); it gets them once they can be had, "
                    "and the search goes on"
                )
            self._is_told, self._silent_until = True, time.monotonic() + SILENCE_S
            return False
        self._is_told = False
        return True
