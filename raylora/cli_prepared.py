"""What `raylora prepare` says at its end: what was done, what to look at, and what comes next."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.redaction import copied, one_line, shown

if TYPE_CHECKING:
    from raylora.dataset.findings import Finding
    from raylora.preparation.job import Job
    from raylora.preparation.prepared import Done, Prepared

SHOWN_TAGS = 15
MOST_PROPOSED = 10
"""Tags in a command that is proposed; the table has the others."""
NEEDS_SHARED = 2
"""Images that have a tag before it is shown: sentences have none in common."""


def print_prepared(job: Job, prepared: Prepared, root: Path, findings: list[Finding], as_json: bool) -> None:
    """The result on stdout, with what the check has found in it."""
    if as_json:
        print(json.dumps(_summary(job, prepared, root, findings), indent=2))
    else:
        print("\n".join(_lines(job, prepared, root, findings)))


def print_dry_run(job: Job, prepared: Prepared, root: Path, as_json: bool) -> None:
    """The same of what would be done."""
    if as_json:
        print(json.dumps(_summary(job, prepared, root, None), indent=2))
    else:
        lines = [*_differences(prepared), *_caption_lines(job, prepared)]
        print("\n".join([*map(shown, lines), *_tag_lines(prepared, "with")]))


def _summary(job: Job, prepared: Prepared, root: Path, findings: list[Finding] | None) -> dict[str, Any]:
    """For programs; the same with `--dry-run`, whose files are not there, nor what was found in them."""
    from raylora.preparation.manifest import manifest_of

    tags = [{"tag": one.tag, "images": one.images, "share": one.share, "removable": one.removable}
            for one in prepared.tags]  # fmt: skip
    return {
        "folder": str(root),
        "written": findings is not None,
        "prepared": len(prepared.done),
        "contact_sheets": [str(root / name) for name in prepared.sheets],
        "tags": tags,
        "findings": None if findings is None else [finding.as_dict() for finding in findings],
        "next": next_command(job, root),
        **manifest_of(job, prepared),
    }


def _lines(job: Job, prepared: Prepared, root: Path, findings: list[Finding]) -> Iterator[str]:
    """What was done, what to look at, and what comes next; commands whole, to be copied."""
    from raylora.dataset.places import MANIFEST

    folders = sorted({one.source.target.rpartition("/")[0] for one in prepared.done})
    without = f", {len(prepared.left_out)} left out" if prepared.left_out else ""
    yield shown(f"Prepared:      {_images(prepared)} in {', '.join(str(root / name) for name in folders)}{without}")
    faces = sum(bool(one.cut.faces) for one in prepared.done)
    if job.settings.crop == "focus":
        yield f"Cut around:    faces in {faces} of them, what stands out in the others"
    yield from map(shown, _caption_lines(job, prepared))
    yield from _tag_lines(prepared, "again with --force")
    for name in prepared.sheets:
        yield shown(f"Contact sheet: {root / name}")
    yield shown(f"Manifest:      {root / MANIFEST}")
    yield from _finding_lines(job, root, findings)
    yield copied(f"Next:          {next_command(job, root)}")


def _caption_lines(job: Job, prepared: Prepared) -> Iterator[str]:
    """Whose captions there are, where a captioner was asked for or somebody has changed some by hand."""
    edited = len(prepared.edited)
    if not job.model and not edited:
        return
    there = sum(job.has_own(one.source) for one in prepared.done if one.source.name not in prepared.edited)
    told = [f"{len(prepared.found)} by {job.model.reference}"] if job.model else []
    how = " (--existing replace or extend asks for them too)" if job.model and job.settings.existing == "keep" else ""
    told += [f"{there} that {'were' if there != 1 else 'was'} there{how}"] * bool(there)
    told += [f"{edited} changed by hand"] * bool(edited)
    yield f"Captions:      {', '.join(told)}"


def _tag_lines(prepared: Prepared, how: str) -> Iterator[str]:
    """The commonest tags, and which of them a LoRA may as well learn by itself; `how` the command is given then."""
    common = [one for one in prepared.tags if one.images >= NEEDS_SHARED]
    if common:
        told = [f"{one.tag} {one.images}" for one in common[:SHOWN_TAGS]]
        more = f", and {len(prepared.tags) - len(told)} more" if len(prepared.tags) > len(told) else ""
        yield shown(f"Tags:          of {_images(prepared)}: {', '.join(told)}{more}")
    removable = [one.tag for one in prepared.tags if one.removable]
    if removable:
        yield copied(f"Fixed traits?  {_proposal(removable, how)}")


def _proposal(removable: list[str], how: str) -> str:
    """What to add to a command, in a shell's words; of many tags where they stand."""
    from raylora.preparation.tags import as_entry

    if len(removable) > MOST_PROPOSED:
        return (
            f"{len(removable)} tags are on nearly all images: tags.csv has `remove` behind them; to leave some to the "
            f"trigger word, put these into a file, one a line, and {how} --remove @FILE"
        )
    options = " ".join(f"--remove {shlex.quote(as_entry(tag))}" for tag in removable)
    return f"on nearly all images; to leave them to the trigger word, {how} {options}"


