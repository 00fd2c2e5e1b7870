"""Output folders that something has been at, given to `resume` and `--warm-start`."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bad_input.edits import PICKLED
from benchmarks.bad_input.kinds import CANARY, PLAN, REFUSED, Kind, Make, writes

Edit = Callable[[Path], object]


def copied(which: str, edit: Edit) -> Make:
    """An interrupted output folder as `out`, with something changed in it."""

    def make(folder: Path) -> None:
        out = Path(shutil.copytree(folder.parent.parent / "shared" / which, folder / "out"))
        for file in [*out.rglob("*.json")]:
            file.write_text(file.read_text().replace("OUT_FOLDER", str(out)))
        edit(out)

    return make


def _json(name: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    def edit(out: Path) -> None:
        content = json.loads((out / name).read_text())
        change(content)
        (out / name).write_text(json.dumps(content))

    return edit


def _state(**values: object) -> Edit:
    return _json("state.json", lambda state: state.update(values))


def _gone(name: str) -> Edit:
    return lambda out: (out / name).unlink()


def _loop(name: str) -> Edit:
    def edit(out: Path) -> None:
        (out / name).unlink()
        (out / name).symlink_to(name)

    return edit


def _pipe(name: str) -> Edit:
    def edit(out: Path) -> None:
        (out / name).unlink()
        os.mkfifo(out / name)

    return edit


def _dataset_elsewhere(out: Path) -> None:
    text = (out / "experiment.yaml").read_text().splitlines()
    (out / "experiment.yaml").write_text("\n".join("  path: /etc" if "path:" in line else line for line in text))


TRIAL, JOURNAL = "trials/t000/trial.json", "study.journal"


SEARCHES: dict[str, Edit] = {
    "state: broken": writes("state.json", "{"),
    "state: deep": writes("state.json", "[" * 100_000),
    "state: a list": writes("state.json", "[]"),
    "state: a pipe": _pipe("state.json"),
    "state: a link that loops": _loop("state.json"),
    "state: an unknown word": _state(state=5),
    "state: a store of no kind": _state(tracking_uri=5),
    "state: an unknown store": _state(tracking_uri="nonsense://bad"),
    "state: a store on no server": _state(tracking_uri="http://127.0.0.1:9"),
    "state: a store with a password": _state(tracking_uri=f"http://user:{CANARY}@127.0.0.1:9"),
    "state: a run of no kind": _state(parent_run_id=["a"]),
    "state: a run that is gone": _state(parent_run_id="../../bad"),
    "state: an address of no kind": _state(address=5),
    "state: an unknown address": _state(address="bad"),
    "state: seconds of no kind": _state(wall_s="long"),
    "experiment: gone": _gone("experiment.yaml"),
    "experiment: broken": writes("experiment.yaml", "lora: [\n"),
    "experiment: with python": writes("experiment.yaml", "lora: !!python/object/apply:os.system ['touch pwned']\n"),
    "experiment: empty": writes("experiment.yaml", ""),
    "experiment: unknown settings": writes("experiment.yaml", "lora: {rnak: 5}\n"),
    "experiment: another dataset": _dataset_elsewhere,
    "experiment: a pipe": _pipe("experiment.yaml"),
    "space: gone": _gone("space.yaml"),
    "space: broken": writes("space.yaml", "name: [\n"),
    "space: with python": writes("space.yaml", "name: !!python/name:os.system\n"),
    "space: of other settings": writes("space.yaml", "name: bad\nparameters: {lora.rnak: {choices: [2, 4]}}\n"),
    "space: a pipe": _pipe("space.yaml"),
    "split: gone": _gone("split.json"),
    "split: broken": writes("split.json", "{"),
    "split: of files outside": writes("split.json", '{"holdout": [{"file": "/etc/passwd", "digest": "00"}]}'),
    "split: of nothing": writes("split.json", '{"holdout": []}'),
    "split: a pipe": _pipe("split.json"),
    "trial: broken": writes(TRIAL, "{"),
    "trial: a list": writes(TRIAL, "[]"),
    "trial: of nothing": writes(TRIAL, "{}"),
    "trial: deep": writes(TRIAL, "[" * 100_000),
    "trial: a pipe": _pipe(TRIAL),
    "trial: a history of no kind": _json(TRIAL, lambda record: record.update(history=[5], status="running")),
    "trial: a number of no kind": _json(TRIAL, lambda record: record.update(number="0")),
    "trial: settings that are none": _json(TRIAL, lambda record: record.update(params={"lora.rnak": 5})),
    "trial: an unknown status": _json(TRIAL, lambda record: record.update(status="dead")),
    "journal: binary": writes(JOURNAL, b"\0\xff" * 100),
    "journal: a pickle": writes(JOURNAL, PICKLED + b"\n"),
    "journal: another program's": writes(JOURNAL, '{"op_code": 99, "worker_id": "x"}\n'),
    "journal: no JSON": writes(JOURNAL, "bad\nbad\n"),
    "journal: a list": writes(JOURNAL, "[]\n[]\n"),
    "journal: deep": writes(JOURNAL, "[" * 100_000 + "\n"),
    "journal: trials of no study": writes(JOURNAL, '{"op_code": 4, "worker_id": "x", "study_id": 7}\n'),
    "journal: a pipe": _pipe(JOURNAL),
}


def searches() -> list[Kind]:
    """A search's folder."""
    found = [Kind(f"resume/{what}", "resume out", copied("search", edit)) for what, edit in SEARCHES.items()]
    warm = {what: edit for what, edit in SEARCHES.items() if what.startswith(("experiment", "journal"))}
    warm["nothing in it"] = lambda out: [shutil.rmtree(out), out.mkdir()]

    def beside(edit: Edit) -> Make:
        def make(folder: Path) -> None:
            copied("search", edit)(folder)
            (folder / "out").rename(folder / "earlier")

        return make

    line = PLAN.replace("--out out", "--out out --warm-start earlier")
    return found + [
        Kind(f"warm start/{what}", line, beside(edit))
        for what, edit in warm.items()
        if what != "experiment: another dataset"
    ]


