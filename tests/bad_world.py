"""A folder with good things and all kinds of bad ones, and what a command said of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from raylora.bundled import DEMO_ENCODER
from raylora.config import LoraConfig
from raylora.dataset.folder import read_folder
from raylora.diffusion.adapters import Adapter
from raylora.diffusion.families import load_base
from raylora.diffusion.lora_file import LoraCard, write_kohya
from tests.results import Result as Result
from tests.results import Run as Run
from tests.tiny import make_pictures, make_sdxl

GOOD = """
dataset: {path: pictures, resolution: 64}
model: {base_model: base}
lora: {rank: 4, alpha: 4}
training: {batch_size: 1, epochs: 10}
evaluation: {encoder: demo, timesteps: [200, 800]}
sampling: {seeds: [0], steps: 2}
"""

LONG_FACES = """
import torch


class Faces:
    def __init__(self, device): ...

    def images(self, pixels):
        return torch.ones(len(pixels), 2)
"""
SILENT_FACES = LONG_FACES.replace("(len(pixels), 2)", "(len(pixels), 1)")
"""Of length 1, and without `texts`."""
DRIVERS_FACES = SILENT_FACES.replace("device): ...", "device):\n        assert os.getpid() == PID").replace(
    "import torch", "import os\n\nimport torch\n\nPID = int(os.environ['DRIVER'])"
)
"""Works where the command runs, and not where trials do."""
OWN_SPACES = """
def failing(trial):
    raise RuntimeError("no such luck")


def silent(trial):
    trial.suggest_int("rank", 2, 4)
"""
FILES = {
    "good.yaml": GOOD,
    "no_base.yaml": "dataset: {path: pictures}\n",
    "no_dataset.yaml": "model: {base_model: base}\n",
    "misspelt.yaml": "lora: {rnak: 8}\noptimizer: {nmae: adamw}\nlr_schedular: {name: cosine}\n",
    "broken.yaml": "lora: {rank: 8\n",
    "list.yaml": "- lora\n",
    "number.yaml": "lora: 5\n",
    "small.yaml": "parameters:\n  lora.dropout: {choices: [0, 0.1]}\n",
    "bad_key_space.yaml": "parameters:\n  lora.rank: {choices: [2, 4], whne: {optimizer.name: lion}}\n",
    "bad_path_space.yaml": "parameters:\n  lora.rnak: {choices: [2, 4]}\n",
    "bad_value_space.yaml": "parameters:\n  lora.dropout: {choices: [2, 3]}\n",
    "measuring_space.yaml": "parameters:\n  evaluation.noises: {choices: [1, 2]}\n",
    "own_spaces.py": OWN_SPACES,
    "broken_space.py": "def ranks(trial: return {}\n",
    "not_split.json": "[]",
    "other_split.json": '{"holdout": [{"digest": "abc"}]}',
    "empty_split.json": '{"holdout": []}',
    "no_folds.json": '{"folds": []}',
    "own_code.py": "raise SystemExit('was imported')",
    "model.ckpt": "x",
    "model.pt": "x",
    "MODEL.CKPT": "x",
    "broken.safetensors": "x" * 100,
    "long_faces.py": LONG_FACES,
    "own_optimizer_space.yaml": "parameters:\n  optimizer.name: {choices: [adamw, 'nowhere:Class']}\n",
    "silent_faces.py": SILENT_FACES,
    "drivers_faces.py": DRIVERS_FACES,
    "lora.pt": "x",
    "full/kept.txt": "x",
    "finished/state.json": '{"state": "finished"}',
    "list_state/state.json": "[]",
    "empty_state/state.json": "{}",
    "trained/state.json": '{"state": "interrupted"}',
    "trained/experiment.yaml": GOOD,
}


def make_world(root: Path, tiny: Path) -> Path:
    """Write it all; `tiny` is a base model."""
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    make_datasets(root)
    make_bases(root, tiny)
    make_loras(root)
    make_encoders(root)
    digests = [{"digest": picture.digest} for picture in read_folder(root / "pictures")]
    (root / "whole_split.json").write_text(json.dumps({"holdout": digests}))
    (root / "folds.json").write_text(json.dumps({"folds": [{"holdout": digests[:5]}, {"holdout": digests[5:]}]}))
    return root


def make_datasets(root: Path) -> None:
    make_pictures(root / "pictures" / "10_sks", 20)
    make_pictures(root / "seven", 7)
    make_pictures(root / "seven_more", 16)
    make_pictures(root / "uncaptioned", 8, captions=False)
    make_pictures(root / "class_words" / "2_sks person", 8, captions=False)
    for name in ("unreadable", "cut_off", "latin", "indexed", "outside", "binary_index"):
        make_pictures(root / name, 9)
    (root / "empty").mkdir()
    (root / "unreadable" / "picture_03.png").write_bytes(b"no picture")
    whole = (root / "cut_off" / "picture_03.png").read_bytes()
    (root / "cut_off" / "picture_03.png").write_bytes(whole[: len(whole) // 2])
    (root / "latin" / "picture_03.txt").write_bytes("h\xe9llo".encode("latin-1"))
    (root / "indexed" / "metadata.jsonl").write_text('{"file_name": "picture_00.png", "text": "a"}\n{"file": 1}\n')
    (root / "outside" / "metadata.jsonl").write_text('{"file_name": "../good.yaml", "text": "a"}\n')
    (root / "binary_index" / "metadata.jsonl").write_bytes(b"\xff\xfe\x00")
    make_copies(root / "copies", root / "seven" / "picture_00.png")


def make_copies(folder: Path, picture: Path) -> None:
    folder.mkdir()
    for number in range(10):
        shutil.copy(picture, folder / f"copy_{number}.png")
        (folder / f"copy_{number}.txt").write_text("sks")


def make_encoders(root: Path) -> None:
    """A whole one that takes no prompts, one with another's weights, and one that was cut off."""
    tiny = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    Dinov2Model(Dinov2Config(**tiny)).save_pretrained(root / "dino")
    BitImageProcessor().save_pretrained(root / "dino")
    for name in ("dinos_weights", "cut_encoder"):
        shutil.copytree(DEMO_ENCODER, root / name)
    shutil.copy(root / "dino" / "model.safetensors", root / "dinos_weights")
    cut = root / "cut_encoder" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])


