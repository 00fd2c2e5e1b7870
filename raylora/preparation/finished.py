"""What an earlier run of the same job has written, read again out of its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.dataset.places import SHEETS
from raylora.errors import OutputError
from raylora.files import read_mapping
from raylora.preparation.cutting import Cut, cut_from_json
from raylora.preparation.job import Job
from raylora.preparation.prepared import Done, Prepared
from raylora.preparation.sources import LeftOut
from raylora.preparation.work_folder import WorkFolder


def read_finished(job: Job, work: WorkFolder) -> Prepared:
    """The result of a folder that `is_whole`.

    Raises:
        OutputError: its record can't be read.
    """
    try:
        content = read_mapping(work.manifest)
        images = {str(one["source"]): one for one in content["images"]}
        done = [Done(one, _cut(images[one.name]), str(images[one.name]["file_sha256"]), "")
                for one in job.pictures if one.name in images]  # fmt: skip
        captions = {name: str(one["caption"]) for name, one in images.items()}
        found = {name: one["caption_found"] for name, one in images.items() if one["caption_found"] is not None}
        edited = {name for name, one in images.items() if one.get("caption_edited")}
        left_out = [LeftOut(str(one["source"]), str(one["reason"])) for one in content["left_out"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise OutputError(f"{work.manifest}: can't be read; make it anew with --force") from None
    texts = [*captions.values()]
    return Prepared(done, left_out, found, captions, edited, job.count_tags(texts), _sheets(work))


def _cut(image: Mapping[str, Any]) -> Cut:
    return cut_from_json({**image, "original": image["source_size"], "refused": None})


def _sheets(work: WorkFolder) -> list[str]:
    """Below the folder, in the order of their numbers."""
    names = {path.name for path in (work.root / SHEETS).glob("page_*.png")}
    return [f"{SHEETS}/{name}" for name in sorted(names, key=lambda name: (len(name), name))]
