"""`raylora prepare`: from a folder of pictures to a dataset that can be trained on."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from raylora import completion
from raylora.cli_options import FLAG, AsJson
from raylora.cli_output import interruptible, on_stderr, say_on, warn_on
from raylora.files import is_folder, resolved
from raylora.redaction import shown
from raylora.request import out_place

if TYPE_CHECKING:
    from rich.console import Console

    from raylora.dataset.findings import Finding
    from raylora.preparation.job import Job
    from raylora.preparation.prepared import Done, Prepared
    from raylora.preparation.work_folder import WorkFolder

SHOWN_TAGS = 15
NEEDS_SHARED = 2
"""Images that have a tag before it is shown: sentences have none in common."""

Source = Annotated[
    str,
    typer.Argument(
        help="Folder of images, with captions or without; or `demo`.", metavar="SRC", autocompletion=completion.datasets
    ),
]
Target = Annotated[Path, typer.Argument(help="Where the dataset is written: new or empty.", metavar="DST")]
Crop = Annotated[
    Optional[str],
    typer.Option(
        "--crop",
        help="focus: around faces, else the subject (default); center; none: kept whole.",
        metavar="HOW",
        autocompletion=completion.one_of("focus", "center", "none"),
    ),
]
Sizes = Annotated[
    Optional[list[str]],
    typer.Option(
        "--size",
        help="Width x height in px, multiples of 64 (512x512). Repeatable: each image takes what fits it best.",
        metavar="WxH",
        autocompletion=completion.one_of("512x512", "512x768", "768x512", "1024x1024"),
    ),
]
Upscale = Annotated[
    Optional[bool],
    typer.Option("--upscale/--no-upscale", help="Enlarge images that are too small, or leave them out.", metavar=FLAG),
]
Background = Annotated[
    Optional[str],
    typer.Option("--background", help="Colour below transparent parts: a name or #rrggbb (white).", metavar="COLOUR"),
]
Caption = Annotated[
    Optional[str],
    typer.Option(
        "--caption",
        help="blip: a sentence; tags: Danbooru tags; none: what is there (default).",
        metavar="HOW",
        autocompletion=completion.one_of("blip", "tags", "none"),
    ),
]
CaptionModelName = Annotated[
    Optional[str],
    typer.Option("--caption-model", help="Hub id or folder of a BLIP, or of a WD14 tagger in ONNX.", metavar="MODEL"),
]
Threshold = Annotated[
    Optional[float],
    typer.Option(
        "--threshold",
        help="How sure a tag must be: 0.6, as the guide has it; taggers' own are nearer 0.35.",
        metavar="SHARE",
    ),
]
CharacterThreshold = Annotated[
    Optional[float],
    typer.Option("--character-threshold", help="The same of characters' names (0.85).", metavar="SHARE"),
]
Existing = Annotated[
    Optional[str],
    typer.Option(
        "--existing",
        help="Captions that are there: keep (default), replace or extend.",
        metavar="HOW",
        autocompletion=completion.one_of("keep", "replace", "extend"),
    ),
]
Remove = Annotated[
    Optional[list[str]],
    typer.Option(
        "--remove",
        help="Tag, /regular expression/ for the whole of a tag, or @FILE of them. Repeatable.",
        metavar="TAG",
    ),
]
Add = Annotated[
    Optional[list[str]], typer.Option("--add", help="Tag for every caption, or @FILE. Repeatable.", metavar="TAG")
]
Replace = Annotated[
    Optional[list[str]],
    typer.Option("--replace", help="OLD=NEW, with OLD as in --remove, or @FILE. Repeatable.", metavar="OLD=NEW"),
]
Trigger = Annotated[Optional[str], typer.Option("--trigger", help="Word put first in every caption.", metavar="WORD")]
Repeats = Annotated[
    Optional[int],
    typer.Option("--repeats", help="In the folder's name, as in 10_name (the source's own, or 10).", metavar="N"),
]
Like = Annotated[
    Optional[Path],
    typer.Option(
        "--like",
        help="manifest.json of an earlier preparation: its settings, unless options say otherwise.",
        metavar="FILE",
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace what an earlier preparation wrote to DST; other files stay.", metavar=FLAG),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done to each image, and write nothing.", metavar=FLAG)
]


def prepare(
    source: Source,
    target: Target,
    crop: Crop = None,
    size: Sizes = None,
    upscale: Upscale = None,
    background: Background = None,
    caption: Caption = None,
    caption_model: CaptionModelName = None,
    threshold: Threshold = None,
    character_threshold: CharacterThreshold = None,
    existing: Existing = None,
    remove: Remove = None,
    add: Add = None,
    replace: Replace = None,
    trigger: Trigger = None,
    repeats: Repeats = None,
    like: Like = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Cut, caption and tag images for training; SRC stays as it is. Was it stopped? The same command goes on.

    Look at DST/contact_sheet afterwards; DST/tags.csv counts tags and proposes
    which to remove.

    Examples:

      raylora prepare photos my_photos --size 512x768 --size 512x512 \\
          --caption blip --trigger sks

      raylora prepare drawings my_drawings --caption tags --trigger sks \\
          --remove "blue eyes" --remove "/.* hair/" --dry-run
    """
    from raylora.preparation.job import plan_job
    from raylora.preparation.settings import build_settings
    from raylora.preparation.work_folder import WorkFolder

    given = {
        "crop": crop, "sizes": size, "upscale": upscale, "background": background, "caption": caption,
        "caption_model": _place(caption_model), "threshold": threshold, "character_threshold": character_threshold,
        "existing": existing, "replace": _entries(replace), "remove": _entries(remove), "add": _entries(add),
        "trigger": trigger, "repeats": repeats,
    }  # fmt: skip
    console = on_stderr()
    work = WorkFolder(out_place(target, "give another folder"))
    job = plan_job(source, build_settings(given, like), say_on(console))
    work.check(job.claim(force))
    prepared = _prepared(job, None if dry_run else work, force, console)
    findings = None if dry_run else _checked(job, work.root, console)
    _print(job, prepared, work.root, findings, as_json)


