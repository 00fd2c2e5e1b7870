"""LoRA files, base models and image encoders: damaged, hostile, or of another kind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save, save_file

from benchmarks.bad_input.kinds import FAILED, FINE, REFUSED, Kind, Make, both, links, writes
from raylora.bundled import DEMO_ENCODER

LORA = "bad.safetensors"
EXPORT = f"export {LORA} --to diffusers --out out.safetensors"
JUDGE = (
    f"evaluate {LORA} --dataset pictures --base-model @BASE@ --set evaluation.encoder=demo --set dataset.resolution=64 "
    "--set sampling.steps=1 --set sampling.seeds=[0] --set evaluation.timesteps=[500]"
)
BASE = "bad_base"
PLAN_BASE = f"tune good.yaml --base-model {BASE} --space small.yaml --dry-run --out out"
TRAIN_BASE = f"train good.yaml --base-model {BASE} --out out"
ENCODER = "./bad_encoder"
PLAN_ENCODER = f"tune good.yaml --set evaluation.encoder={ENCODER} --space small.yaml --dry-run --out out"
TRAIN_ENCODER = f"train good.yaml --holdout --set evaluation.encoder={ENCODER} --out out"
LAYER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"

Tensors = dict[str, Any]


class Payload:
    """What a pickle runs when it is read: it leaves a file."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch pwned",)


PICKLED = pickle.dumps(Payload())