def make_bases(root: Path, tiny: Path) -> None:
    shutil.copytree(tiny, root / "base")
    make_sdxl(root / "sdxl_base")
    change_json(copy_base(root, "sdxl") / "model_index.json", _class_name="StableDiffusionXLPipeline")
    change_json(copy_base(root, "with_code") / "model_index.json", unet=["own_code", "Evil"])
    shutil.copy(root / "own_code.py", root / "with_code" / "unet")
    copy_base(root, "elsewhere")
    weights = root / "elsewhere" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(root / "elsewhere.weights")
    index = weights.with_name(f"{weights.name}.index.json")
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": "../../elsewhere.weights"}}))
    change_json(copy_base(root, "inpainting") / "unet" / "config.json", in_channels=9)
    change_json(copy_base(root, "two_widths") / "unet" / "config.json", cross_attention_dim=64)
    change_json(copy_base(root, "sample") / "scheduler" / "scheduler_config.json", prediction_type="sample")
    (copy_base(root, "no_scheduler") / "scheduler" / "scheduler_config.json").unlink()
    (copy_base(root, "list_unet") / "unet" / "config.json").write_text("[1, 2]")
    (copy_base(root, "no_unet") / "unet" / "config.json").unlink()
    (copy_base(root, "no_weights") / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    first, zero = "model.diffusion_model.input_blocks.0.0.weight", torch.zeros(1)
    save_file({first: torch.zeros(320, 9, 3, 3)}, root / "inpainting.safetensors")
    save_file({first: torch.zeros(320, 4, 3, 3), "conditioner.embedders.0.x": zero}, root / "sdxl.safetensors")
    save_file({"weight": zero}, root / "resnet.safetensors")


def copy_base(root: Path, name: str) -> Path:
    return Path(shutil.copytree(root / "base", root / name))


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def make_loras(root: Path) -> None:
    base = load_base(str(root / "base"))
    adapter = Adapter(base, LoraConfig(rank=2, alpha=2), "fresh", train_text_encoder=True, seed=0)
    write_kohya(adapter, root / "lora.safetensors", LoraCard("fresh", (64, 64), 8))
    whole = load_file(root / "lora.safetensors")
    narrow = {key: value[:, :3].contiguous() if value.ndim > 1 else value for key, value in whole.items()}
    save_file(narrow, root / "narrow.safetensors")
    save_file({"lora_unet_elsewhere.lora_down.weight": torch.zeros(2, 3)}, root / "elsewhere.safetensors")
    odd = {
        f"lora_unet_mid_block_attentions_0_proj_in.{kind}": torch.zeros(2, 2) for kind in ("lora_down.weight", "alpha")
    }
    save_file(
        odd | {"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.zeros(2, 2)}, root / "odd.safetensors"
    )
    save_file({"transformer.blocks.0.to_q.lora_A.weight": torch.zeros(2, 3)}, root / "flux.safetensors")
