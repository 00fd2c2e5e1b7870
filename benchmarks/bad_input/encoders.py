"""Image encoders: damaged, hostile, or of another kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks.bad_input.edits import EVIL, PICKLED, Edit, all_of, cut, in_json, in_tensors, in_text, without_files
from benchmarks.bad_input.kinds import FINE, REFUSED, Kind, Make, writes
from raylora.bundled import DEMO_ENCODER

ENCODER = "./bad_encoder"
PLAN_ENCODER = f"tune good.yaml --set evaluation.encoder={ENCODER} --space small.yaml --dry-run --out out"
TRAIN_ENCODER = f"train good.yaml --holdout --set evaluation.encoder={ENCODER} --out out"


def changed_encoder(change: Edit) -> Make:
    def make(folder: Path) -> None:
        change(Path(shutil.copytree(DEMO_ENCODER, folder / "bad_encoder")))

    return make


def _index(target: object) -> Edit:
    def edit(folder: Path) -> None:
        keys = load_file(folder / "model.safetensors").keys()
        shutil.move(folder / "model.safetensors", folder.parent / "elsewhere.safetensors")
        content = {"metadata": {}, "weight_map": dict.fromkeys(keys, target)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return edit


def _config(**values: object) -> Edit:
    return in_json("config.json", lambda content: content.update(values))


def _with_code(edit: Edit) -> Edit:
    return all_of(writes("evil.py", EVIL), edit)


TABLE: dict[str, tuple[Edit, int]] = {
    "a configuration that is no JSON": (in_text("config.json", "{"), REFUSED),
    "a deep configuration": (in_text("config.json", "[" * 100_000), REFUSED),
    "a kind of no kind": (_config(model_type=5), REFUSED),
    "an unknown kind": (_config(model_type="evil"), REFUSED),
    "a module of its own": (
        _with_code(_config(auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})),
        FINE,
    ),
    "a module of its own of an unknown kind": (
        _with_code(_config(model_type="evil", auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})),
        REFUSED,
    ),
    "a module of its own on the hub": (
        _config(model_type="evil", auto_map={"AutoConfig": "nobody/evil--evil.Evil"}),
        REFUSED,
    ),
    "preprocessing by a module of its own": (
        _with_code(
            in_json(
                "preprocessor_config.json",
                lambda c: c.update(image_processor_type="Evil", auto_map={"AutoImageProcessor": "evil.Evil"}),
            )
        ),
        REFUSED,
    ),
    "a tokenizer by a module of its own": (
        _with_code(
            in_json(
                "tokenizer_config.json",
                lambda c: c.update(tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]}),
            )
        ),
        FINE,
    ),
    "preprocessing that is no JSON": (in_text("preprocessor_config.json", "{"), REFUSED),
    "preprocessing to 10^6 px": (
        in_json(
            "preprocessor_config.json",
            lambda c: c.update(size={"height": 10**6, "width": 10**6}, crop_size={"height": 10**6, "width": 10**6}),
        ),
        REFUSED,
    ),
    "shards outside": (_index("../elsewhere.safetensors"), REFUSED),
    "shards of any place": (_index("/etc/passwd"), REFUSED),
    "shards of no kind": (_index(5), REFUSED),
    "shards that are gone": (_index("gone.safetensors"), REFUSED),
    "a pickle": (
        lambda folder: [without_files("model.safetensors")(folder), writes("pytorch_model.bin", PICKLED)(folder)],
        REFUSED,
    ),
    "weights as a pickle": (in_text("model.safetensors", PICKLED), REFUSED),
    "weights cut off": (cut("model.safetensors"), REFUSED),
    "weights that aren't numbers": (
        in_tensors("model.safetensors", lambda t: {k: np.full_like(v, np.nan) for k, v in t.items()}),
        REFUSED,
    ),
    "10^9 wide": (_config(projection_dim=10**9), REFUSED),
}


def kinds() -> list[Kind]:
    """Image encoders."""
    return [
        Kind(
            f"encoder/{what}",
            TRAIN_ENCODER if "numbers" in what or status == FINE else PLAN_ENCODER,
            changed_encoder(edit),
            status,
        )
        for what, (edit, status) in TABLE.items()
    ]
