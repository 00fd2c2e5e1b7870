"""Who writes captions: a table of captioners, and where their models lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from raylora.diffusion.hub import hub_file, is_hub_id
from raylora.diffusion.model_files import shards_of
from raylora.errors import ModelError, UnreachableError
from raylora.files import is_file, is_folder, resolved, sha256_of
from raylora.preparation.settings import CHARACTER_THRESHOLD, THRESHOLD, PrepareSettings
from raylora.preparation.work_folder import digest_of

AGAIN = "download the model again"
NO_MODEL = "captions of your own beside the images need no model: leave --caption out"


@dataclass(frozen=True)
class Thresholds:
    """How sure a tagger must be, 0 to 1."""

    general: float = THRESHOLD
    character: float = CHARACTER_THRESHOLD


class Captioner(Protocol):
    """Says what is on pictures."""

    def captions(self, pictures: Sequence[Image.Image]) -> list[str]:
        """A caption for each picture in RGB, of any size; the same picture always gets the same. May be empty.

        Raises:
            ModelError: the model answers with something else than its kind does.
        """


@dataclass(frozen=True)
class CaptionerKind:
    """An entry of `CAPTIONERS`."""

    model: str
    """The hub id that is taken where none is given."""
    files: tuple[tuple[str, ...], ...]
    """What is brought of a model on the hub; of several names the first that it has."""
    weights: str
    """The file that others are told by."""
    check: Callable[[Path, str], None]
    """Folder and what to call it: raises ModelError where something is missing, before anything is loaded."""
    load: Callable[[Path, str, Thresholds], Captioner]
    rules: int = 1
    """Of the entry's own code: raise it when the same model says something else of the same picture."""


def _check_blip(folder: Path, reference: str) -> None:
    from raylora.preparation.blip import check

    check(folder, reference)


def _load_blip(folder: Path, reference: str, thresholds: Thresholds) -> Captioner:
    from raylora.preparation.blip import BlipCaptioner

    return BlipCaptioner(folder, reference)


def _check_tagger(folder: Path, reference: str) -> None:
    from raylora.preparation.tagger import check

    check(folder, reference)


def _load_tagger(folder: Path, reference: str, thresholds: Thresholds) -> Captioner:
    from raylora.preparation.tagger import Tagger

    return Tagger(folder, reference, thresholds)


CAPTIONERS: Mapping[str, CaptionerKind] = {
    "blip": CaptionerKind(
        model="Salesforce/blip-image-captioning-large",
        files=(("config.json",), ("preprocessor_config.json", "processor_config.json"), ("tokenizer.json",),
               ("tokenizer_config.json",), ("model.safetensors",)),
        weights="model.safetensors",
        check=_check_blip,
        load=_load_blip,
    ),
    "tags": CaptionerKind(
        model="SmilingWolf/wd-vit-tagger-v3",
        files=(("selected_tags.csv",), ("model.onnx",)),
        weights="model.onnx",
        check=_check_tagger,
        load=_load_tagger,
    ),
}  # fmt: skip
"""By the name that `--caption` takes: a sentence, or tags. Libraries are imported by the entry that is used."""


@dataclass(frozen=True)
class CaptionModel:
    """A captioner's model, found and looked at but not loaded."""

    kind: str
    reference: str
    folder: Path
    digest: str
    """sha256 of its weights, hexadecimal; of several files one digest over theirs."""
    files: Mapping[str, str]
    """The same of the small files beside them: lists of tags, tokenizers, preprocessing."""
    thresholds: Thresholds

    def load(self) -> Captioner:
        return CAPTIONERS[self.kind].load(self.folder, self.reference, self.thresholds)

    @property
    def identity(self) -> dict[str, object]:
        """All that its captions depend on, the pictures aside."""
        sure = {"threshold": self.thresholds.general, "character_threshold": self.thresholds.character}
        rules = CAPTIONERS[self.kind].rules
        identity = {"captioner": self.kind, "rules": rules, "digest": self.digest, "files": dict(self.files)}
        return {**identity, **(sure if self.kind == "tags" else {})}


def find_model(settings: PrepareSettings, say: Callable[[str], None] = lambda _: None) -> CaptionModel | None:
    """The captioner's model that is asked for, brought from the hub if need be; None where nobody writes captions.

    Raises:
        ModelError: it isn't there, lacks something, or can't be had from the hub.
    """
    if settings.caption == "none":
        return None
    kind = CAPTIONERS[settings.caption]
    reference = settings.caption_model or kind.model
    folder = _folder_of(reference, kind, say)
    kind.check(folder, reference)
    say(f"looking at {reference}")
    weights = _weights_of(folder, kind.weights)
    names = {name for names in kind.files for name in names if is_file(folder / name)} - {kind.weights}
    given = {"general": settings.threshold, "character": settings.character_threshold}
    thresholds = Thresholds(**{name: value for name, value in given.items() if value is not None})
    digests = {name: sha256_of(folder / name) for name in sorted(names)}
    return CaptionModel(settings.caption, reference, folder, _digest_of_all(weights), digests, thresholds)


def _weights_of(folder: Path, name: str) -> list[Path]:
    """The file of a model's weights, or those among which an index shares them out, and the index."""
    index = folder / f"{name}.index.json"
    return [folder / name] if is_file(folder / name) else [index, *(folder / shard for shard in shards_of(index))]


def _digest_of_all(files: Sequence[Path]) -> str:
    """Of one file its own; of several one over theirs and their names."""
    digests = {file.name: sha256_of(file) for file in files}
    return digests.popitem()[1] if len(digests) == 1 else digest_of(digests)


def _folder_of(reference: str, kind: CaptionerKind, say: Callable[[str], None]) -> Path:
    place = resolved(Path(reference))
    if is_folder(place):
        return place
    if is_file(place):
        raise ModelError(f"--caption-model {reference}: is a file; give the folder that holds it with {kind.weights}")
    if not is_hub_id(reference):
        raise ModelError(f"--caption-model {reference}: there is no such folder; mend the path, or give a hub id")
    say(f"captions by {reference}; downloaded once, if it isn't here")
    try:
        return [_bring(reference, names) for names in kind.files][-1].parent
    except UnreachableError as error:
        raise UnreachableError(f"--caption-model {error}; {NO_MODEL}") from None
    except ModelError as error:
        raise type(error)(f"--caption-model {error}") from None


def _bring(reference: str, names: Sequence[str]) -> Path:
    """The first of these files that a model on the hub has."""
    *firsts, last = names
    for name in firsts:
        try:
            return hub_file(reference, name)
        except UnreachableError:
            raise
        except ModelError:
            continue
    return hub_file(reference, last)