def framed(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file that may lie about its header's length."""
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def described(entries: object, body: bytes = b"\0" * 64) -> bytes:
    """A safetensors file of any header."""
    return framed(json.dumps(entries).encode(), body)


def entry(dtype: object = "F32", shape: object = (2, 2), offsets: object = (0, 16)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def broken_files() -> dict[str, bytes]:
    """What is no safetensors file, though called one."""
    key = f"{LAYER}.lora_down.weight"
    twice = f'{{"{key}": {json.dumps(entry())}, "{key}": {json.dumps(entry(offsets=[16, 32]))}}}'.encode()
    return {
        "empty": b"",
        "seven bytes": b"\0" * 7,
        "zeros": b"\0" * 1000,
        "text": b"no weights" * 10,
        "a pickle": PICKLED,
        "a zip": b"PK\x03\x04" + b"\0" * 100,
        "a header cut off": framed(b'{"a": {"dtype": "F3', length=500),
        "a header beyond the file": framed(b"{}", length=10_000),
        "a header of 2^63 bytes": framed(b"{}", length=2**63),
        "a header of 2^64 - 1 bytes": framed(b"{}", length=2**64 - 1),
        "a header of 90 MB": framed(b" " * 90_000_000),
        "no JSON": framed(b"{a: 1}"),
        "JSON's NaN": framed(b'{"a": NaN}'),
        "a list": framed(b"[1, 2]"),
        "deep JSON": framed(b"[" * 50_000 + b"]" * 50_000),
        "no UTF-8": framed(b'{"\xff": {}}'),
        "the same key twice": framed(twice, b"\0" * 32),
        "an unknown number format": described({key: entry("F99")}),
        "a number format of no kind": described({key: entry(5)}),
        "offsets beyond the file": described({key: entry(offsets=(0, 10**6), shape=(250, 1000))}),
        "offsets below 0": described({key: entry(offsets=(-16, 0))}),
        "offsets the wrong way": described({key: entry(offsets=(16, 0))}),
        "offsets that overlap": described({key: entry(), "b": entry(offsets=(8, 24))}),
        "offsets with a hole": described({key: entry(), "b": entry(offsets=(32, 48))}),
        "a shape that doesn't fit": described({key: entry(shape=(3, 3))}),
        "a shape below 0": described({key: entry(shape=(-2, -2))}),
        "a shape of 2^60": described({key: entry(shape=(2**60, 2**60))}),
        "a shape of no kind": described({key: entry(shape="2x2")}),
        "nothing in it": described({}, b""),
        "metadata alone": described({"__metadata__": {"ss_network_dim": "4"}}, b""),
        "metadata of no kind": described({"__metadata__": {"a": 5}, key: entry()}, b"\0" * 16),
        "bytes at its end": described({key: entry()}, b"\0" * 20),
        "100,000 empty tensors": described({f"lora_{n}": entry(shape=(0,), offsets=(0, 0)) for n in range(100_000)}, b""),
    }  # fmt: skip


def changed(change: Callable[[Tensors], Tensors | None], metadata: dict[str, str] | None = None) -> Make:
    """A good LoRA with something changed in its tensors."""

    def make(folder: Path) -> None:
        tensors = dict(load_file(folder.parent.parent / "shared" / "lora.safetensors"))
        save_file(change(tensors) or tensors, folder / LORA, metadata)

    return make


def _each(ending: str, change: Callable[[Any], Any]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: np.ascontiguousarray(change(value)) if key.endswith(ending) else value
                            for key, value in tensors.items()}  # fmt: skip


def loras() -> list[Kind]:
    """Whole files whose tensors don't fit."""

    def first(tensors: Tensors, ending: str) -> str:
        return next(key for key in tensors if key.endswith(ending))

    def one_nan(tensors: Tensors) -> None:
        tensors[first(tensors, "lora_up.weight")].reshape(-1)[0] = np.nan

    def without(ending: str) -> Callable[[Tensors], Tensors]:
        return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != first(tensors, ending)}

    def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
        return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}

    table: list[tuple[str, Make, int]] = [
        ("one weight that is no number", changed(one_nan), REFUSED),
        ("infinite weights", changed(_each("lora_down.weight", lambda w: w + np.inf)), REFUSED),
        ("an infinite alpha", changed(_each("alpha", lambda a: a * 0 + np.inf)), REFUSED),
        ("alphas of 10^30", changed(_each("alpha", lambda a: a.astype(np.float32) * 0 + 1e30)), FINE),
        ("alphas below 0", changed(_each("alpha", lambda a: -a)), FINE),
        ("alphas of 0", changed(_each("alpha", lambda a: a * 0)), FINE),
        ("alphas as lists", changed(_each("alpha", lambda a: np.repeat(a.reshape(-1), 3))), REFUSED),
        ("alphas missing", changed(lambda t: {k: v for k, v in t.items() if not k.endswith("alpha")}), FINE),
        ("alphas alone", changed(lambda t: {k: v for k, v in t.items() if k.endswith("alpha")}), REFUSED),
        ("one matrix of two", changed(without("lora_up.weight")), REFUSED),
        ("a matrix of three dimensions", changed(_each("lora_down.weight", lambda w: w[..., None])), REFUSED),
        ("empty matrices", changed(_each("lora_down.weight", lambda w: w[:0])), REFUSED),
        ("matrices that don't fit each other", changed(_each("lora_up.weight", lambda w: np.repeat(w, 2, 1))), REFUSED),
        ("matrices of a number alone", changed(_each("lora_down.weight", lambda w: w.reshape(-1)[0])), REFUSED),
        ("whole numbers", changed(_each("lora_down.weight", lambda w: w.astype(np.int32))), REFUSED),
        ("yes and no", changed(_each("lora_down.weight", lambda w: w > 0)), REFUSED),
        ("complex numbers", changed(_each("lora_down.weight", lambda w: w.astype(np.complex64))), REFUSED),
        ("layers that are none", changed(renamed("attn1", "attn7")), REFUSED),
        ("keys with line breaks", changed(renamed("attn1", "bad\n\x1b]0;x\x07")), REFUSED),
        ("keys of 100 KB", changed(renamed("attn1", "a" * 100_000)), REFUSED),
        ("of Flux", changed(renamed("lora_unet_down_blocks", "lora_transformer_double_blocks")), REFUSED),
        ("LoHa", changed(renamed("lora_down", "hada_w1_a")), REFUSED),
        ("LoKr", changed(renamed("lora_down", "lokr_w1")), REFUSED),
        ("with a bundled embedding", changed(lambda t: {**t, "bundle_emb.x.emb": np.zeros((2, 2), np.float32)}), REFUSED),
        ("metadata that say otherwise", changed(lambda t: t, {"ss_network_dim": "many", "ss_network_args": "[[["}), FINE),
        ("metadata of 10 MB", changed(lambda t: t, {"ss_tag_frequency": "x" * 10**7}), FINE),
        ("metadata with steering characters", changed(lambda t: t, {"ss_output_name": "\x1b]0;x\x07\n"}), FINE),
        ("peft's settings as no JSON", changed(lambda t: t, {"lora_adapter_metadata": "{"}), FINE),
    ]  # fmt: skip
    found = [Kind(f"lora file/{what}", EXPORT, writes(LORA, content)) for what, content in broken_files().items()]
    found += [Kind(f"lora/{what}, exported", EXPORT, make, status) for what, make, status in table]
    other = changed(renamed("down_blocks_1", "down_blocks_2"))
    found += [Kind("lora/layers of another model, exported", EXPORT, other, FINE),
              Kind("lora/layers of another model, judged", JUDGE, other, tells=(LORA, "of its"))]  # fmt: skip
    return found + [Kind(f"lora/{what}, judged", JUDGE, make, status) for what, make, status in table]


