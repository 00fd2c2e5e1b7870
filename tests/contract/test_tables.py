"""One contract for each table of parts, kept by every entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import pytest
import torch
from diffusers.optimization import SchedulerType
from torch import Tensor
from torch.optim import Optimizer
from transformers import AutoTokenizer, BertConfig, CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

from raylora.bundled import DEMO_ENCODER
from raylora.config import Experiment, LoraConfig, LrSchedulerConfig, OptimizerConfig, SearchConfig
from raylora.config_optimization import OPTIMIZER_NAMES
from raylora.dataset.pixels import Pixels
from raylora.diffusion.adapters import count_parameters, target_modules
from raylora.diffusion.families import FAMILIES, skeleton
from raylora.errors import ModelError
from raylora.evaluation.encoders import IMAGE_ENCODERS, load_encoder
from raylora.search.space import load_space
from raylora.search.study import OPTUNA_SAMPLERS
from raylora.training.optimizers import OPTIMIZERS, build_lr_scheduler, build_optimizer, check_optimizer

RATES = {
    "adamw": 0.02, "adamw8bit": 0.02, "lion": 0.005, "lion8bit": 0.005, "prodigy": 1.0, "adafactor": 0.02,
    "adamw_schedule_free": 0.02,
}  # fmt: skip
"""By optimizer, what the guide says of them moved to a tiny problem."""
PATIENCE = 250
"""Steps; Prodigy takes more than half of them to find its rate."""
WIDTH = 64
"""64 x 64 weights are just enough for bitsandbytes to keep their states in 8 bits."""

LR_NAMES = get_args(LrSchedulerConfig.model_fields["name"].annotation)
RULES = {"piecewise_constant": {"step_rules": "1:20,0.1:40,0.0001"}}
"""Settings that a schedule can't do without."""
STEPS = 60
HIGH, LOW = 1e-3, 5e-4

SIZE_PX = 32