def _entries(given: list[str] | None) -> tuple[str, ...] | None:
    """Tags with the lines of list files in their place; None where nothing was said."""
    from raylora.preparation.tags import read_entries

    return read_entries(given) if given else None


def _place(model: str | None) -> str | None:
    """A model's folder from wherever it is named: a manifest is read elsewhere too."""
    return str(resolved(Path(model))) if model and is_folder(Path(model)) else model


def _prepared(job: Job, work: WorkFolder | None, force: bool, console: Console) -> Prepared:
    """All of it done, or told as it would be where there is no folder for it."""
    from raylora.preparation.preparing import Preparing
    from raylora.report.steps import steps

    goes_on = "the same command goes on" if work else "nothing was written"
    with interruptible(lambda: goes_on), steps(console) as tell:
        return Preparing(job, work, tell, warn_on(console), force).run()


def _checked(job: Job, root: Path, console: Console) -> list[Finding]:
    from raylora.preparation.learning import check_prepared

    with interruptible(lambda: f"{root} is whole; raylora check {root} looks at it"), console.status("checking …"):
        return check_prepared(root, job.settings)


def _print(job: Job, prepared: Prepared, root: Path, findings: list[Finding] | None, as_json: bool) -> None:
    """The result on stdout; without findings, that of a dry run."""
    if as_json:
        print(json.dumps(_summary(job, prepared, root, findings), indent=2))
        return
    lines = (
        [*_differences(prepared), *_tag_lines(prepared, "with")]
        if findings is None
        else _lines(job, prepared, root, findings)
    )
    print("\n".join(shown(line) for line in lines))


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
    """What was done, what to look at, and what comes next."""
    from raylora.preparation.work_folder import MANIFEST

    folders = sorted({one.source.target.rpartition("/")[0] for one in prepared.done})
    without = f", {len(prepared.left_out)} left out" if prepared.left_out else ""
    yield f"Prepared:      {_images(prepared)} in {', '.join(str(root / name) for name in folders)}{without}"
    faces = sum(bool(one.cut.faces) for one in prepared.done)
    if job.settings.crop == "focus":
        yield f"Cut around:    faces in {faces} of them, what stands out in the others"
    yield from _tag_lines(prepared, "again with --force")
    for name in prepared.sheets:
        yield f"Contact sheet: {root / name}"
    yield f"Manifest:      {root / MANIFEST}"
    yield from _finding_lines(job, root, findings)
    yield f"Next:          {next_command(job, root)}"


def _tag_lines(prepared: Prepared, how: str) -> Iterator[str]:
    """The commonest tags, and which of them a LoRA may as well learn by itself; `how` the command is given then."""
    common = [one for one in prepared.tags if one.images >= NEEDS_SHARED]
    if common:
        told = [f"{one.tag} {one.images}" for one in common[:SHOWN_TAGS]]
        more = f", and {len(prepared.tags) - len(told)} more" if len(prepared.tags) > len(told) else ""
        yield f"Tags:          of {_images(prepared)}: {', '.join(told)}{more}"
    if removable := [one.tag for one in prepared.tags if one.removable]:
        options = " ".join(f"--remove {shlex.quote(tag)}" for tag in removable)
        yield f"Fixed traits?  on nearly all images; to leave them to the trigger word, {how} {options}"


def _finding_lines(job: Job, root: Path, findings: list[Finding]) -> Iterator[str]:
    """What the data set check says of what was written, the worst first."""
    from raylora.dataset.findings import MOST_TOLD, counted

    yield f"Check:         {counted(findings)}"
    for finding in findings[:MOST_TOLD]:
        yield f"  {finding.level}: {finding.short}"
    if len(findings) > MOST_TOLD:
        yield f"  the rest: raylora check {shlex.quote(str(root))} {_set_words(job)}"


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
        yield f"{left.name}: left out, {left.reason}"
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

    space = "sdxl-character" if is_for_sdxl(job.settings) else "realistic"
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