def lora_places() -> list[Kind]:
    """Things where a LoRA should be, and where it should go."""
    good = lambda folder: shutil.copy(folder.parent.parent / "shared" / "lora.safetensors", folder / LORA)  # noqa: E731

    def made(name: str) -> Make:
        return both(good, writes(name, PICKLED))

    found = [Kind(f"lora as/{name.rpartition('.')[2]}", f"export {name} --to kohya --out out.safetensors",
                  made(name), REFUSED, (name, "pickled"))
             for name in ("bad.pt", "bad.ckpt", "bad.pth", "bad.bin", "BAD.CKPT")]  # fmt: skip
    table: list[tuple[str, str, Make]] = [
        ("missing", EXPORT, lambda folder: None),
        ("a folder", EXPORT, lambda folder: (folder / LORA).mkdir()),
        ("a pipe", EXPORT, lambda folder: os.mkfifo(folder / LORA)),
        ("an endless device", EXPORT, links(LORA, "/dev/zero")),
        ("a link that loops", EXPORT, links(LORA, LORA)),
        ("a folder, judged", JUDGE, lambda folder: (folder / LORA).mkdir()),
        ("a pipe, judged", JUDGE, lambda folder: os.mkfifo(folder / LORA)),
        ("a path of 5,000 letters", f"export {'a' * 5000}.safetensors --to kohya --out out.safetensors", good),
        ("to a layout that is none", f"export {LORA} --to webui --out out.safetensors", good),
        ("to a folder that isn't there", f"export {LORA} --to kohya --out /proc/bad/out.safetensors", good),
        ("to a place through a file", f"export {LORA} --to kohya --out good.yaml/out.safetensors", good),
        ("to a name too long", f"export {LORA} --to kohya --out {'a' * 300}.safetensors", good),
        ("to itself", f"export {LORA} --to kohya --out {LORA}", good),
        ("to /dev", f"export {LORA} --to kohya --out /dev/null/out.safetensors", good),
        ("rank 0", f"export {LORA} --to kohya --out out.safetensors --rank 0", good),
        ("rank 10^9", f"export {LORA} --to kohya --out out.safetensors --rank 1000000000", good),
        ("strength that is no number", f"export {LORA} --to kohya --out out.safetensors --strength nan", good),
        ("strength 10^300", f"export {LORA} --to kohya --out out.safetensors --strength 1e300", good),
        ("an experiment.yaml beside it that is broken", JUDGE, both(good, writes("experiment.yaml", "lora: [\n"))),
        ("an experiment.yaml beside it with python", JUDGE, both(good, writes("experiment.yaml", "a: !!python/name:os\n"))),
    ]  # fmt: skip
    return found + [Kind(f"lora as/{what}", line, make) for what, line, make in table]