def trainings() -> list[Kind]:
    """A training's folder."""
    edits: dict[str, Edit] = {
        "state: broken": writes("state.json", "{"),
        "state: of no kind": _state(holds_out="maybe", wall_s=[]),
        "state: another digest": _state(digest="bad"),
        "experiment: broken": writes("experiment.yaml", "lora: [\n"),
        "experiment: another model": lambda out: (out / "experiment.yaml").write_text(
            (out / "experiment.yaml").read_text().replace("/base", "/gone")
        ),
        "trainer: a pickle": lambda out: [path.write_bytes(PICKLED) for path in out.rglob("state.pt")],
        "trainer: a pickle of protocol 0": lambda out: [
            path.write_bytes(pickle.dumps(_Payload(), 0)) for path in out.rglob("state.pt")
        ],
        "trainer: cut off": lambda out: [os.truncate(path, 500) for path in out.rglob("state.pt")],
        "trainer: empty": lambda out: [path.write_bytes(b"") for path in out.rglob("state.pt")],
        "trainer: of another kind": lambda out: [_save(path, [1, 2]) for path in out.rglob("state.pt")],
        "trainer: of nothing": lambda out: [_save(path, {}) for path in out.rglob("state.pt")],
    }
    return [
        Kind(f"resume training/{what}", "resume out", copied("training", edit), REFUSED) for what, edit in edits.items()
    ]


class _Payload:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch pwned",)


def _save(path: Path, content: object) -> None:
    import torch

    torch.save(content, path)


def references() -> list[Kind]:
    """What is no output folder."""
    names = [
        "missing",
        "good.yaml",
        "pictures",
        "/dev/null",
        "/proc/self",
        "''",
        "a" * 5000,
        "a/" * 3000,
        "s3://bucket/bad",
        "'bad\udcff'",
    ]
    return [Kind(f"resume as/{ascii(name)[:30]}", f"resume {name}") for name in names]


def kinds() -> list[Kind]:
    """All of them."""
    return [*searches(), *trainings(), *references()]
