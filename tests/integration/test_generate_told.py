"""What `raylora generate` tells: its plan, its warnings, what a picture's file knows, and how it fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from raylora.config import Experiment
from raylora.diffusion import families
from raylora.diffusion.families import load_base
from raylora.diffusion.generate import generate
from raylora.diffusion.infotext import Recipe
from raylora.diffusion.lora_file import write_kohya
from raylora.errors import TrainingDivergedError
from raylora.execution import generate as generating
from raylora.execution.found_lora import found_lora
from raylora.execution.generate import Generation, check_generation, origin_of, usual_batch
from tests.infotexts import read_picture
from tests.integration.test_generate import card, trained
from tests.preparing import Prepare, command_line

LINE = "generate lora.safetensors --base-model base --steps 2 --size 64"
HUB_ID = "somebody/a-model"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path, tiny_sdxl_folder: Path) -> Path:
    """A LoRA that was trained at clip skip 2, its base model, and one of the other family."""
    root = tmp_path_factory.mktemp("world")
    shutil.copytree(tiny_base_folder, root / "base")
    (root / "sdxl").symlink_to(tiny_sdxl_folder)
    write_kohya(trained(load_base(str(root / "base"))), root / "lora.safetensors", replace(card("lora"), clip_skip=2))
    return root


@pytest.fixture
def run(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prepare:
    return command_line(monkeypatch, capsys, world)


@pytest.fixture
def unmade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the pictures."""

    def none(*_: Any) -> Iterator[Any]:
        return iter(())

    monkeypatch.setattr(generating, "generate_pictures", none)


def told_of(world: Path, recipes: Sequence[Recipe], **params: Any) -> list[str]:
    """The warnings before anything is loaded."""
    warnings: list[str] = []
    with found_lora(str(world / "lora.safetensors"), None, {}) as lora:
        experiment = Experiment().with_params({"model.base_model": str(world / "base"), **params})
        check_generation(Generation(lora, experiment, recipes, world / "out", 1), warnings.append)
    return warnings


def recipe(prompt: str, negative: str = "", guidance: float = 7.0) -> Recipe:
    return Recipe(prompt, negative, 0, (64, 64), 2, guidance, 1.0)


