"""What MLflow's, the hub's and the images' answers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raylora.config import Experiment
from raylora.execution.doctor.asking import Heard
from raylora.execution.doctor.rows import Finding, Row, bad, failed, good, row, unchecked, warning

ONLINE = "go online, set HF_ENDPOINT or a proxy, or give models as folders"


def judge_mlflow(written: Mapping[str, Any], experiment: Experiment) -> list[Finding]:
    """A search deletes nothing, so where that can't be done only the doctor's own file is in anybody's way."""
    uri, place, left = experiment.tracking.uri, written["place"], written["left"]
    if uri is None:
        return [good(f"works; without --tracking-uri a search keeps a file of its own in {place}")]
    found = f"{uri} takes runs and files, which go to {place}"
    if left is None:
        return [good(found)]
    why = f" ({written['reason']})" if written["reason"] else ""
    return [
        warning(f"{found}, and can't be deleted there{why}", f"remove what was tried, {left}; a search deletes nothing")
    ]


def judge_storage(uri: str, _: Experiment) -> list[Finding]:
    return [good(f"{uri} can be written, read and emptied from here; a search asks each node")]


def judge_model(found: Mapping[str, Any], _: Experiment) -> list[Finding]:
    """A model that is on disk, was downloaded before, or can be."""
    reference, where, silent = found["reference"], found["where"], found["silent"]
    if where == "hub" and silent is not None:
        return [bad(f"{reference}: its weights were not downloaded, and {silent}", ONLINE)]
    words = {"disk": "is on this machine", "cache": "was downloaded before", "hub": "is on the hub, to be downloaded"}
    return [good(f"{reference} {words[where]}")]


def judge_hub(silent: str | None, _: Experiment) -> list[Finding]:
    if silent is not None:
        return [warning(f"{silent}: only models that are here can be used", ONLINE)]
    return [good("answers")]


def judge_pictures(read: Mapping[str, Any], _: Experiment) -> list[Finding]:
    """Every problem by itself."""
    findings = [failed(problem, "mend it") for problem in read["problems"]]
    findings += [warning(*_parted(text)) for text in read["warnings"]]
    return findings if read["problems"] else [good(f"{read['pictures']} images"), *findings]


def _parted(text: str) -> tuple[str, str]:
    found, _, mend = text.partition("; ")
    return found, mend or "look at it"


Judge = Callable[[Any, Experiment], list[Finding]]
CHECKS: Mapping[str, tuple[Judge, str]] = {
    "dataset": (judge_pictures, "look at the folder and its disk"),
    "regularization": (judge_pictures, "look at the folder and its disk"),
    "base model": (judge_model, "give another with --base-model"),
    "encoder": (judge_model, "give another with --set evaluation.encoder=…"),
    "hub": (judge_hub, ONLINE),
    "mlflow": (judge_mlflow, "start the server, or mend the address"),
    "storage": (judge_storage, "mend the address or the credentials, or leave search.storage out"),
}
"""How each is judged, and the mend where the answer has none."""


def unasked(experiment: Experiment) -> dict[str, Finding | None]:
    """What needs no looking at, and what is told of that: nothing of what a search can do without,
    or of a default where nothing was named."""
    reasons: dict[str, tuple[str | None, Finding | None]] = {
        "dataset": (experiment.dataset.path, unchecked("no images were named", "give --dataset")),
        "regularization": (experiment.dataset.regularization, None),
        "base model": (experiment.model.base_model, unchecked("no base model was named", "give --base-model")),
        "storage": (experiment.search.storage, None),
        "encoder": (experiment.model.base_model or experiment.dataset.path, None),
    }
    return {name: reason for name, (value, reason) in reasons.items() if value is None}


def judge_services(heard: Heard, experiment: Experiment) -> list[Row]:
    """All that was looked at, and why the rest wasn't."""
    rows, skipped = [], unasked(experiment)
    for name, (judge, mend) in CHECKS.items():
        if name in skipped:
            reason = skipped[name]
            findings = [reason] if reason else []
        elif name in heard.values:
            findings = judge(heard.values[name], experiment)
        else:
            findings = [failed(heard.faults.get(name, "not told"), mend)]
        rows += [row("MLflow" if name == "mlflow" else name, finding) for finding in findings]
    return rows
