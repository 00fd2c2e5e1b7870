"""Every setting of an experiment: frozen, validated, documented.

`Experiment` is the top of one tree. A dotted path such as `optimizer.unet_lr` names a field in
YAML files, in `--set` and in search spaces alike. Reading files is `config_files.py`'s work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, field_validator, model_validator

from raylora.config_evaluation import EvaluationConfig as EvaluationConfig
from raylora.config_evaluation import ScoreConfig as ScoreConfig
from raylora.config_evaluation import check_score
from raylora.config_optimization import LossConfig as LossConfig
from raylora.config_optimization import LrSchedulerConfig as LrSchedulerConfig
from raylora.config_optimization import OptimizerConfig as OptimizerConfig
from raylora.config_optimization import check_loss, check_rates, check_schedule, optimization_warnings
from raylora.config_search import LimitsConfig as LimitsConfig
from raylora.config_search import SearchConfig as SearchConfig
from raylora.config_section import LONGEST_NAME
from raylora.config_section import Section as Section
from raylora.errors import ConfigError
from raylora.redaction import holds_secret
from raylora.storage import checked_uri

SIZE_STEP_PX = 64
"""Widths and heights are multiples of this, as in kohya's buckets and the guide's sizes."""

DEEPEST = 8
"""Levels of a dotted path; the deepest has four."""

CAPTIONS_VARY = "dataset.shuffle_caption or dataset.tag_dropout"


def _read_size(value: Any) -> Any:
    """Accept 512, "512", "512x768" and [512, 768]."""
    if isinstance(value, str):
        value = [part.strip() for part in value.lower().split("x")]
    if isinstance(value, int):
        value = [value]
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = [value[0], value[0]]
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(str(side).strip("-").isdigit() for side in value)
    ):
        raise ValueError("must be a width and a height such as 512x768")
    return value


def _check_sides(size: tuple[int, int]) -> tuple[int, int]:
    near = tuple(max(SIZE_STEP_PX, round(side / SIZE_STEP_PX) * SIZE_STEP_PX) for side in size)
    if near != size:
        raise ValueError(f"both sides must be multiples of {SIZE_STEP_PX}; use {near[0]}x{near[1]}")
    return size


Size = Annotated[tuple[int, int], BeforeValidator(_read_size), AfterValidator(_check_sides)]


def _read_no(value: Any) -> Any:
    """YAML reads an unquoted `no` as false."""
    return "no" if value is False else value


class DatasetConfig(Section):
    path: str | None = Field(
        None,
        min_length=1,
        description="Folder of captioned images, on this machine or below s3:// or gs://; `demo` is the bundled one.",
    )
    resolution: Size = Field(
        (512, 512),
        description="Width and height in px, multiples of 64. Guide: 512x512, 512x768, 768x512; SDXL 1024x1024.",
    )
    trigger: str | None = Field(
        None, description="Word put first in every caption that lacks it; serves alone where a caption is missing."
    )
    buckets: bool = Field(
        False,
        description="Each picture keeps about its shape: cut to a size in multiples of 64 of about the resolution's "
        "area, never enlarged. Off: all are cut to the resolution. Guide: on for SDXL and mixed sizes.",
    )
    max_area_px: int | None = Field(
        None, ge=SIZE_STEP_PX**2, description="Largest area of a bucket in px; unset: the resolution's."
    )
    random_flip: bool = Field(False, description="Learn each picture mirrored half of the time.")
    shuffle_caption: bool = Field(
        False, description="Shuffle the comma-separated tags at every use. Guide: on, since earlier tags weigh more."
    )
    keep_tokens: int = Field(
        1, ge=0, description="How many leading tags keep their place when tags are shuffled, and are never dropped."
    )
    caption_dropout: float = Field(0.0, ge=0, lt=1, description="Share of uses at which the caption is left empty.")
    tag_dropout: float = Field(0.0, ge=0, lt=1, description="Share of tags that are left out at each use.")
    caption_variants: int = Field(
        8,
        ge=1,
        description="How many shuffled or thinned variants of a caption are embedded ahead, where the text encoder "
        "isn't trained; one is drawn at every use.",
    )
    regularization: str | None = Field(
        None,
        description="Folder of regularization images: other subjects of the class, captions not needed. Guide: 10-20, "
        "not more than the set.",
    )
    prior_loss_weight: float = Field(1.0, ge=0, description="Weight of the loss on regularization images.")
    holdout_fraction: float = Field(
        0.25, gt=0, le=0.5, description="Share of each folder held out to judge trials, at least 4 images."
    )
    folds: int = Field(
        1,
        ge=1,
        le=10,
        description="Splits to judge by: each trial trains a LoRA for each, and its measures are their means; for 10 "
        "to 30 images. Costs as many times the compute.",
    )
    skip_bad_images: bool = Field(False, description="Go on without images that can't be read.")

    @field_validator("path", "regularization")
    @classmethod
    def _path_or_uri(cls, value: str | None) -> str | None:
        return checked_uri(value) if value and "://" in value else value

    @property
    def bucket_area_px(self) -> int:
        return self.max_area_px or self.resolution[0] * self.resolution[1]


class ModelConfig(Section):
    base_model: str | None = Field(
        None,
        min_length=1,
        description="Hub id, diffusers folder or .safetensors file of the base model; `demo` is the bundled one.",
    )
    family: Literal["sd15", "sdxl"] = Field("sd15", description="Which architecture the base model has.")
    train_text_encoder: bool = Field(
        True, description="Train a LoRA on the text encoder (SDXL: both) too. Guide: yes for SD1.5, no for SDXL."
    )
    clip_skip: int | None = Field(
        None,
        ge=1,
        description="Which layer of the text encoder is used, counted from the last as webuis do: 1 is the last. "
        "Unset: the family's own, 1 for SD1.5 and 2 for SDXL. Guide and most anime models: 2.",
    )
    prediction_type: Literal["epsilon", "v_prediction"] | None = Field(
        None, description="What the U-Net predicts; unset: as the base model's files say. Single files may not say it."
    )


def _read_block_ranks(value: Any) -> Any:
    """`down_blocks.1` is a block's name, also where dots were read as levels."""
    return flatten(value) if isinstance(value, Mapping) else value