@pytest.mark.parametrize("where", ["from_pretrained", "load_lora_weights"])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), MemoryError()]
)
def test_memory_that_runs_out_at_loading_is_told_with_the_mend(
    where: str, error: Exception, run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(StableDiffusionPipeline, where, full)
    result = run(f"{LINE} --prompt fox --out {tmp_path / 'out'}")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("raylora: failed: out of memory as base model and LoRA are loaded; use --set training.mixed")
    assert result.status == 1 and "bug" not in result.stderr
    halved = run(f"{LINE} --prompt fox --out {tmp_path / 'out'} --set training.mixed_precision=bf16")
    assert "are loaded; end what else uses it, or take a machine that has more" in halved.stderr


@pytest.mark.parametrize(("option", "precision"), [("", "fp32"), ("--set training.mixed_precision=bf16", "bf16")])
@pytest.mark.usefixtures("unmade")
def test_the_plan_tells_the_precision(option: str, precision: str, run: Prepare, tmp_path: Path) -> None:
    result = run(f"{LINE} --prompt fox --out {tmp_path / 'out'} {option}")
    assert f"Precision   {precision} (training.mixed_precision" in result.stderr


def test_a_webuis_signs_are_warned_of_in_both_prompts(world: Path) -> None:
    (told,) = told_of(world, [recipe("a BREAK b", "(worst quality:1.4), [word]"), recipe(r"((c)) \(d\)")])
    assert told.startswith("BREAK, ((c)), \\(, \\) and 2 more: signs by which webuis weigh and part words")
    assert told_of(world, [recipe("hatsune (series)", "a: b")]) == []


def test_a_negative_prompt_that_does_nothing_is_warned_of(world: Path) -> None:
    told = told_of(world, [recipe("a", "[b]", 1.0)])
    assert told == ["a negative prompt has no effect at a guidance scale of 1 or less"]


def test_what_a_pictures_file_knows(run: Prepare, tmp_path: Path) -> None:
    """And what is warned of once the tokenizer is there."""
    negative = "bad hands, " * 60
    result = run(f"{LINE} --prompt 'fox (red)' --negative-prompt '{negative}' --seed 3 --out {tmp_path / 'out'}")
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert "bad hands, bad hands" in warning and "tokens, and only the first" in warning
    read = read_picture(tmp_path / "out" / "00000-3.png")
    assert read.words == ("fox (red)", negative.strip())
    told = {name: read.filled[name] for name in ("Clip skip", "RNG", "Sampler", "Schedule type")}
    assert told == {"Clip skip": "2", "RNG": "CPU", "Sampler": "DDIM", "Schedule type": "Automatic"}
    assert "Model hash" not in read.values, "a folder has none"


def test_a_base_model_in_one_file_is_told_by_its_hash_and_its_samplers_settings(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "my base.safetensors"
    file.write_bytes(b"weights")
    with found_lora(str(world / "lora.safetensors"), None, {}) as lora:
        wanted = Generation(lora, Experiment(), [recipe("a")], tmp_path, 1)
        origin = origin_of(replace(load_base(str(world / "base")), reference=str(file)), wanted)
    assert (origin.model, origin.model_hash) == ("my base", "9a129038d9"), "sha256 of the file, ten digits"
    assert (origin.sampler, origin.sampler_config["timestep_spacing"]) == ("DDIMScheduler", "leading")


@pytest.mark.parametrize(
    ("sizes", "most"), [([(512, 512)], 8), ([(64, 64)], 8), ([(1024, 1024), (512, 512)], 2), ([(4096, 4096)], 1)]
)
def test_larger_pictures_are_made_by_fewer_at_once(sizes: list[tuple[int, int]], most: int) -> None:
    experiment = Experiment().with_params({"evaluation.batch_size": 8})
    assert usual_batch(experiment, [replace(recipe("a"), size=size) for size in sizes]) == most


@pytest.fixture
def failing_at_the_third(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    def fail_with(error: Exception) -> None:
        strengths: list[int] = []

        def made(*arguments: Any) -> Any:
            strengths.append(0)
            if len(strengths) == 3:
                raise error
            return generate(*arguments)

        monkeypatch.setattr(generating, "generate", made)

    return fail_with


def test_a_failure_amid_the_work_tells_what_is_there(
    run: Prepare, failing_at_the_third: Callable[[Exception], None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    failing_at_the_third(TrainingDivergedError("x"))
    result = run(f"{LINE} --prompt fox --seed 3 --strength 0 --strength 1 --strength 5 --grid --json --out {out}")
    assert result.status == 1
    kept, failed = result.stderr.splitlines()[-2:]
    assert kept == f"2 pictures made so far in {out}, of 3"
    assert failed.startswith("raylora: failed: the pictures are no numbers at strength 5")
    told = json.loads(result.stdout)
    assert [one["strength"] for one in told["pictures"]] == [0, 1]
    assert Path(told["grid"]).is_file()


def test_a_full_disk_amid_the_work_does_so_too(
    run: Prepare, failing_at_the_third: Callable[[Exception], None], tmp_path: Path
) -> None:
    failing_at_the_third(OSError(28, "No space left on device"))
    result = run(f"{LINE} --prompt fox --count 3 --seed 3 --batch-size 1 --grid --out {tmp_path / 'out'}")
    assert result.status == 1 and "raylora: failed: No space left on device" in result.stderr
    assert "2 pictures made so far" in result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        str(tmp_path / "out" / f"0000{number}-{3 + number}.png") for number in (0, 1)
    ]


def test_a_hub_model_of_the_other_family_is_told_as_a_local_one_is(
    world: Path, run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = json.loads((world / "sdxl" / "model_index.json").read_text())
    monkeypatch.setattr(families, "read_hub_config", lambda *_: index)
    result = run(f"generate lora.safetensors --base-model {HUB_ID} --prompt a --out {tmp_path / 'out'}")
    assert result.status == 2
    told = (
        f"is a LoRA for Stable Diffusion 1.5, and the base model {HUB_ID} is a Stable Diffusion XL; give the LoRA's own"
    )
    assert told in result.stderr
    assert "search space" not in result.stderr
