"""`raylora generate` in this process: pictures against diffusers' own, their texts, and what is refused."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open

from raylora.config import Experiment, LoraConfig, ModelConfig, SamplingConfig
from raylora.config_files import write_experiment
from raylora.diffusion.adapters import Adapter
from raylora.diffusion.base import BaseModel
from raylora.diffusion.families import load_base
from raylora.diffusion.generate import generate, requests_of
from raylora.diffusion.lora_file import LoraCard, write_diffusers, write_kohya
from raylora.diffusion.places import DIFFUSERS_NAME
from raylora.diffusion.prediction import Prediction
from raylora.execution import generate as generating
from raylora.execution.how_to import HandedOver, usages_of
from raylora.execution.numbered import NumberedFolder
from tests.bad_world import Result
from tests.infotexts import LORA, read_picture
from tests.preparing import Prepare, command_line

ROUNDING = 2
"""Of 255: batches of other sizes add in another order."""
SHORT = ["--steps", "2", "--size", "64", "--base-model", "base"]


def trained(base: BaseModel, size: float = 0.3, **config: Any) -> Adapter:
    """A LoRA of random numbers that do something."""
    adapter = Adapter(base, LoraConfig(rank=4, alpha=4, **config), "trained", train_text_encoder=True, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in base.parts:
            for name, weight in adapter.parameters(part):
                if "lora_A" not in name:
                    weight += torch.randn(weight.shape, generator=generator) * size
    return adapter


def card(title: str, trigger: str | None = "sks") -> LoraCard:
    return LoraCard(title, (64, 64), 8, "fp32", trigger)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path, tiny_sdxl_folder: Path) -> Path:
    """LoRAs of both families, a search's output folder, and bad things."""
    root = tmp_path_factory.mktemp("world")
    shutil.copytree(tiny_base_folder, root / "base")
    (root / "sdxl").symlink_to(tiny_sdxl_folder)
    adapter = trained(load_base(str(root / "base")))
    write_kohya(adapter, root / "lora.safetensors", card("lora"))
    write_kohya(trained(load_base(str(root / "base")), size=1e30), root / "wild.safetensors", card("wild"))
    best = root / "search" / "best"
    write_kohya(adapter, best / "lora.safetensors", card("search", trigger=None))
    write_diffusers(adapter, best, "fp32", card("search"))
    write_experiment(Experiment().with_params({
        "model.base_model": str(root / "base"), "dataset.resolution": 64, "dataset.trigger": "sks",
        "sampling.steps": 2, "sampling.seeds": (5,), "sampling.prompts": ("{trigger} in fog",),
    }), best / "experiment.yaml")  # fmt: skip
    (root / "search" / "summary.json").write_text(json.dumps({"best": {"strength": 0.6}}))
    write_diffusers(trained(load_base(str(root / "base")), use_dora=True), root / "dora", "fp32", card("dora"))
    sdxl = load_base(str(root / "sdxl"), model=ModelConfig(family="sdxl"))
    write_diffusers(trained(sdxl), root / "of_sdxl", "fp32", card("of_sdxl"))
    shutil.copytree(root / "base", root / "no_weights")
    (root / "no_weights" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (root / "empty").mkdir()
    for name in ("a_file", "lora.pt"):
        (root / name).write_text("x")
    return root


@pytest.fixture
def run(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prepare:
    return command_line(monkeypatch, capsys, world)


Generate = Callable[..., list[Path]]


@pytest.fixture
def made(run: Prepare, tmp_path: Path) -> Generate:
    """The files that a command makes, in a new folder for each."""
    calls: list[int] = []

    def call(line: str) -> list[Path]:
        calls.append(0)
        out = tmp_path / f"out{len(calls)}"
        result = run(f"generate {line} --out {out}")
        assert result.status == 0, result.stderr
        return sorted(out.glob("[0-9]*.png"))

    return call


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def difference(one: Any, other: Any) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


@functools.lru_cache(maxsize=2)
def pipeline(world: Path, has_lora: bool) -> Any:
    """diffusers' own, with the same file."""
    pipe = StableDiffusionPipeline.from_pretrained(world / "base", safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    if has_lora:
        pipe.load_lora_weights(world / "search" / "best", weight_name=DIFFUSERS_NAME, adapter_name="it")
    return pipe


def diffusers_own(world: Path, prompt: str, seed: int, strength: float, negative: str = "") -> Any:
    """The picture that diffusers itself makes."""
    pipe = pipeline(world, has_lora=strength != 0)
    if strength:
        pipe.set_adapters("it", strength)
    return pipe(prompt, negative_prompt=negative, num_inference_steps=2, guidance_scale=7.0, width=64, height=64,
                generator=torch.Generator().manual_seed(seed)).images[0]  # fmt: skip


def test_pictures_are_those_of_diffusers_itself(world: Path, made: Generate) -> None:
    short = " ".join(SHORT)
    files = made(f"lora.safetensors {short} --prompt cat --prompt hat --seed 7 --seed 3 --strength 0 --strength 0.6 "
                 "--negative-prompt dull")  # fmt: skip
    names = [f"{number:05}-{seed}.png" for number, seed in enumerate([7, 3] * 4)]
    assert [file.name for file in files] == names
    wanted = [(prompt, seed, at) for at in (0.0, 0.6) for prompt in ("cat", "hat") for seed in (7, 3)]
    for file, (prompt, seed, strength) in zip(files, wanted, strict=True):
        assert difference(pixels(file), diffusers_own(world, prompt, seed, strength, "dull")) <= ROUNDING
    assert difference(pixels(files[0]), pixels(files[4])) > 10 * ROUNDING, "the LoRA does nothing"


def test_a_picture_depends_on_its_own_recipe_alone(made: Generate) -> None:
    short = " ".join(SHORT)
    (alone,) = made(f"lora.safetensors {short} --prompt cat --seed 7")
    beside = made(f"lora.safetensors {short} --prompt hat --prompt cat --count 3 --seed 6 --strength 0.3 --strength 1")
    by_one = made(f"lora.safetensors {short} --prompt hat --prompt cat --count 3 --seed 6 --batch-size 1")
    assert difference(pixels(beside[-2]), pixels(alone)) <= ROUNDING
    assert difference(pixels(by_one[-2]), pixels(alone)) <= ROUNDING
    assert read_picture(beside[-2]) == read_picture(by_one[-2]) == read_picture(alone)


def test_a_searchs_samples_come_again(world: Path, made: Generate) -> None:
    """Their seeds are shifted by prompt, so that noises differ; the shifted seed gives the same picture."""
    base, captions = load_base(str(world / "base")), ["cat", "hat"]
    trained(base).activate()
    samples = generate(base, requests_of(captions, [0], [(64, 64)] * 2), SamplingConfig(steps=2), 2)
    (second,) = made(f"search --prompt hat --seed 1000 --strength 1 --guidance-scale {SamplingConfig().guidance_scale}")
    assert difference(pixels(second), samples[1]) <= ROUNDING


def test_an_output_folder_says_how_its_lora_is_used(world: Path, made: Generate) -> None:
    (file,) = made("search")
    read = read_picture(file)
    assert read.prompt == "sks in fog <lora:search:0.6>"
    assert (read.values["Seed"], read.values["Steps"], read.values["Size"]) == ("5", "2", "64x64")
    assert difference(pixels(file), diffusers_own(world, "sks in fog", 5, 0.6)) <= ROUNDING


def test_a_files_own_words_serve_where_nothing_lies_beside_it(world: Path, made: Generate) -> None:
    (file,) = made("lora.safetensors --base-model base --steps 2 --prompt '{trigger}, hat' --seed 0")
    read = read_picture(file)
    assert read.prompt == "sks, hat <lora:lora:1>"
    assert read.values["Size"] == "64x64", "of its metadata"
    with safe_open(str(world / "lora.safetensors"), framework="pt") as opened:
        digest = opened.metadata()["sshs_model_hash"]
    assert read.values["Lora hashes"] == f"lora: {digest[:12]}"
    assert (read.values["Model"], read.values["Sampler"]) == ("base", "DDIM")


def test_sdxl_is_told_by_the_loras_weights_and_drawn_as_its_report_says(
    world: Path, made: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a negative prompt SDXL's pipeline takes zeros, where raylora and webuis encode an empty one."""
    (file,) = made("of_sdxl --base-model sdxl --steps 2 --size 64 --prompt hat --seed 0")
    experiment = Experiment().with_params({
        "model.base_model": str(world / "sdxl"), "model.family": "sdxl", "dataset.resolution": 64, "sampling.steps": 2,
        "sampling.seeds": (0,),
    })  # fmt: skip
    diffusers, *_ = usages_of(HandedOver(experiment, str(world / "of_sdxl"), "it", 1.0, "hat", Prediction()))
    monkeypatch.chdir(tmp_path)
    exec(diffusers.pieces[0].text, {})
    assert difference(pixels(tmp_path / "it.png"), pixels(file)) <= ROUNDING


def test_at_strength_0_a_dora_is_the_base_model(world: Path, made: Generate) -> None:
    none, half = made(f"dora {' '.join(SHORT)} --prompt hat --seed 0 --strength 0 --strength 0.5")
    assert difference(pixels(none), diffusers_own(world, "hat", 0, 0.0)) <= ROUNDING
    assert difference(pixels(half), pixels(none)) > ROUNDING
    assert not LORA.search(read_picture(none).prompt)


def test_a_second_command_goes_on_and_tells_programs_all(run: Prepare, tmp_path: Path) -> None:
    line = f"generate search --out {tmp_path / 'out'} --prompt hat --seed 4 --json --grid"
    run(line)
    result = run(line)
    told = json.loads(result.stdout)
    (picture,) = told["pictures"]
    assert picture == {
        "file": str(tmp_path / "out" / "00001-4.png"), "prompt": "hat", "negative_prompt": "", "seed": 4,
        "size": [64, 64], "steps": 2, "guidance_scale": 7.0, "strength": 0.6,
    }  # fmt: skip
    assert told["grid"] == str(tmp_path / "out" / "grid-0001.png")
    assert told["lora"]["name"] == "search" and told["base_model"].endswith("base")
    assert "Strength    0.6 (measured by the search" in result.stderr
    assert "made 1 of 1" in result.stderr


def test_an_interruption_keeps_what_is_done(run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = NumberedFolder.save, []

    def interrupted_at_the_third(folder: NumberedFolder, content: bytes, seed: int) -> Path:
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return save(folder, content, seed)

    monkeypatch.setattr(NumberedFolder, "save", interrupted_at_the_third)
    result = run(f"generate search --prompt hat --count 5 --batch-size 2 --out {tmp_path / 'out'}")
    assert result.status == 130
    assert result.stderr.splitlines()[-1] == f"interrupted; 2 pictures made so far in {tmp_path / 'out'}"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00000-5.png", "00001-6.png"]


def test_where_memory_runs_out_fewer_are_made_at_once(
    run: Prepare, made: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made("search --prompt hat --count 3")

    def of_little_memory(base: Any, requests: Any, *rest: Any) -> Any:
        if len(requests) > 1:
            raise torch.OutOfMemoryError
        return generate(base, requests, *rest)

    monkeypatch.setattr(generating, "generate", of_little_memory)
    result = run(f"generate search --prompt hat --count 3 --out {tmp_path / 'out'}")
    assert "warning: out of memory with 3 pictures at once; going on with 1" in result.stderr
    for one, other in zip(sorted((tmp_path / "out").glob("*.png")), expected, strict=True):
        assert difference(pixels(one), pixels(other)) <= ROUNDING


def assert_refused(result: Result, told: str) -> None:
    """Status 2, one message and nothing else."""
    assert result.status == 2, result.stderr
    assert result.stderr.count("raylora: error: ") == 1 and "Traceback" not in result.stderr
    assert told in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("missing.safetensors --prompt a", "missing.safetensors: there is no such LoRA file or folder"),
        ("empty --prompt a", "empty: holds no LoRA"),
        ("lora.pt --prompt a", "pickled files can run any code"),
        ("a_file --prompt a", "a_file: is not a readable .safetensors file"),
        ("lora.safetensors --prompt a", "no base model: give --base-model"),
        ("lora.safetensors --prompt a --base-model nowhere", "nowhere: there is no such base model"),
        ("lora.safetensors --prompt a --base-model ./gone", "./gone: there is no such file or folder"),
        ("lora.safetensors --prompt a --set model.base_model=./gone", ".safetensors file, with --base-model"),
        ("lora.safetensors --prompt a --base-model no_weights", "holds no diffusion_pytorch_model.safetensors"),
        ("lora.safetensors --prompt a --base-model sdxl", "LoRA for Stable Diffusion 1.5, and the base model sdxl"),
        ("of_sdxl --prompt a --base-model base", "is a LoRA for Stable Diffusion XL, and the base model base"),
        ("of_sdxl --prompt a --base-model base --set model.family=sd15", "is a LoRA for SDXL, and the base model is"),
        ("search", "--out a_file"),
        ("search --prompt a --steps 0", "--steps: sampling.steps: must be at least 1"),
        ("search --prompt a --guidance-scale nan", "must be a finite number"),
        ("search --prompt a --guidance-scale 1000", "a guidance scale of 1000; it must be from 0 to 100"),
        ("search --prompt a --size 60", "--size: 60x60: both sides must be multiples of 8 px"),
        ("search --prompt a --seed -1", "seed -1 must be from 0"),
        ("search --prompt a --strength inf", "--strength inf: must be from -10 to 10"),
        ("search --prompts nowhere.txt", "--prompts nowhere.txt: there is no such file"),
        ("search --prompt a --tracking-uri sqlite:///x.db", "--tracking-uri: is for a LoRA of a registry"),
        ("models:/mine@champion --prompt a", "no registry: give --tracking-uri"),
        ("models:/mine@champion --prompt a --tracking-uri sqlite:///no.db", "no.db: there is no such file"),
        ("models:/mine@champion --prompt a --tracking-uri https://me:pw@host", "must not hold a password"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_written(
    line: str, told: str, run: Prepare, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = sorted(world.iterdir())
    if told.startswith("--out "):
        assert_refused(run(f"generate {line} {told}"), "a_file: is a file; give another folder with --out")
    else:
        assert_refused(run(f"generate {line} --out {tmp_path / 'out'}"), told)
    assert not (tmp_path / "out").exists() and sorted(world.iterdir()) == before


def test_pictures_that_are_no_numbers_fail_in_one_line(run: Prepare, tmp_path: Path) -> None:
    result = run(f"generate wild.safetensors {' '.join(SHORT)} --prompt a --seed 0 --out {tmp_path / 'out'}")
    assert result.status == 1
    assert "raylora: failed: the pictures are no numbers at strength 1 and guidance scale 7" in result.stderr
    assert not (tmp_path / "out").exists()