def changed_base(change: Callable[[Path], object]) -> Make:
    """A good base model with something changed in its folder."""

    def make(folder: Path) -> None:
        place = Path(shutil.copytree(folder.parent.parent / "shared" / "base", folder / BASE))
        change(place)

    return make


def _json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return edit


def _text(name: str, content: str | bytes) -> Callable[[Path], None]:
    return writes(name, content)


def _without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
EVIL = "import os\nos.system('touch pwned')\nclass Evil:\n    @classmethod\n    def from_pretrained(cls, *a, **k): return cls()\n"


def _tensors(name: str, change: Callable[[Tensors], Tensors | None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = dict(load_file(folder / name))
        save_file(change(tensors) or tensors, folder / name, {"format": "pt"})

    return edit


def _cut(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def _sharded(target: str) -> Callable[[Path], None]:
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


def bases() -> list[Kind]:
    """Diffusers folders."""

    def part(name: str, value: object) -> Callable[[Path], None]:
        return _json("model_index.json", lambda index: index.update({name: value}))

    def config(name: str, **values: object) -> Callable[[Path], None]:
        return _json(name, lambda content: content.update(values))

    def both_(*edits: Callable[[Path], object]) -> Callable[[Path], None]:
        return lambda folder: [edit(folder) for edit in edits] and None

    def with_module(where: str, edit: Callable[[Path], object]) -> Callable[[Path], None]:
        return both_(_text(where, EVIL), edit)

    planned: dict[str, Callable[[Path], object]] = {
        "an index that is no JSON": _text("model_index.json", "{"),
        "an index that is a list": _text("model_index.json", "[]"),
        "a deep index": _text("model_index.json", "[" * 100_000),
        "an index of any class": part("_class_name", "os.system"),
        "an index of a class of its own": with_module("pipeline.py", part("_class_name", ["pipeline", "Evil"])),
        "an index with a class of no kind": part("_class_name", {"a": 1}),
        "a part of any module": part("unet", ["subprocess", "Popen"]),
        "a part of a module in the working folder": with_module("../evil.py", part("unet", ["evil", "Evil"])),
        "a part of a module of its own": with_module("unet/evil.py", part("unet", ["evil", "Evil"])),
        "a scheduler of a module of its own": with_module("scheduler/evil.py", part("scheduler", ["evil", "Evil"])),
        "a tokenizer of any class": part("tokenizer", ["builtins", "open"]),
        "one more part of any module": with_module("../evil.py", part("more", ["evil", "Evil"])),
        "a part of another class": part("unet", ["diffusers", "FluxTransformer2DModel"]),
        "a part of no kind": part("unet", 5),
        "a part of nothing": part("unet", [None, None]),
        "weights cut off": _cut(UNET),
        "text encoder's weights cut off": _cut(TEXT),
        "empty weights": _text(UNET, b""),
        "weights that are a pickle": _text(UNET, PICKLED),
        "weights whose header lies": _text(UNET, framed(b"{}", length=2**62)),
        "weights as a pipe": both_(_without(UNET), lambda folder: os.mkfifo(folder / UNET)),
        "weights as an endless device": both_(_without(UNET), lambda folder: (folder / UNET).symlink_to("/dev/zero")),
        "pickles beside other safetensors": _pickled_unet,
        "a text encoder's pickle beside other safetensors": _pickled_beside,
        "shards outside": _sharded("../../elsewhere.safetensors"),
        "shards of any place": _sharded("/etc/passwd"),
        "shards that are gone": _sharded("gone.safetensors"),
        "a U-Net of no layers": config("unet/config.json", block_out_channels=[]),
        "a U-Net of no kind": config("unet/config.json", block_out_channels="many"),
        "a U-Net of 10^9 channels": config("unet/config.json", block_out_channels=[10**9, 10**9]),
        "a U-Net of unknown blocks": config("unet/config.json", down_block_types=["os.system", "DownBlock2D"]),
        "a U-Net of unknown settings": config("unet/config.json", evil=1, in_channels=[4]),
        "a text encoder without width": config("text_encoder/config.json", hidden_size="wide"),
        "a text encoder of 10^6 layers": config("text_encoder/config.json", num_hidden_layers=10**6),
        "a VAE that is gone": _without("vae"),
        "a tokenizer that is gone": _without("tokenizer"),
        "a scheduler that is gone": _without("scheduler"),
        "a scheduler that is a list": _text("scheduler/scheduler_config.json", "[]"),
    }  # fmt: skip
    loaded: dict[str, tuple[Callable[[Path], object], int]] = {
        "a tokenizer that is no JSON": (_text("tokenizer/tokenizer.json", "{"), REFUSED),
        "a tokenizer of nothing": (_text("tokenizer/tokenizer.json", "{}"), REFUSED),
        "a tokenizer of a module of its own": (both_(_text("tokenizer/evil.py", EVIL), config(
            "tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})), FINE),
        "a text encoder of a module of its own": (both_(_text("text_encoder/evil.py", EVIL), config(
            "text_encoder/config.json", auto_map={"AutoModel": "evil.Evil"})), FINE),
        "weights of other shapes": (_tensors(UNET, _each("conv_in.weight", lambda w: w[:, :2])), REFUSED),
        "weights that lack most": (_tensors(UNET, lambda t: dict(list(t.items())[:3])), REFUSED),
        "weights that aren't numbers": (_tensors(UNET, _each("conv_in.weight", lambda w: w * np.nan)), FAILED),
        "a text encoder's weights that aren't numbers": (_tensors(TEXT, _each("weight", lambda w: w * np.nan)), FAILED),
        "a VAE's weights that aren't numbers": (_tensors("vae/diffusion_pytorch_model.safetensors",
                                                         _each("conv_in.weight", lambda w: w * np.nan)), REFUSED),
        "a VAE of another scale": (config("vae/config.json", scaling_factor="large"), REFUSED),
        "a VAE of scale 0": (config("vae/config.json", scaling_factor=0), REFUSED),
        "a U-Net's class of no kind": (config("unet/config.json", _class_name="Popen"), FINE),
        "a text encoder of another kind": (config("text_encoder/config.json", model_type="bert"), FINE),
        "a scheduler of no steps": (config("scheduler/scheduler_config.json", num_train_timesteps=0), REFUSED),
        "a scheduler of no kind": (config("scheduler/scheduler_config.json", beta_schedule="steep"), REFUSED),
        "a scheduler whose betas are text": (config("scheduler/scheduler_config.json", beta_start="low"), REFUSED),
        "more weights than it has layers": (_tensors(UNET, lambda t: {**t, "evil": np.zeros(2, np.float32)}), FINE),
    }  # fmt: skip
    found = [Kind(f"base/{what}", PLAN_BASE, changed_base(edit)) for what, edit in planned.items()]
    return found + [Kind(f"base, loaded/{what}", TRAIN_BASE, changed_base(edit), status)
                    for what, (edit, status) in loaded.items()]  # fmt: skip


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
    names = ["", " ", ".", "/", "~", "~nobody/bad", "/etc/passwd", "/dev/zero", "/proc/self", "../../../..", "bad/bad/bad",
             "https://huggingface.co/a/b", "file:///etc/passwd", "s3://bucket/bad", "hf://a/b", "a//b", "-a/-b", "a/..", "../a",
             "a/b@main", "a/b:c", "bad\\base", "C:\\models\\bad", "pictures", "good.yaml", "b" * 5000, "b/" * 3000, "a/" + "b" * 300,
             "bad\ud83d", "os:system", "demo/demo", "DEMO", "$(touch pwned)/b", "a/b; touch pwned"]  # fmt: skip
    return [Kind(f"base as/{name if len(name) < 50 else f'{name[:10]}… of {len(name)}'}".encode("ascii", "backslashreplace").decode(),
                 f"tune good.yaml --space small.yaml --dry-run --out out --base-model '{name}'".encode(
                     "utf-8", "surrogatepass").decode("utf-8", "surrogateescape"),
                 status=FINE if name == "demo/demo" else REFUSED) for name in names]  # fmt: skip


def changed_encoder(change: Callable[[Path], object]) -> Make:
    def make(folder: Path) -> None:
        change(Path(shutil.copytree(DEMO_ENCODER, folder / "bad_encoder")))

    return make


def encoders() -> list[Kind]:
    """Image encoders."""

    def index(target: object) -> Callable[[Path], None]:
        def edit(folder: Path) -> None:
            keys = load_file(folder / "model.safetensors").keys()
            shutil.move(folder / "model.safetensors", folder.parent / "elsewhere.safetensors")
            content = {"metadata": {}, "weight_map": dict.fromkeys(keys, target)}
            (folder / "model.safetensors.index.json").write_text(json.dumps(content))

        return edit

    def config(**values: object) -> Callable[[Path], None]:
        return _json("config.json", lambda content: content.update(values))

    def with_code(edit: Callable[[Path], object]) -> Callable[[Path], None]:
        return lambda folder: [writes("evil.py", EVIL)(folder), edit(folder)] and None

    table: dict[str, tuple[Callable[[Path], object], int]] = {
        "a configuration that is no JSON": (_text("config.json", "{"), REFUSED),
        "a deep configuration": (_text("config.json", "[" * 100_000), REFUSED),
        "a kind of no kind": (config(model_type=5), REFUSED),
        "an unknown kind": (config(model_type="evil"), REFUSED),
        "a module of its own": (with_code(config(auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})), FINE),
        "a module of its own of an unknown kind": (with_code(config(
            model_type="evil", auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})), REFUSED),
        "a module of its own on the hub": (config(
            model_type="evil", auto_map={"AutoConfig": "nobody/evil--evil.Evil"}), REFUSED),
        "preprocessing by a module of its own": (with_code(_json("preprocessor_config.json", lambda c: c.update(
            image_processor_type="Evil", auto_map={"AutoImageProcessor": "evil.Evil"}))), REFUSED),
        "a tokenizer by a module of its own": (with_code(_json("tokenizer_config.json", lambda c: c.update(
            tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]}))), FINE),
        "preprocessing that is no JSON": (_text("preprocessor_config.json", "{"), REFUSED),
        "preprocessing to 10^6 px": (_json("preprocessor_config.json", lambda c: c.update(
            size={"height": 10**6, "width": 10**6}, crop_size={"height": 10**6, "width": 10**6})), REFUSED),
        "shards outside": (index("../elsewhere.safetensors"), REFUSED),
        "shards of any place": (index("/etc/passwd"), REFUSED),
        "shards of no kind": (index(5), REFUSED),
        "shards that are gone": (index("gone.safetensors"), REFUSED),
        "a pickle": (lambda folder: [_without("model.safetensors")(folder),
                                     writes("pytorch_model.bin", PICKLED)(folder)], REFUSED),
        "weights as a pickle": (_text("model.safetensors", PICKLED), REFUSED),
        "weights cut off": (_cut("model.safetensors"), REFUSED),
        "weights that aren't numbers": (_tensors("model.safetensors", lambda t: {k: np.full_like(v, np.nan) for k, v in t.items()}), REFUSED),
        "10^9 wide": (config(projection_dim=10**9), REFUSED),
    }  # fmt: skip
    return [Kind(f"encoder/{what}", TRAIN_ENCODER if "numbers" in what or status == FINE else PLAN_ENCODER, changed_encoder(edit),
                 status) for what, (edit, status) in table.items()]  # fmt: skip


def kinds() -> list[Kind]:
    """All of them."""
    return [*loras(), *lora_places(), *bases(), *single_files(), *references(), *encoders()]
