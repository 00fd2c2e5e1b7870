"""The good things that bad ones are made of: pictures, a base model, a LoRA, interrupted work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.bad_input.kinds import GOOD, Shared


def make_shared(root: Path, with_interrupted: bool = True) -> Shared:
    """Made in a process of its own: this one must stay without threads, since it forks.

    Args:
        with_interrupted: whether a training and a search are wanted too, as kills leave them.
    """
    root.mkdir(parents=True)
    checkout = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.bad_input.world", str(root), *["all"] * with_interrupted],
        check=True,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
    )
    return Shared(root)


def _make(root: Path, with_interrupted: bool = True) -> None:
    from raylora.config import LoraConfig
    from raylora.diffusion.adapters import Adapter
    from raylora.diffusion.families import load_base
    from raylora.diffusion.lora_file import LoraCard, write_kohya
    from tests.caption_models import make_blip, make_tagger
    from tests.tiny import make_base, make_pictures

    shared = Shared(root)
    make_base(shared.base)
    make_pictures(root / "pictures", 8)
    base = load_base(str(shared.base))
    adapter = Adapter(base, LoraConfig(rank=2, alpha=2), "fresh", train_text_encoder=True, seed=0)
    write_kohya(adapter, shared.lora, LoraCard("fresh", (64, 64), 8))
    (root / "good.yaml").write_text(GOOD.replace("BASE", str(shared.base)))
    (root / "small.yaml").write_text("name: small\nparameters:\n  lora.dropout: {choices: [0, 0.1]}\n")
    make_blip(shared.blip)
    make_tagger(shared.tagger)
    _prepare(shared)
    if with_interrupted:
        _interrupt(root)
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors makes files that nobody else may read


def _prepare(shared: Shared) -> None:
    """The pictures cut and captioned, with tags where there was no caption."""
    from raylora.preparation.job import plan_job
    from raylora.preparation.preparing import Preparing
    from raylora.preparation.settings import build_settings
    from raylora.preparation.work_folder import WorkFolder

    given = {"sizes": ["64x64"], "trigger": "sks", "caption": "tags", "caption_model": str(shared.tagger),
             "existing": "replace"}  # fmt: skip
    job = plan_job(str(shared.root / "pictures"), build_settings(given))
    Preparing(job, WorkFolder(shared.prepared)).run()


def _interrupt(root: Path) -> None:
    """A training and a search as kills leave them."""
    from benchmarks.bad_input.interrupted import make_search, make_training

    make_training(root)
    make_search(root)


if __name__ == "__main__":
    _make(Path(sys.argv[1]), "all" in sys.argv[2:])
