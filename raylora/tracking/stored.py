"""Trials' samples that lie on a storage, brought here for MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raylora.storage import Storage


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
