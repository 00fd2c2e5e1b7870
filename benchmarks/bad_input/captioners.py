"""Models that write captions: without weights, damaged, of another kind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bad_input.edits import (
    EVIL,
    PICKLED,
    Edit,
    all_of,
    cut,
    each,
    in_json,
    in_tensors,
    in_text,
    without_files,
)
from benchmarks.bad_input.kinds import FINE, REFUSED, Kind, Make

LINE = "prepare pictures out --size 64x64 --existing replace --caption {} --caption-model ./bad"
FORCED = LINE.replace("pictures out", "pictures earlier") + " --force"
ONNX, TAGS, WEIGHTS = "model.onnx", "selected_tags.csv", "model.safetensors"

SHARDS = json.dumps({"weight_map": {"a": "/etc/passwd"}})


def changed(which: str, change: Edit) -> Make:
    """A good model as `bad`, with something changed in its folder."""

    def make(folder: Path) -> None:
        change(Path(shutil.copytree(folder.parent.parent / "shared" / which, folder / "bad")))

    return make


def _graph(change: Any) -> Edit:
    """The tagger's graph changed."""

    def edit(folder: Path) -> None:
        import onnx

        model = onnx.load(folder / ONNX)
        change(model)
        onnx.save(model, folder / ONNX)

    return edit


def _shape(*sides: int) -> Edit:
    """Another shape declared for what the tagger takes."""

    def change(model: Any) -> None:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for dim, side in zip(dims, sides, strict=True):
            dim.dim_value = side

    return _graph(change)


def _outside(model: Any) -> None:
    """Its weights said to lie in another file."""
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../outside/secret.txt"


def _odd_tags(folder: Path) -> None:
    lines = (folder / TAGS).read_text().splitlines()
    lines[1:3] = ['0,"bad\x1b]0;x\x07\nname",0,1', "1,,0,1"]
    (folder / TAGS).write_text("\n".join(lines))


TAGGERS: dict[str, tuple[Edit, int]] = {
    "no weights": (without_files(ONNX), REFUSED),
    "no tags": (without_files(TAGS), REFUSED),
    "empty weights": (in_text(ONNX, b""), REFUSED),
    "weights that are garbage": (in_text(ONNX, b"garbage" * 1000), REFUSED),
    "weights that are a pickle": (in_text(ONNX, PICKLED), REFUSED),
    "weights cut off": (cut(ONNX), REFUSED),
    "weights as a pipe": (all_of(without_files(ONNX), lambda folder: os.mkfifo(folder / ONNX)), REFUSED),
    "weights as an endless device": (
        all_of(without_files(ONNX), lambda folder: (folder / ONNX).symlink_to("/dev/zero")), REFUSED),
    "weights outside": (_graph(_outside), REFUSED),
    "an unknown operation": (_graph(lambda model: setattr(model.graph.node[-1], "op_type", "Evil")), REFUSED),
    "no probabilities": (_graph(lambda model: setattr(model.graph.node[-1], "op_type", "Identity")), REFUSED),
    "nothing that it gives": (_graph(lambda model: model.graph.ClearField("output")), REFUSED),
    "nothing that it takes": (_graph(lambda model: model.graph.ClearField("input")), REFUSED),
    "squares of 10^6 px": (_shape(1, 10**6, 10**6, 3), REFUSED),
    "10^9 pictures at once": (_shape(10**9, 16, 16, 3), REFUSED),
    "four channels": (_shape(1, 16, 16, 4), REFUSED),
    "tags that are empty": (in_text(TAGS, ""), REFUSED),
    "tags that are binary": (in_text(TAGS, b"\xff\xfe\0"), REFUSED),
    "tags without a category": (in_text(TAGS, "tag_id,name\n1,a\n"), REFUSED),
    "tags that are too few": (in_text(TAGS, "name,category\na,0\nb,0\n"), REFUSED),
    "tags that are too many": (in_text(TAGS, "name,category\n" + "a,0\n" * 5000), REFUSED),
    "tags of 20 MB": (in_text(TAGS, "name,category\n" + "a,0\n" * 5_000_000), REFUSED),
    "tags that steer the terminal": (_odd_tags, FINE),
    "a code beside it": (in_text("evil.py", EVIL), FINE),
}  # fmt: skip