BlockRanks = Annotated[dict[str, Annotated[int, Field(ge=1, le=1024, strict=True)]], BeforeValidator(_read_block_ranks)]
LoraTarget = Literal["attention", "feed_forward", "projections", "convolutions"]


class LoraConfig(Section):
    rank: int = Field(
        16, ge=1, le=1024, description="Rank of the update. Guide: realistic 64/128, anime 8/16/32, SDXL character 8."
    )
    alpha: float = Field(8.0, gt=0, description="Scale is alpha / rank. Guide: half of rank, never above it.")
    targets: tuple[LoraTarget, ...] = Field(
        ("attention", "feed_forward", "projections"),
        min_length=1,
        description="Which layers get a LoRA. Attention, feed-forward and projections of the transformer blocks are "
        "kohya's default; convolutions are those of the ResNet blocks and samplers (LoCon).",
    )
    block_ranks: BlockRanks | None = Field(
        None,
        description="Ranks of single U-Net blocks, such as {down_blocks.1: 4, mid_block: 32}; alpha keeps its share.",
    )
    use_dora: bool = Field(False, description="Learn magnitude and direction apart (DoRA).")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the LoRA's inputs dropped while training.")
    init: Literal["kaiming", "gaussian"] = Field(
        "kaiming",
        description="How the inner matrix begins: kaiming, as in kohya's scripts, or gaussian with a deviation of "
        "1/rank, as in diffusers' scripts; that is wider, and learns faster at the same rate.",
    )


class TrainingConfig(Section):
    repeats: int | None = Field(
        None,
        ge=1,
        description="Times an image is seen per epoch. Unset: from the folder's name (10_name), else 1. "
        "Guide: anime 8, realistic 15, SDXL 10.",
    )
    epochs: int = Field(10, ge=1, description="Guide: anime 20, realistic 10, SDXL 10.")
    max_images: int | None = Field(
        None, ge=1, description="Cap on images x repeats x epochs; the LR schedule ends there too."
    )
    stop_at: int | None = Field(
        None, ge=1, description="Stop after so many images, though the LR schedule would go further."
    )
    batch_size: int = Field(1, ge=1, description="Images a step, over all workers of a trial together.")
    gradient_accumulation: int = Field(1, ge=1, description="Batches gathered into one optimizer step.")
    mixed_precision: Annotated[Literal["no", "fp16", "bf16"], BeforeValidator(_read_no)] = Field(
        "no", description="Number format of the base model; the LoRA stays float32. Guide: fp16."
    )
    save_precision: Literal["fp16", "bf16", "fp32"] = Field("fp16", description="Number format of LoRA files.")
    save_every_epochs: int | None = Field(
        None, ge=1, description="Also keep a LoRA file after every so many epochs. Guide: every 2 of 10."
    )
    checkpoint_images: int = Field(
        500,
        ge=1,
        description="Images seen between two states to go on from: at most so many are trained again.",
    )
    keep_last: int | None = Field(None, ge=1, description="Of those files, keep only so many; unset: all.")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Measure and save a moving average of the LoRA's weights, with this decay a step."
    )
    gradient_checkpointing: bool = Field(False, description="Less GPU memory for about a third more time.")
    compile: bool = Field(
        False, description="Compile the U-Net's repeated blocks (torch.compile): minutes at first, then faster steps."
    )
    channels_last: bool = Field(False, description="Memory format of the U-Net on GPUs; often faster convolutions.")
    tf32: bool = Field(
        True, description="TensorFloat-32 in float32 matrix products and convolutions, on GPUs that have it."
    )


class SamplingConfig(Section):
    prompts: tuple[str, ...] = Field((), description="Prompts to look at; `{trigger}` stands for the trigger word.")
    negative_prompt: str = Field("", description="What samples should not show.")
    seeds: tuple[int, ...] = Field((0, 1), min_length=1, description="One image per prompt and seed.")
    steps: int = Field(25, ge=1, description="Denoising steps of a sample.")
    guidance_scale: float = Field(7.0, ge=0, description="Classifier-free guidance of samples.")