class Regression:
    """Find the matrix and the offset of a linear map; each of them is a parameter group of its own."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._inputs = torch.randn(256, WIDTH, generator=generator)
        self._outputs = self._inputs @ (0.3 * torch.randn(WIDTH, WIDTH, generator=generator)) + 0.5
        self.matrix = torch.nn.Parameter(torch.zeros(WIDTH, WIDTH))
        self.offset = torch.nn.Parameter(torch.zeros(WIDTH))

    def optimizer(self, name: str, rates: tuple[float, float] | None = None) -> Optimizer:
        own = rates or (RATES[name], RATES[name])
        groups = [{"params": [self.matrix], "lr": own[0]}, {"params": [self.offset], "lr": own[1]}]
        return build_optimizer(groups, OptimizerConfig.model_validate({"name": name}))

    def loss(self) -> Tensor:
        return torch.nn.functional.mse_loss(self._inputs @ self.matrix + self.offset, self._outputs)

    def train(self, optimizer: Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def test_the_configuration_names_every_entry() -> None:
    def names(section: Any, field: str) -> set[str]:
        return set(get_args(section.model_fields[field].annotation))

    assert tuple(OPTIMIZERS) == OPTIMIZER_NAMES
    assert names(SearchConfig, "optuna_sampler") == set(OPTUNA_SAMPLERS)
    assert set(RATES) == set(OPTIMIZERS)
    assert set(ENCODER_MAKERS) == set(IMAGE_ENCODERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name: str) -> None:
    problem = Regression()
    before = problem.loss().item()
    problem.train(problem.optimizer(name), steps=PATIENCE)
    assert problem.loss().item() < 0.2 * before
    assert bool(problem.matrix.any())
    assert bool(problem.offset.any())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_passes_the_check(name: str) -> None:
    check_optimizer(OptimizerConfig(name=name, learning_rate=RATES[name]), ("unet", "text_encoder"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_keeps_the_rate_of_each_group(name: str) -> None:
    rates = (1.0, 1.0) if name == "prodigy" else (HIGH, LOW)
    optimizer = Regression().optimizer(name, rates)
    assert tuple(group["lr"] for group in optimizer.param_groups) == rates


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"prodigy", "adafactor"}))
def test_a_group_moves_by_its_own_rate(name: str) -> None:
    problem = Regression()
    problem.train(problem.optimizer(name, (HIGH, 10 * HIGH)), steps=1)
    assert problem.matrix.abs().max().item() == pytest.approx(HIGH, rel=0.05)
    assert problem.offset.abs().max().item() == pytest.approx(10 * HIGH, rel=0.05)


def test_adafactor_moves_by_the_rate_in_the_mean_square_even_from_zero() -> None:
    """With the weights' own size as a factor it would be a thousandth of the rate."""
    problem = Regression()
    problem.train(problem.optimizer("adafactor", (HIGH, 10 * HIGH)), steps=1)
    assert problem.matrix.pow(2).mean().sqrt().item() == pytest.approx(HIGH, rel=0.05)
    assert problem.offset.pow(2).mean().sqrt().item() == pytest.approx(10 * HIGH, rel=0.05)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_decays_weights(name: str) -> None:
    config = OptimizerConfig.model_validate({"name": name, "weight_decay": 0.125})
    optimizer = build_optimizer([{"params": [torch.nn.Parameter(torch.ones(4))], "lr": 1.0}], config)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.125]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_from_its_state(name: str) -> None:
    straight, stopped = Regression(), Regression()
    straight.train(straight.optimizer(name), steps=10)
    first = stopped.optimizer(name)
    stopped.train(first, steps=5)
    second = stopped.optimizer(name)
    second.load_state_dict(first.state_dict())
    stopped.train(second, steps=5)
    assert torch.equal(straight.matrix, stopped.matrix)
    assert torch.equal(straight.offset, stopped.offset)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is for results."""
    Regression().optimizer(name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["adamw8bit", "lion8bit"])
def test_8_bit_optimizers_keep_8_bit_states(name: str) -> None:
    problem = Regression()
    optimizer = problem.optimizer(name)
    problem.train(optimizer, steps=1)
    kept = {value.dtype for value in optimizer.state[problem.matrix].values() if isinstance(value, Tensor)}
    assert torch.uint8 in kept


def learning_rates(name: str, **options: Any) -> list[tuple[float, float]]:
    """The rates of two groups, at the start and after each step."""
    problem = Regression()
    optimizer = problem.optimizer("adamw", (HIGH, LOW))
    settings = {"name": name, **RULES.get(name, {}), **options}
    schedule = build_lr_scheduler(optimizer, LrSchedulerConfig.model_validate(settings), STEPS)
    rates = []
    for _ in range(STEPS + 1):
        rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("name", LR_NAMES)
def test_every_schedule_starts_at_the_groups_own_rates_and_keeps_their_ratio(name: str) -> None:
    rates = learning_rates(name)
    assert rates[0] == pytest.approx((HIGH, LOW))
    assert all(low == pytest.approx(high * LOW / HIGH) for high, low in rates)


@pytest.mark.parametrize("name", LR_NAMES)
def test_every_schedule_stays_or_falls_to_nothing(name: str) -> None:
    rates = [high for high, _ in learning_rates(name)]
    if name.startswith("constant"):
        assert rates == pytest.approx([HIGH] * len(rates))
    else:
        assert rates[-1] < 1e-3 * HIGH
        assert sum(rates) < 0.7 * HIGH * len(rates)


@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial"])
def test_schedules_without_restarts_only_fall_and_are_half_way_at_half_time(name: str) -> None:
    rates = [high for high, _ in learning_rates(name)]
    assert rates == sorted(rates, reverse=True)
    assert rates[STEPS // 2] == pytest.approx(HIGH / 2, rel=0.01)


@pytest.mark.parametrize("num_restarts", [1, 3, 4, 5])
def test_cosine_with_restarts_starts_anew_as_often_as_asked(num_restarts: int) -> None:
    rates = [high for high, _ in learning_rates("cosine_with_restarts", num_restarts=num_restarts)]
    starts = [step for step, rate in enumerate(rates) if rate == pytest.approx(HIGH)]
    assert starts == [cycle * STEPS // num_restarts for cycle in range(num_restarts)]


def test_restarts_that_are_not_set_are_the_guides_3() -> None:
    assert learning_rates("cosine_with_restarts") == learning_rates("cosine_with_restarts", num_restarts=3)


def test_the_schedules_are_all_of_diffusers() -> None:
    assert set(LR_NAMES) == {kind.value for kind in SchedulerType}


def test_piecewise_constant_follows_its_rules() -> None:
    rates = [high / HIGH for high, _ in learning_rates("piecewise_constant", step_rules="1:10,0.5:25,0.2")]
    assert rates == pytest.approx([1] * 10 + [0.5] * 15 + [0.2] * (STEPS + 1 - 25))


def test_the_power_of_polynomial() -> None:
    rates = [high for high, _ in learning_rates("polynomial", power=2)]
    assert rates == pytest.approx([1e-7 + (HIGH - 1e-7) * (1 - step / STEPS) ** 2 for step in range(STEPS + 1)])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_every_schedule(name: str) -> None:
    """Some classes have no rate of their own, which diffusers' polynomial asks for."""
    for schedule in LR_NAMES:
        config = LrSchedulerConfig.model_validate({"name": schedule, **RULES.get(schedule, {})})
        assert build_lr_scheduler(Regression().optimizer(name), config, STEPS).get_last_lr() == [RATES[name]] * 2


