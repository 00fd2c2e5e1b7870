"""`raylora prepare`: from a folder of pictures to a dataset that can be trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from raylora import completion
from raylora.cli_options import FLAG, AsJson
from raylora.cli_output import interruptible, on_stderr, say_on, warn_on
from raylora.cli_prepared import print_dry_run, print_prepared
from raylora.files import is_folder, resolved
from raylora.request import out_place

if TYPE_CHECKING:
    from rich.console import Console

    from raylora.dataset.findings import Finding
    from raylora.preparation.job import Job
    from raylora.preparation.prepared import Prepared
    from raylora.preparation.work_folder import WorkFolder

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
    typer.Option(
        "--replace",
        help=r"OLD=NEW, with OLD as in --remove, or @FILE; \1 in NEW is a group of OLD's pattern. Repeatable.",
        metavar="OLD=NEW",
    ),
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
    typer.Option(
        "--force",
        help="Replace what an earlier preparation wrote to DST, but for captions changed by hand; other files stay.",
        metavar=FLAG,
    ),
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
    from raylora.preparation.tags import parse_replacement, parse_tag, parse_wanted
    from raylora.preparation.work_folder import WorkFolder

    given = {
        "crop": crop, "sizes": size, "upscale": upscale, "background": background, "caption": caption,
        "caption_model": _place(caption_model), "threshold": threshold, "character_threshold": character_threshold,
        "existing": existing, "replace": _entries(replace, parse_replacement), "remove": _entries(remove, parse_wanted),
        "add": _entries(add, parse_tag), "trigger": trigger, "repeats": repeats,
    }  # fmt: skip
    console = on_stderr()
    work = WorkFolder(out_place(target, "give another folder"))
    job = plan_job(source, build_settings(given, like), say_on(console))
    is_done = not force and work.is_whole(job.digest)
    if not is_done:
        work.check(job.claim(force))
    if dry_run:
        print_dry_run(job, _prepared(job, work, force, True, console), work.root, as_json)
        return
    prepared = _found(job, work, console) if is_done else _prepared(job, work, force, False, console)
    print_prepared(job, prepared, work.root, _checked(job, work.root, console), as_json)


def _entries(given: list[str] | None, parse: Callable[[str], object]) -> tuple[str, ...] | None:
    """Tags with the lines of list files in their place; None where nothing was said."""
    from raylora.preparation.tags import read_entries

    return read_entries(given, parse) if given else None


def _place(model: str | None) -> str | None:
    """A model's folder from wherever it is named: a manifest is read elsewhere too."""
    return str(resolved(Path(model))) if model and is_folder(Path(model)) else model


def _prepared(job: Job, work: WorkFolder, force: bool, is_dry: bool, console: Console) -> Prepared:
    """All of it done, or told as it would be."""
    from raylora.preparation.preparing import Preparing
    from raylora.report.steps import steps

    goes_on = "nothing was written" if is_dry else "the same command goes on"
    with interruptible(lambda: goes_on), steps(console) as tell:
        return Preparing(job, work, tell, warn_on(console), force, is_dry).run()


def _found(job: Job, work: WorkFolder, console: Console) -> Prepared:
    """What the same command has done before."""
    from raylora.preparation.edited import named
    from raylora.preparation.finished import read_finished

    say_on(console)(f"{work.root}: is prepared so already, and nothing was done again; --force does it anew")
    if edited := work.edited(are_kept=False):
        say_on(console)(f"{named(edited)}: changed by hand since")
    return read_finished(job, work)


def _checked(job: Job, root: Path, console: Console) -> list[Finding]:
    from raylora.preparation.learning import check_prepared

    with interruptible(lambda: f"{root} is whole; raylora check {root} looks at it"), console.status("checking …"):
        return check_prepared(root, job.settings)
