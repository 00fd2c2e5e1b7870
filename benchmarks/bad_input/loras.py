"""LoRA files: damaged, hostile, or of another kind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.bad_input.edits import PICKLED, Tensors, described, each, entry, framed
from benchmarks.bad_input.kinds import FINE, REFUSED, Kind, Make, both, links, nothing, writes

LORA = "bad.safetensors"
EXPORT = f"export {LORA} --to diffusers --out out.safetensors"
JUDGE = (
    f"evaluate {LORA} --dataset pictures --base-model @BASE@ --set evaluation.encoder=demo --set dataset.resolution=64 "
    "--set sampling.steps=1 --set sampling.seeds=[0] --set evaluation.timesteps=[500]"
)
LAYER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"


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
        "100,000 empty tensors": described(
            {f"lora_{n}": entry(shape=(0,), offsets=(0, 0)) for n in range(100_000)}, b""
        ),
    }


def changed(change: Callable[[Tensors], Tensors | None], metadata: dict[str, str] | None = None) -> Make:
    """A good LoRA with something changed in its tensors."""

    def make(folder: Path) -> None:
        tensors = dict(load_file(folder.parent.parent / "shared" / "lora.safetensors"))
        save_file(change(tensors) or tensors, folder / LORA, metadata)

    return make


def _first(tensors: Tensors, ending: str) -> str:
    return next(key for key in tensors if key.endswith(ending))


def loras() -> list[Kind]:
    """Whole files whose tensors don't fit."""

    def one_nan(tensors: Tensors) -> None:
        tensors[_first(tensors, "lora_up.weight")].reshape(-1)[0] = np.nan

    def without(ending: str) -> Callable[[Tensors], Tensors]:
        return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != _first(tensors, ending)}

    def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
        return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}

    table: list[tuple[str, Make, int]] = [
        ("one weight that is no number", changed(one_nan), REFUSED),
        ("infinite weights", changed(each("lora_down.weight", lambda w: w + np.inf)), REFUSED),
        ("an infinite alpha", changed(each("alpha", lambda a: a * 0 + np.inf)), REFUSED),
        ("alphas of 10^30", changed(each("alpha", lambda a: a.astype(np.float32) * 0 + 1e30)), FINE),
        ("alphas below 0", changed(each("alpha", lambda a: -a)), FINE),
        ("alphas of 0", changed(each("alpha", lambda a: a * 0)), FINE),
        ("alphas as lists", changed(each("alpha", lambda a: np.repeat(a.reshape(-1), 3))), REFUSED),
        ("alphas missing", changed(lambda t: {k: v for k, v in t.items() if not k.endswith("alpha")}), FINE),
        ("alphas alone", changed(lambda t: {k: v for k, v in t.items() if k.endswith("alpha")}), REFUSED),
        ("one matrix of two", changed(without("lora_up.weight")), REFUSED),
        ("a matrix of three dimensions", changed(each("lora_down.weight", lambda w: w[..., None])), REFUSED),
        ("empty matrices", changed(each("lora_down.weight", lambda w: w[:0])), REFUSED),
        ("matrices that don't fit each other", changed(each("lora_up.weight", lambda w: np.repeat(w, 2, 1))), REFUSED),
        ("matrices of a number alone", changed(each("lora_down.weight", lambda w: w.reshape(-1)[0])), REFUSED),
        ("whole numbers", changed(each("lora_down.weight", lambda w: w.astype(np.int32))), REFUSED),
        ("yes and no", changed(each("lora_down.weight", lambda w: w > 0)), REFUSED),
        ("complex numbers", changed(each("lora_down.weight", lambda w: w.astype(np.complex64))), REFUSED),
        ("layers that are none", changed(renamed("attn1", "attn7")), REFUSED),
        ("keys with line breaks", changed(renamed("attn1", "bad\n\x1b]0;x\x07")), REFUSED),
        ("keys of 100 KB", changed(renamed("attn1", "a" * 100_000)), REFUSED),
        ("of Flux", changed(renamed("lora_unet_down_blocks", "lora_transformer_double_blocks")), REFUSED),
        ("LoHa", changed(renamed("lora_down", "hada_w1_a")), REFUSED),
        ("LoKr", changed(renamed("lora_down", "lokr_w1")), REFUSED),
        (
            "with a bundled embedding",
            changed(lambda t: {**t, "bundle_emb.x.emb": np.zeros((2, 2), np.float32)}),
            REFUSED,
        ),
        (
            "metadata that say otherwise",
            changed(lambda t: t, {"ss_network_dim": "many", "ss_network_args": "[[["}),
            FINE,
        ),
        ("metadata of 10 MB", changed(lambda t: t, {"ss_tag_frequency": "x" * 10**7}), FINE),
        ("metadata with steering characters", changed(lambda t: t, {"ss_output_name": "\x1b]0;x\x07\n"}), FINE),
        ("peft's settings as no JSON", changed(lambda t: t, {"lora_adapter_metadata": "{"}), FINE),
    ]
    found = [Kind(f"lora file/{what}", EXPORT, writes(LORA, content)) for what, content in broken_files().items()]
    found += [Kind(f"lora/{what}, exported", EXPORT, make, status) for what, make, status in table]
    other = changed(renamed("down_blocks_1", "down_blocks_2"))
    found += [
        Kind("lora/layers of another model, exported", EXPORT, other, FINE),
        Kind("lora/layers of another model, judged", JUDGE, other, tells=(LORA, "of its")),
    ]
    return found + [Kind(f"lora/{what}, judged", JUDGE, make, status) for what, make, status in table]


def lora_places() -> list[Kind]:
    """Things where a LoRA should be, and where it should go."""
    good = lambda folder: shutil.copy(folder.parent.parent / "shared" / "lora.safetensors", folder / LORA)  # noqa: E731

    def made(name: str) -> Make:
        return both(good, writes(name, PICKLED))

    found = [
        Kind(
            f"lora as/{name.rpartition('.')[2]}",
            f"export {name} --to kohya --out out.safetensors",
            made(name),
            REFUSED,
            (name, "pickled"),
        )
        for name in ("bad.pt", "bad.ckpt", "bad.pth", "bad.bin", "BAD.CKPT")
    ]
    table: list[tuple[str, str, Make]] = [
        ("missing", EXPORT, nothing),
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
        (
            "an experiment.yaml beside it with python",
            JUDGE,
            both(good, writes("experiment.yaml", "a: !!python/name:os\n")),
        ),
    ]
    return found + [Kind(f"lora as/{what}", line, make) for what, line, make in table]


def kinds() -> list[Kind]:
    """All of them."""
    return [*loras(), *lora_places()]