@pytest.mark.parametrize("name", sorted(set(LR_NAMES) - {"constant", "piecewise_constant"}))
def test_warm_up_rises_from_0(name: str) -> None:
    rates = [high for high, _ in learning_rates(name, warmup_ratio=0.2)]
    warm_up = STEPS // 5
    assert rates[0] == 0
    assert rates[: warm_up + 1] == pytest.approx([HIGH * step / warm_up for step in range(warm_up + 1)])
    assert max(rates) == pytest.approx(HIGH)


def asked(name: str, seed: int) -> list[dict[str, Any]]:
    """What a sampler asks for, with scores that follow the learning rate."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = load_space("demo")
    study = optuna.create_study(direction="maximize", sampler=OPTUNA_SAMPLERS[name](SearchConfig(), seed))
    points = []
    for _ in range(15):
        trial = study.ask()
        points.append(space.suggest(trial, Experiment()))
        study.tell(trial, points[-1]["optimizer.unet_lr"])
    return points


@pytest.mark.parametrize("name", OPTUNA_SAMPLERS)
def test_every_sampler_asks_for_valid_settings(name: str) -> None:
    space = load_space("demo")
    for point in asked(name, seed=0):
        assert Experiment().with_params(point).warnings() == []
        space.to_optuna(point, Experiment())


@pytest.mark.parametrize("name", OPTUNA_SAMPLERS)
def test_every_sampler_follows_its_seed(name: str) -> None:
    assert asked(name, seed=1) == asked(name, seed=1)
    assert asked(name, seed=1) != asked(name, seed=2)


@pytest.mark.parametrize("name", OPTUNA_SAMPLERS)
def test_no_sampler_asks_for_the_same_twice(name: str) -> None:
    rates = [point["optimizer.unet_lr"] for point in asked(name, seed=0)]
    assert len(set(rates)) == len(rates)


def write_preprocessor(folder: Path, kind: str) -> None:
    settings = {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"shortest_edge": SIZE_PX},
        "do_center_crop": True,
        "crop_size": {"height": SIZE_PX, "width": SIZE_PX},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": True,
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def make_clip(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_ENCODER)
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tiny, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**tiny, "image_size": SIZE_PX, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_preprocessor(folder, "CLIPImageProcessor")


def make_dinov2(folder: Path) -> None:
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE_PX, patch_size=8, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(folder)
    write_preprocessor(folder, "BitImageProcessor")


ENCODER_MAKERS: dict[str, Callable[[Path], None]] = {"clip": make_clip, "dinov2": make_dinov2}


@pytest.fixture(scope="module")
def encoder_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real, tiny, untrained model of each kind, as its library saves it."""
    torch.manual_seed(0)
    folders = {}
    for kind, make in ENCODER_MAKERS.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        make(folders[kind])
    return folders


def pictures(count: int, width: int = SIZE_PX, height: int = SIZE_PX) -> Pixels:
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_every_encoder_gives_unit_vectors(kind: str, encoder_folders: dict[str, Path]) -> None:
    vectors = load_encoder(str(encoder_folders[kind])).images(pictures(3))
    assert vectors.shape == (3, 24)
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    assert vectors.norm(dim=-1).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_every_encoder_tells_pictures_apart_and_always_alike(kind: str, encoder_folders: dict[str, Path]) -> None:
    first, again = (load_encoder(str(encoder_folders[kind])) for _ in range(2))
    vectors = first.images(pictures(3))
    assert torch.equal(vectors, first.images(pictures(3)))
    assert torch.equal(vectors, again.images(pictures(3)))
    cosines = vectors @ vectors.T
    assert float((cosines - torch.eye(3) * 2).max()) < 0.9999


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_every_encoder_takes_pictures_of_any_size_and_each_by_itself(
    kind: str, encoder_folders: dict[str, Path]
) -> None:
    encoder = load_encoder(str(encoder_folders[kind]))
    batch = pictures(2, width=96, height=64)
    together = encoder.images(batch)
    assert torch.allclose(together[1], encoder.images(batch[1:])[0], atol=1e-5)


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_every_encoder_knows_texts_or_says_that_it_does_not(kind: str, encoder_folders: dict[str, Path]) -> None:
    vectors = load_encoder(str(encoder_folders[kind])).texts(["red hair", "blue eyes, " * 30])
    if kind == "clip":
        assert vectors is not None
        assert vectors.shape == (2, 24)
        assert vectors.norm(dim=-1).tolist() == pytest.approx([1, 1])
        assert not torch.allclose(vectors[0], vectors[1])
    else:
        assert vectors is None


