"""Base models: folders, single files, and names that are none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from benchmarks.bad_input.edits import (
    EVIL,
    PICKLED,
    Edit,
    all_of,
    cut,
    each,
    framed,
    in_json,
    in_tensors,
    in_text,
    without_files,
)
from benchmarks.bad_input.kinds import FAILED, FINE, REFUSED, Kind, Make, writes

BASE = "bad_base"
PLAN_BASE = f"tune good.yaml --base-model {BASE} --space small.yaml --dry-run --out out"
TRAIN_BASE = f"train good.yaml --base-model {BASE} --out out"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def changed_base(change: Edit) -> Make:
    """A good base model with something changed in its folder."""

    def make(folder: Path) -> None:
        place = Path(shutil.copytree(folder.parent.parent / "shared" / "base", folder / BASE))
        change(place)

    return make


def _sharded(target: str) -> Edit:
    """The U-Net's weights by an index that names a file elsewhere."""

    def edit(folder: Path) -> None:
        keys = load_file(folder / UNET).keys()
        shutil.move(folder / UNET, folder.parent / "elsewhere.safetensors")
        (folder / "unet" / "other.safetensors").write_bytes(save({"x": np.zeros(1, np.float32)}))
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(keys, target)}
        (folder / f"{UNET}.index.json").write_text(json.dumps(index))

    return edit


def _pickled_beside(folder: Path) -> None:
    """Safetensors that nobody asked for, and a pickle under the name that is looked for."""
    (folder / TEXT).rename(folder / "text_encoder" / "other.safetensors")
    (folder / "text_encoder" / "pytorch_model.bin").write_bytes(PICKLED)


def _pickled_unet(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "other.safetensors")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(PICKLED)


def _part(name: str, value: object) -> Edit:
    return in_json("model_index.json", lambda index: index.update({name: value}))


def _config(name: str, **values: object) -> Edit:
    return in_json(name, lambda content: content.update(values))


def _with_module(where: str, edit: Edit) -> Edit:
    return all_of(in_text(where, EVIL), edit)


PLANNED: dict[str, Edit] = {
    "an index that is no JSON": in_text("model_index.json", "{"),
    "an index that is a list": in_text("model_index.json", "[]"),
    "a deep index": in_text("model_index.json", "[" * 100_000),
    "an index of any class": _part("_class_name", "os.system"),
    "an index of a class of its own": _with_module("pipeline.py", _part("_class_name", ["pipeline", "Evil"])),
    "an index with a class of no kind": _part("_class_name", {"a": 1}),
    "a part of any module": _part("unet", ["subprocess", "Popen"]),
    "a part of a module in the working folder": _with_module("../evil.py", _part("unet", ["evil", "Evil"])),
    "a part of a module of its own": _with_module("unet/evil.py", _part("unet", ["evil", "Evil"])),
    "a scheduler of a module of its own": _with_module("scheduler/evil.py", _part("scheduler", ["evil", "Evil"])),
    "a tokenizer of any class": _part("tokenizer", ["builtins", "open"]),
    "one more part of any module": _with_module("../evil.py", _part("more", ["evil", "Evil"])),
    "a part of another class": _part("unet", ["diffusers", "FluxTransformer2DModel"]),
    "a part of no kind": _part("unet", 5),
    "a part of nothing": _part("unet", [None, None]),
    "weights cut off": cut(UNET),
    "text encoder's weights cut off": cut(TEXT),
    "empty weights": in_text(UNET, b""),
    "weights that are a pickle": in_text(UNET, PICKLED),
    "weights whose header lies": in_text(UNET, framed(b"{}", length=2**62)),
    "weights as a pipe": all_of(without_files(UNET), lambda folder: os.mkfifo(folder / UNET)),
    "weights as an endless device": all_of(without_files(UNET), lambda folder: (folder / UNET).symlink_to("/dev/zero")),
    "pickles beside other safetensors": _pickled_unet,
    "a text encoder's pickle beside other safetensors": _pickled_beside,
    "shards outside": _sharded("../../elsewhere.safetensors"),
    "shards of any place": _sharded("/etc/passwd"),
    "shards that are gone": _sharded("gone.safetensors"),
    "a U-Net of no layers": _config("unet/config.json", block_out_channels=[]),
    "a U-Net of no kind": _config("unet/config.json", block_out_channels="many"),
    "a U-Net of 10^9 channels": _config("unet/config.json", block_out_channels=[10**9, 10**9]),
    "a U-Net of unknown blocks": _config("unet/config.json", down_block_types=["os.system", "DownBlock2D"]),
    "a U-Net of unknown settings": _config("unet/config.json", evil=1, in_channels=[4]),
    "a text encoder without width": _config("text_encoder/config.json", hidden_size="wide"),
    "a text encoder of 10^6 layers": _config("text_encoder/config.json", num_hidden_layers=10**6),
    "a VAE that is gone": without_files("vae"),
    "a tokenizer that is gone": without_files("tokenizer"),
    "a scheduler that is gone": without_files("scheduler"),
    "a scheduler that is a list": in_text("scheduler/scheduler_config.json", "[]"),
}