def _config(**values: object) -> Edit:
    return in_json("config.json", lambda content: content.update(values))


def _part(part: str, **values: object) -> Edit:
    return in_json("config.json", lambda content: content[part].update(values))


def _processor(**values: object) -> Edit:
    return in_json("processor_config.json", lambda content: content["image_processor"].update(values))


BLIPS: dict[str, tuple[Edit, int]] = {
    "no weights": (without_files(WEIGHTS), REFUSED),
    "no configuration": (without_files("config.json"), REFUSED),
    "no tokenizer": (without_files("tokenizer.json"), REFUSED),
    "no preprocessing": (without_files("processor_config.json"), REFUSED),
    "a configuration that is no JSON": (in_text("config.json", "{"), REFUSED),
    "a deep configuration": (in_text("config.json", "[" * 100_000), REFUSED),
    "another class": (_config(model_type="clip"), REFUSED),
    "a class of no kind": (_config(model_type=["blip"]), REFUSED),
    "BLIP 2": (_config(model_type="blip-2"), REFUSED),
    "a module of its own": (all_of(in_text("evil.py", EVIL), _config(auto_map={"AutoModel": "evil.Evil"})), FINE),
    "10^6 layers": (_part("vision_config", num_hidden_layers=10**6), REFUSED),
    "10^9 wide": (_part("text_config", hidden_size=10**9), REFUSED),
    "one layer more": (_part("vision_config", num_hidden_layers=3), REFUSED),
    "another width": (_part("text_config", hidden_size=32), REFUSED),
    "a word that isn't there": (_part("text_config", bos_token_id=10**5), REFUSED),
    "preprocessing that is no JSON": (in_text("processor_config.json", "{"), REFUSED),
    "preprocessing to 10^6 px": (_processor(size={"height": 10**6, "width": 10**6}), REFUSED),
    "preprocessing to 0 px": (_processor(size={"height": 0, "width": 0}), REFUSED),
    "preprocessing to another size": (_processor(size={"height": 33, "width": 47}), REFUSED),
    "a tokenizer of nothing": (in_text("tokenizer.json", "{}"), REFUSED),
    "weights cut off": (cut(WEIGHTS), REFUSED),
    "weights that are a pickle": (in_text(WEIGHTS, PICKLED), REFUSED),
    "weights that aren't numbers": (in_tensors(WEIGHTS, each("weight", lambda w: w * np.nan)), REFUSED),
    "pickled weights alone": (
        all_of(without_files(WEIGHTS), lambda folder: (folder / "pytorch_model.bin").write_bytes(PICKLED)), REFUSED),
    "shards of any place": (all_of(without_files(WEIGHTS), in_text(f"{WEIGHTS}.index.json", SHARDS)), REFUSED),
}  # fmt: skip

REFERENCES = (
    "''",
    "' '",
    "./nowhere",
    "good.yaml",
    "nobody/bad",
    "/etc/passwd",
    "s3://bucket/bad",
    "a/b/c",
    "b" * 5000,
)


def _earlier(make: Make) -> Make:
    """Beside an earlier preparation, of which nothing may be lost."""

    def both(folder: Path) -> None:
        make(folder)
        shutil.copytree(folder.parent.parent / "shared" / "prepared", folder / "earlier")

    return both


def kinds() -> list[Kind]:
    """Each kind of captioner's; those that are refused leave an earlier preparation as it was."""
    found = []
    for caption, which, table in (("tags", "tagger", TAGGERS), ("blip", "blip", BLIPS)):
        for what, (edit, status) in table.items():
            make = changed(which, edit)
            tells = ("--caption-model",) if status == REFUSED else ()
            line = LINE if status == FINE else FORCED
            make = _earlier(make) if status == REFUSED else make
            found.append(Kind(f"{which}/{what}", line.format(caption), make, status, tells))
        found += [
            Kind(f"{which} as/{name[:30]}", LINE.format(caption).replace("./bad", name))
            for name in REFERENCES
        ]  # fmt: skip
    return found