def test_the_demos_encoder_knows_a_picture_from_noise_and_its_caption() -> None:
    encoder = load_encoder("demo")
    assert encoder.images(pictures(2)).shape[0] == 2
    assert encoder.texts(["red hair"]) is not None


def test_an_encoder_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a bert model; known kinds are clip, dinov2"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
@pytest.mark.parametrize("missing", ["model.safetensors", "preprocessor_config.json", "config.json"])
def test_an_encoder_that_lacks_a_file_is_refused(
    tmp_path: Path, encoder_folders: dict[str, Path], kind: str, missing: str
) -> None:
    for file in encoder_folders[kind].iterdir():
        if file.name != missing:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=f"evaluation.encoder {tmp_path}"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("reference", ["no/such/folder", "./nothing", ""])
def test_an_encoder_that_is_nowhere_is_refused(reference: str) -> None:
    with pytest.raises(ModelError, match=r"evaluation\.encoder"):
        load_encoder(reference)


def megabytes(family: str, rank: int, parts: tuple[str, ...]) -> float:
    """The size of a LoRA file in fp16."""
    modules = skeleton(FAMILIES[family], None)
    return sum(count_parameters(modules[part], part, LoraConfig(rank=rank)) for part in parts) * 2 / 1e6


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_skeleton_without_weights(name: str) -> None:
    parts = skeleton(FAMILIES[name], None)
    assert tuple(parts) == FAMILIES[name].parts
    assert {weight.device.type for module in parts.values() for weight in module.parameters()} == {"meta"}
    published = {"sd15": 859_520_964, "sdxl": 2_567_463_684}
    assert sum(weight.numel() for weight in parts["unet"].parameters()) == published[name]
    assert FAMILIES[name].name == name


@pytest.mark.parametrize(("name", "layers"), [("sd15", (192, 72)), ("sdxl", (722, 72, 192))])
def test_the_default_targets_are_kohyas(name: str, layers: tuple[int, int]) -> None:
    """sd-scripts counts them in its log: "create LoRA for U-Net: 192 modules"."""
    for (part, module), count in zip(skeleton(FAMILIES[name], None).items(), layers, strict=True):
        endings = tuple(f".{ending}" for ending in target_modules(part, LoraConfig()))
        assert sum(path.endswith(endings) for path, _ in module.named_modules()) == count


@pytest.mark.parametrize(("rank", "guides"), [(128, 140), (64, 70), (32, 40)])
def test_files_for_sd15_are_as_large_as_the_guide_says(rank: int, guides: float) -> None:
    assert megabytes("sd15", rank, FAMILIES["sd15"].parts) == pytest.approx(guides, rel=0.15)


@pytest.mark.parametrize(("rank", "guides"), [(32, 200), (16, 100), (8, 50)])
def test_files_for_sdxl_are_about_as_large_as_the_guide_says(rank: int, guides: float) -> None:
    """The guide's hold text encoders too, which its own advice leaves untrained."""
    assert megabytes("sdxl", rank, ("unet",)) == pytest.approx(guides, rel=0.2)


@pytest.mark.parametrize("name", FAMILIES)
def test_fewer_targets_make_smaller_files(name: str) -> None:
    unet = skeleton(FAMILIES[name], None)["unet"]
    targets: list[tuple[Any, ...]] = [("attention",), ("attention", "feed_forward"), ("attention", "projections")]
    sizes = [count_parameters(unet, "unet", LoraConfig(targets=chosen)) for chosen in targets]
    everything = count_parameters(unet, "unet", LoraConfig())
    assert sizes[1] + sizes[2] - sizes[0] == everything
    assert 0 < sizes[0] < min(sizes[1], sizes[2])


def test_a_lora_of_twice_the_rank_is_twice_as_large() -> None:
    assert megabytes("sdxl", 16, ("unet",)) == pytest.approx(2 * megabytes("sdxl", 8, ("unet",)))
