"""From what was asked for to a recipe for each picture; everything wrong with it is told here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raylora.config import Experiment
from raylora.diffusion.infotext import Recipe
from raylora.diffusion.prompts import Prompt, checked, read_prompts
from raylora.errors import ConfigError

MOST_PICTURES = 10_000
MOST_SEED = 2**32 - 1
"""As the webuis have it."""
SIDE_STEP_PX, LEAST_SIDE_PX, MOST_SIDE_PX = 8, 64, 4096
"""A latent is an eighth of its picture (diffusers' pipelines, `check_inputs`)."""
MOST_STEPS = 1000
"""Of both families' noise schedules (`families.TRAIN_TIMESTEPS`); here too, since a wish is checked without torch."""
MOST_STRENGTH, MOST_GUIDANCE = 10.0, 100.0
"""Beyond them no model makes pictures."""
SIZE = re.compile(r"(\d{1,9})(?:x(\d{1,9}))?", re.I)
TRIGGER = "{trigger}"


@dataclass(frozen=True)
class Wish:
    """What was asked for by options that are no settings; empty or None where nothing was said."""

    prompts: Sequence[str] = ()
    prompts_file: Path | None = None
    seeds: Sequence[int] = ()
    count: int | None = None
    """Seeds in a row, from each seed on."""
    strengths: Sequence[float] = ()
    size: str | None = None
    batch_size: int | None = None


def recipes_of(wish: Wish, experiment: Experiment, strength: float) -> list[Recipe]:
    """Every prompt with every seed at every strength, in the order of strengths, prompts and seeds.

    Args:
        experiment: gives what neither the wish nor a prompt's own line says.
        strength: where none was given.

    Raises:
        ConfigError: a value that no picture can have, or too many pictures.
    """
    _check_wish(wish)
    prompts = prompts_of(wish, experiment)
    strengths = list(dict.fromkeys(_strength(one) for one in wish.strengths)) or [strength]
    seeds = [_seeds(prompt, wish, experiment) for prompt in prompts]
    count = sum(map(len, seeds)) * len(strengths)
    if count > MOST_PICTURES:
        raise ConfigError(f"these are {count:,} pictures, and {MOST_PICTURES:,} are the most at once; ask for fewer "
                          "prompts, seeds or strengths")  # fmt: skip
    return [
        recipe
        for at in strengths
        for prompt, own in zip(prompts, seeds, strict=True)
        for recipe in _recipes(prompt, own, at, wish, experiment)
    ]


def _check_wish(wish: Wish) -> None:
    if wish.count is not None and not 1 <= wish.count <= MOST_PICTURES:
        raise ConfigError(f"--count {wish.count}: must be from 1 to {MOST_PICTURES:,}")
    if wish.batch_size is not None and wish.batch_size < 1:
        raise ConfigError(f"--batch-size {wish.batch_size}: must be 1 or more")


def prompts_of(wish: Wish, experiment: Experiment) -> list[Prompt]:
    """The prompts, each with a negative one, and the trigger word in its place; the settings' where none were given.

    Raises:
        ConfigError: there are none, one is no prompt, or a trigger is meant that isn't known.
    """
    sampling = experiment.sampling
    found = [Prompt(text, f"--prompt {number}") for number, text in enumerate(wish.prompts, start=1)]
    found += read_prompts(wish.prompts_file) if wish.prompts_file else []
    found = found or [Prompt(text, "sampling.prompts") for text in sampling.prompts]
    if not found:
        raise ConfigError("no prompts: give --prompt, several times if you like, or --prompts, a file with one a line")
    usual = _usable(Prompt("x", "--negative-prompt", sampling.negative_prompt), experiment.dataset.trigger)
    prompts = [_usable(prompt, experiment.dataset.trigger) for prompt in found]
    return [
        replace(prompt, negative_prompt=usual.negative_prompt) if prompt.negative_prompt is None else prompt
        for prompt in prompts
    ]


def _usable(prompt: Prompt, trigger: str | None) -> Prompt:
    """A prompt with the trigger word in its place, looked at as it will be drawn: the LoRA's file may hold any word."""
    negative = prompt.negative_prompt
    if TRIGGER in prompt.text or TRIGGER in (negative or ""):
        if not trigger:
            raise ConfigError(f"{prompt.source}: has {TRIGGER}, and the LoRA says no trigger word; give it with "
                              "--set dataset.trigger=WORD, or write it out")  # fmt: skip
        negative = None if negative is None else negative.replace(TRIGGER, trigger)
        prompt = replace(prompt, text=prompt.text.replace(TRIGGER, trigger), negative_prompt=negative)
    return checked(prompt)


def _seeds(prompt: Prompt, wish: Wish, experiment: Experiment) -> list[int]:
    """A prompt's seeds, each once: its line's, else those given, else the settings', to a count the first."""
    usual = experiment.sampling.seeds[:1] if wish.count else experiment.sampling.seeds
    firsts = [prompt.seed] if prompt.seed is not None else list(wish.seeds or usual)
    source = prompt.source if prompt.seed is not None else "--seed" if wish.seeds else "sampling.seeds"
    seeds = [seed for first in firsts for seed in range(first, first + (wish.count or 1))]
    for seed in seeds:
        if not 0 <= seed <= MOST_SEED:
            raise ConfigError(f"{source}: seed {seed} must be from 0 to {MOST_SEED}")
    return list(dict.fromkeys(seeds))


def _recipes(
    prompt: Prompt, seeds: Sequence[int], strength: float, wish: Wish, experiment: Experiment
) -> Iterator[Recipe]:
    sampling = experiment.sampling
    negative = prompt.negative_prompt or ""
    steps = sampling.steps if prompt.steps is None else prompt.steps
    guidance = sampling.guidance_scale if prompt.guidance_scale is None else prompt.guidance_scale
    if not 1 <= steps <= MOST_STEPS:
        raise ConfigError(f"{prompt.source}: {steps} steps; they must be from 1 to {MOST_STEPS}")
    if not 0 <= guidance <= MOST_GUIDANCE:
        raise ConfigError(f"{prompt.source}: a guidance scale of {guidance:g}; it must be from 0 to {MOST_GUIDANCE:g}")
    size = _size(prompt, wish, experiment)
    for seed in seeds:
        yield Recipe(prompt.text, negative, seed, size, steps, guidance, strength)


def _size(prompt: Prompt, wish: Wish, experiment: Experiment) -> tuple[int, int]:
    """Width and height in px: the line's own, else the option's, else those that were learned."""
    usual = _read_size(wish.size) if wish.size is not None else experiment.dataset.resolution
    size = usual[0] if prompt.width is None else prompt.width, usual[1] if prompt.height is None else prompt.height
    near = tuple(_near(side) for side in size)
    if near != size:
        source = "--size" if size == usual and wish.size is not None else prompt.source
        raise ConfigError(f"{source}: {size[0]}x{size[1]}: both sides must be multiples of {SIDE_STEP_PX} px from "
                          f"{LEAST_SIDE_PX} to {MOST_SIDE_PX}; use {near[0]}x{near[1]}")  # fmt: skip
    return size


def _read_size(text: str) -> tuple[int, int]:
    told = SIZE.fullmatch(text.strip())
    if told is None:
        raise ConfigError(f"--size {text[:100]}: must be a width and a height in px, such as 512x768")
    return int(told[1]), int(told[2] or told[1])


def _near(side: int) -> int:
    return min(max(round(side / SIDE_STEP_PX) * SIDE_STEP_PX, LEAST_SIDE_PX), MOST_SIDE_PX)


def _strength(value: float) -> float:
    if not (math.isfinite(value) and abs(value) <= MOST_STRENGTH):
        raise ConfigError(f"--strength {value:g}: must be from -{MOST_STRENGTH:g} to {MOST_STRENGTH:g}; 1 is the LoRA "
                          "as it was trained, 0 the base model")  # fmt: skip
    return value
