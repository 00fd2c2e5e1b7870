"""Lines for whoever runs a search, from processes of its cluster: they have no terminal.

They go through Ray's own store of keys and values, on its head, which each process of a cluster can reach; nothing is
started for it, and no trial's reports have to carry them.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

NAMESPACE = b"raylora"


def leave_note(line: str) -> None:
    """Leave a line for the driver of this process's job; without Ray there is none, and nobody to read it."""
    from ray.experimental import internal_kv  # training by itself needs no Ray

    with suppress(Exception):  # of whatever kind: no line is worth a trial
        if internal_kv._internal_kv_initialized():
            internal_kv._internal_kv_put(_prefix() + uuid.uuid4().bytes, line.encode(), namespace=NAMESPACE)


def collect_notes() -> list[str]:
    """The lines that were left for this job, each once; none where the head doesn't answer just then."""
    from ray.experimental import internal_kv

    notes: list[str] = []
    with suppress(Exception):
        if internal_kv._internal_kv_initialized():
            for key in internal_kv._internal_kv_list(_prefix(), namespace=NAMESPACE):
                notes.append(internal_kv._internal_kv_get(key, namespace=NAMESPACE).decode())
                internal_kv._internal_kv_del(key, namespace=NAMESPACE)
    return notes


def _prefix() -> bytes:
    """Of the keys of this job, which the driver has in common with all that runs for it."""
    import ray

    return f"{ray.get_runtime_context().get_job_id()}/".encode()