def _finding_lines(job: Job, root: Path, findings: list[Finding]) -> Iterator[str]:
    """What the data set check says of what was written, the worst first."""
    from raylora.dataset.findings import MOST_TOLD, counted

    yield f"Check:         {counted(findings)}"
    for finding in findings[:MOST_TOLD]:
        yield shown(f"  {finding.level}: {finding.short}")
    if len(findings) > MOST_TOLD:
        yield copied(f"  the rest: raylora check {shlex.quote(str(root))} {_set_words(job)}")


def _differences(prepared: Prepared) -> Iterator[str]:
    """What would be done to each picture."""
    for one in prepared.done:
        yield f"{one.source.name} -> {one.source.target}: {_cut_words(one)}"
        before, after = one.source.caption, prepared.captions[one.source.name]
        if before == after:
            yield f"    caption stays: {after}"
            continue
        if before:
            yield f"  - {before}"
        yield f"  + {after}"
    for left in prepared.left_out:
        yield f"{one_line(left.name)}: left out, {one_line(left.reason)}"
    yield f"Would be prepared: {_images(prepared)}; left out: {len(prepared.left_out)}; nothing was written"


def _images(prepared: Prepared) -> str:
    return f"{len(prepared.done)} image{'s' * (len(prepared.done) > 1)}"


def _cut_words(one: Done) -> str:
    """`1200x800, cut to 800x800 at (212, 0) around 1 face, scaled to 512x512`."""
    cut = one.cut
    left, top, right, bottom = cut.box
    around = f" around {len(cut.faces)} face{'s' * (len(cut.faces) > 1)}" if cut.faces else ""
    around = " around its subject" if cut.subject and not cut.faces else around
    is_whole = cut.box == (0, 0, *cut.original)
    where = "" if is_whole else f", cut to {right - left}x{bottom - top} at ({left}, {top}){around}"
    return f"{cut.original[0]}x{cut.original[1]}{where}, scaled to {cut.size[0]}x{cut.size[1]}"


def next_command(job: Job, root: Path) -> str:
    """The search that these pictures are ready for, to be completed by a base model."""
    from raylora.preparation.learning import is_for_sdxl

    drawn = "anime" if job.settings.caption == "tags" else "realistic"  # as taggers know drawings
    space = "sdxl-character" if is_for_sdxl(job.settings) else drawn
    where = shlex.quote(str(root))
    return f"raylora tune --dataset {where} --base-model … --space {space} {_set_words(job)} --dry-run"


def _set_words(job: Job) -> str:
    """How training is to be told of what was prepared, as a shell reads it."""
    from raylora.preparation.learning import training_params

    params = training_params(job.settings).items()
    return " ".join(f"--set {shlex.quote(f'{path}={_in_yaml(value)}')}" for path, value in params)


def _in_yaml(value: object) -> str:
    """A value as `--set` reads it: the word `on` alone would be true."""
    import yaml

    text = "x".join(map(str, value)) if isinstance(value, tuple) else value
    return str(yaml.safe_dump(text, allow_unicode=True, width=math.inf)).splitlines()[0]
