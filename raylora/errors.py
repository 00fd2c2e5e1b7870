"""Everything raylora raises on purpose.

RayloraError                 the work failed                              exit status 1
├── TrainingDivergedError    a loss or a weight is no longer a number
├── WorkerLostError          a worker or its device is gone; its work can be done elsewhere
├── StorageError             a disk or an object store is full or gone; the work can go on once that is mended
├── PromotionError           an alias stays where it is: the other LoRA is no better, or that can't be told
└── UserError                what was given is wrong: what, where, mend   exit status 2
    ├── ConfigError          settings, search spaces, command line
    │   └── NotInSpaceError      a point that a search space can't propose
    ├── DatasetError         folders, pictures, captions
    │   └── CaptionError         a picture's caption can't be read
    ├── ModelError           base models and LoRA files
    │   ├── UnknownLayerError    a LoRA of layers that no known architecture has
    │   └── UnreachableError     a model that is neither here nor can be asked for
    ├── OutputError          the output folder and its disk
    │   └── AtWorkError          another process works in it
    └── TrackingError        the MLflow server
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


class RayloraError(Exception):
    """The work failed though the input was right."""

    exit_status = 1


class TrainingDivergedError(RayloraError):
    """The training loss or a measure stopped being a finite number."""


class WorkerLostError(RayloraError):
    """A worker, its device or its node is gone, through no fault of the work."""


class StorageError(RayloraError):
    """A disk or an object store is full or gone: nothing else that is tried there would fare better."""


class PromotionError(RayloraError):
    """A LoRA doesn't get an alias, since the one that has it isn't worse, or since that can't be told."""


DIVERGED = "diverged: "
"""Begins the reason of a trial that failed so."""


class UserError(RayloraError):
    """The input is wrong. The message says what, where, and how to mend it."""

    exit_status = 2


class ConfigError(UserError):
    """A setting, a search space or an option is wrong."""


class NotInSpaceError(ConfigError):
    """A point that a search space can't propose; `path` is the setting that doesn't fit."""

    def __init__(self, path: str, message: str):
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[type[NotInSpaceError], tuple[str, str]]:
        """It goes from process to process, as exceptions of one argument do."""
        return NotInSpaceError, (self.path, str(self))


class DatasetError(UserError):
    """A dataset folder, one of its pictures or one of its captions is wrong."""


class CaptionError(DatasetError):
    """A caption can't be read; `picture` is whose."""

    def __init__(self, picture: Path, message: str):
        super().__init__(message)
        self.picture = picture

    def __reduce__(self) -> tuple[type[CaptionError], tuple[Path, str]]:
        """It goes from process to process, as exceptions of one argument do."""
        return CaptionError, (self.picture, str(self))


class ModelError(UserError):
    """A base model or a LoRA file can't be used."""


class UnknownLayerError(ModelError):
    """A LoRA file has weights of a layer that no architecture has which raylora knows."""


class UnreachableError(ModelError):
    """A model's hub doesn't answer, and the model was not downloaded before."""


class OutputError(UserError):
    """The output folder can't be used."""


class AtWorkError(OutputError):
    """Another process works in the output folder, so nothing in it is this one's."""


class TrackingError(UserError):
    """The MLflow server can't be used."""


def first_line(error: Exception) -> str:
    """The first line of another library's message, or the error's kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def ends_of(error: Exception) -> str:
    """Its first line and its last, which is what a log or a traceback that is shown ends with."""
    lines = str(error).strip().splitlines()
    return f"{lines[0]} … {lines[-1]}" if len(lines) > 1 else first_line(error)


DISK_MENDS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or have your quota raised",
    errno.EROFS: "mount it so that it can be written",
    errno.EACCES: "let your user read and write it",
}
"""Faults of a disk that its owner can mend, and how."""


def disk_fault(error: BaseException) -> str | None:
    """What the operating system says of a disk that can't be used, and the mend; None of any other error."""
    if not isinstance(error, OSError) or error.errno not in DISK_MENDS:
        return None
    where = f": {error.filename}" if error.filename else ""
    return f"{os.strerror(error.errno)}{where}; {DISK_MENDS[error.errno]}"


LONGEST_PATH = 300
"""Characters of it in a message."""
PATH_FAULTS = (errno.ENAMETOOLONG, errno.ELOOP)
"""What the operating system says of paths that can't be, whoever asks."""


def path_fault(error: BaseException) -> str | None:
    """What the operating system says of a path that was given and can't be; None of any other error."""
    if not isinstance(error, OSError) or error.errno not in PATH_FAULTS:
        return None
    return f"{str(error.filename)[:LONGEST_PATH]}: {os.strerror(error.errno)}; give another path"