NO_SECRETS = (
    "must not hold a password or token, which would stay in files and lists of processes; for a server set the "
    "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; for "
    "PostgreSQL PGPASSWORD or ~/.pgpass, and give the URI without"
)


class TrackingConfig(Section):
    uri: str | None = Field(
        None,
        description="MLflow tracking URI; unset: a sqlite file in the output folder. Pictures and LoRAs lie beside a "
        "sqlite file, in `mlartifacts`; a server has a place of its own.",
    )
    experiment: str = Field("raylora", min_length=1, description="MLflow experiment.")
    register_name: str | None = Field(None, description="Name of the winner in MLflow's model registry.")

    @field_validator("uri")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        """What is kept in an output folder and shown must not open a store to whoever reads it."""
        if value is not None and holds_secret(value):
            raise ValueError(NO_SECRETS)
        return value

    @field_validator("register_name")
    @classmethod
    def _as_mlflow_has_names(cls, value: str | None) -> str | None:
        """MLflow would tell after the whole search (`mlflow.utils.validation._validate_model_name`)."""
        if value is not None and (not value.strip() or set("/:") & set(value) or value == "." or value[:2] == ".."):
            raise ValueError(
                "must be a name that MLflow can register: not blank, no / or :, not . and not begun with .."
            )
        return value


class Experiment(Section):
    """The whole job. `with_params` gives the configuration of a trial."""

    seed: int = Field(0, ge=0, lt=2**31, description="Seeds the search and every trial.")
    dataset: DatasetConfig = DatasetConfig()
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lr_scheduler: LrSchedulerConfig = LrSchedulerConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _rules(self) -> Experiment:
        check_rates(self.optimizer, self.model.train_text_encoder)
        check_schedule(self.lr_scheduler, self.optimizer)
        check_loss(self.loss)
        check_score(self.evaluation.score)
        return self

    def with_params(self, params: Mapping[str, Any]) -> Experiment:
        """This experiment with dotted paths set to new values, validated anew.

        Raises:
            pydantic.ValidationError: a path or value is wrong; `config_files.explain` turns it into words.
        """
        tree = self.model_dump()
        for path, value in params.items():
            set_path(tree, path, value)
        return Experiment.model_validate(tree)

    def warnings(self) -> list[str]:
        """What is allowed but goes against the guide or against the optimizer's own rules."""
        found = []
        if self.lora.alpha > self.lora.rank:
            found.append(
                f"lora.alpha {self.lora.alpha:g} is above lora.rank {self.lora.rank}: "
                "the guide advises half of rank and never above it"
            )
        return found + self._unheard() + optimization_warnings(self.optimizer, self.lr_scheduler, self.loss)

    def _unheard(self) -> list[str]:
        """Settings that something else must be set for."""
        data, training, usual = self.dataset, self.training, DatasetConfig()
        varies = data.shuffle_caption or data.tag_dropout > 0
        weighted, kept = data.prior_loss_weight != usual.prior_loss_weight, training.keep_last is not None
        rows = (
            ("dataset.max_area_px", data.max_area_px is not None, data.buckets, "dataset.buckets"),
            ("dataset.keep_tokens", data.keep_tokens != usual.keep_tokens, varies, CAPTIONS_VARY),
            ("dataset.caption_variants", data.caption_variants != usual.caption_variants, varies, CAPTIONS_VARY),
            ("dataset.prior_loss_weight", weighted, data.regularization is not None, "dataset.regularization"),
            ("training.keep_last", kept, training.save_every_epochs is not None, "training.save_every_epochs"),
        )
        return [f"{path} has no effect without {other}" for path, is_set, is_heard, other in rows if is_set > is_heard]


def set_path(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set `tree["a"]["b"]` for the path "a.b", making the levels between."""
    *sections, field = path.split(".")
    if len(sections) > DEEPEST:
        raise ConfigError(f"{path[:LONGEST_NAME]}…: there is no such setting")
    for section in sections:
        below = tree.setdefault(section, {})
        if not isinstance(below, dict):
            below = tree[section] = {}
        tree = below
    tree[field] = value


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as nested dictionaries: the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        set_path(tree, path, value)
    return tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths: the inverse of `nest`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def describe(params: Mapping[str, Any]) -> str:
    """Settings in one line, by their short names: `optimizer lion, unet_lr 1e-05, rank 8`."""
    short = {
        path.rpartition(".")[2] if not path.endswith(".name") else path.split(".")[0]: value
        for path, value in params.items()
    }
    return ", ".join(f"{name} {shown(value)}" for name, value in short.items())


def shown(value: Any) -> str:
    """A setting's value as people write it."""
    return f"{value:.3g}" if isinstance(value, float) else "null" if value is None else str(value)


def section_paths(section: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    """Every dotted path of a section, which holds settings and is none."""
    paths: list[str] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            paths += [prefix + name, *section_paths(kind, f"{prefix}{name}.")]
    return paths


def field_paths(section: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    """Every dotted path that the configuration has."""
    paths: list[str] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            paths += field_paths(kind, f"{prefix}{name}.")
        else:
            paths.append(prefix + name)
    return paths
