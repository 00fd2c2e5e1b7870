"""All kinds, and running them."""

from __future__ import annotations

import codecs
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bad_input import (
    bases,
    captions,
    checks,
    encoders,
    images,
    loras,
    places,
    prepares,
    reports,
    resumes,
    settings,
)
from benchmarks.bad_input.isolate import Outcome, Watched
from benchmarks.bad_input.kinds import Kind, Shared

LOOK_S = 0.01
ENCODINGS = ("utf-8-sig", "idna", "latin-1", "ascii", "utf-16")
"""Imported when they are first asked for, which a user without rights may not."""


def all_kinds() -> list[Kind]:
    """Every kind there is, each under a name of its own."""
    parts = (images, captions, settings, loras, bases, encoders, places, resumes, prepares, checks, reports)
    return [kind for part in parts for kind in part.kinds()]


def import_all() -> None:
    """What commands import when they need it, so that each process of its own finds it there."""
    import diffusers  # noqa: F401
    import mlflow  # noqa: F401
    import optuna  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import raylora.cli
    import raylora.execution.alone
    import raylora.execution.assess
    import raylora.execution.conclude
    import raylora.execution.tuner
    import raylora.execution.warm_start
    import raylora.preparation.blip
    import raylora.preparation.focus
    import raylora.preparation.learning
    import raylora.preparation.preparing
    import raylora.preparation.tagger
    import raylora.report.live
    import raylora.report.page
    import raylora.report.steps
    import raylora.tracking.mlflow_runs  # noqa: F401

    torch.set_num_threads(1)
    for encoding in ENCODINGS:
        codecs.lookup(encoding)


def run_kinds(kinds: Sequence[Kind], root: Path, shared: Shared, at_once: int) -> list[Outcome]:
    """The outcome of each, in their order; several run at a time."""
    import_all()
    waiting, running, done = list(enumerate(kinds)), list[tuple[int, Watched]](), dict[int, Outcome]()
    while waiting or running:
        while waiting and len(running) < at_once:
            number, kind = waiting.pop(0)
            running.append((number, Watched(kind, root / f"{number:03d}", shared)))
        for entry in list(running):
            number, watched = entry
            if outcome := watched.look():
                done[number] = outcome
                for fault in outcome.faults:
                    print(f"{outcome.kind.name}: {fault}", file=sys.stderr, flush=True)
                running.remove(entry)
                _remove(watched.sandbox)
        time.sleep(LOOK_S)
    return [done[number] for number in range(len(kinds))]


def _remove(sandbox: Path) -> None:
    """A kind's folder, whatever rights it has left on it."""
    for place, _, _ in os.walk(sandbox):
        os.chmod(place, 0o700)  # noqa: PTH101
    shutil.rmtree(sandbox, ignore_errors=True)