LOADED: dict[str, tuple[Edit, int]] = {
    "a tokenizer that is no JSON": (in_text("tokenizer/tokenizer.json", "{"), REFUSED),
    "a tokenizer of nothing": (in_text("tokenizer/tokenizer.json", "{}"), REFUSED),
    "a tokenizer of a module of its own": (
        all_of(
            in_text("tokenizer/evil.py", EVIL),
            _config("tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}),
        ),
        FINE,
    ),
    "a text encoder of a module of its own": (
        all_of(
            in_text("text_encoder/evil.py", EVIL),
            _config("text_encoder/config.json", auto_map={"AutoModel": "evil.Evil"}),
        ),
        FINE,
    ),
    "weights of other shapes": (in_tensors(UNET, each("conv_in.weight", lambda w: w[:, :2])), REFUSED),
    "weights that lack most": (in_tensors(UNET, lambda t: dict(list(t.items())[:3])), REFUSED),
    "weights that aren't numbers": (in_tensors(UNET, each("conv_in.weight", lambda w: w * np.nan)), FAILED),
    "a text encoder's weights that aren't numbers": (
        in_tensors(TEXT, each("weight", lambda w: w * np.nan)),
        FAILED,
    ),
    "a VAE's weights that aren't numbers": (
        in_tensors("vae/diffusion_pytorch_model.safetensors", each("conv_in.weight", lambda w: w * np.nan)),
        REFUSED,
    ),
    "a VAE of another scale": (_config("vae/config.json", scaling_factor="large"), REFUSED),
    "a VAE of scale 0": (_config("vae/config.json", scaling_factor=0), REFUSED),
    "a U-Net's class of no kind": (_config("unet/config.json", _class_name="Popen"), FINE),
    "a text encoder of another kind": (_config("text_encoder/config.json", model_type="bert"), FINE),
    "a scheduler of no steps": (_config("scheduler/scheduler_config.json", num_train_timesteps=0), REFUSED),
    "a scheduler of no kind": (_config("scheduler/scheduler_config.json", beta_schedule="steep"), REFUSED),
    "a scheduler whose betas are text": (_config("scheduler/scheduler_config.json", beta_start="low"), REFUSED),
    "more weights than it has layers": (in_tensors(UNET, lambda t: {**t, "evil": np.zeros(2, np.float32)}), FINE),
}


def bases() -> list[Kind]:
    """Diffusers folders."""
    found = [Kind(f"base/{what}", PLAN_BASE, changed_base(edit)) for what, edit in PLANNED.items()]
    return found + [
        Kind(f"base, loaded/{what}", TRAIN_BASE, changed_base(edit), status) for what, (edit, status) in LOADED.items()
    ]


def single_files() -> list[Kind]:
    """Base models in one file."""
    line = "tune good.yaml --base-model bad.safetensors --space small.yaml --dry-run --out out"
    unet = "model.diffusion_model.input_blocks.0.0.weight"

    def made(**tensors: Any) -> bytes:
        return save({name.replace("__", "."): value for name, value in tensors.items()})

    files = {
        "a first layer of one dimension": save({unet: np.zeros(4, np.float32)}),
        "a first layer of nothing": save({unet: np.zeros((0, 0, 0, 0), np.float32)}),
        "no first layer": save({"model.diffusion_model.x": np.zeros(4, np.float32)}),
        "a refiner": save({unet: np.zeros((4, 4, 3, 3), np.float32), "conditioner.embedders.0.x": np.zeros(1)}),
        "a VAE alone": made(first_stage_model__x=np.zeros(2, np.float32)),
        "a header beyond the file": framed(b"{}", length=10_000),
        "empty": b"",
        "a pickle": PICKLED,
    }
    found = [Kind(f"base file/{what}", line, writes("bad.safetensors", content)) for what, content in files.items()]
    for name in ("bad.ckpt", "bad.pt", "bad.bin", "bad.pth", "bad.pkl", "bad.gguf", "bad.onnx", "bad.zip"):
        command = f"tune good.yaml --base-model {name} --space small.yaml --dry-run --out out"
        found.append(Kind(f"base file/{name}", command, writes(name, PICKLED), REFUSED, (name,)))
    return found


def references() -> list[Kind]:
    """Names of base models that are none."""
    names = [
        "",
        " ",
        ".",
        "/",
        "~",
        "~nobody/bad",
        "/etc/passwd",
        "/dev/zero",
        "/proc/self",
        "../../../..",
        "bad/bad/bad",
        "https://huggingface.co/a/b",
        "file:///etc/passwd",
        "s3://bucket/bad",
        "hf://a/b",
        "a//b",
        "-a/-b",
        "a/..",
        "../a",
        "a/b@main",
        "a/b:c",
        "bad\\base",
        "C:\\models\\bad",
        "pictures",
        "good.yaml",
        "b" * 5000,
        "b/" * 3000,
        "a/" + "b" * 300,
        "bad\ud83d",
        "os:system",
        "demo/demo",
        "DEMO",
        "$(touch pwned)/b",
        "a/b; touch pwned",
    ]
    return [
        Kind(
            f"base as/{name if len(name) < 50 else f'{name[:10]}… of {len(name)}'}".encode(
                "ascii", "backslashreplace"
            ).decode(),
            f"tune good.yaml --space small.yaml --dry-run --out out --base-model '{name}'".encode(
                "utf-8", "surrogatepass"
            ).decode("utf-8", "surrogateescape"),
            status=FINE if name == "demo/demo" else REFUSED,
        )
        for name in names
    ]


def kinds() -> list[Kind]:
    """All of them."""
    return [*bases(), *single_files(), *references()]
